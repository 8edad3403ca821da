import keras
import numpy as np
import pytest
import tensorflow as tf

from composer_tf.datasets import EpochShuffle, batches

SIZE = 10


def order(shuffle, size=SIZE):
    """The order of the epoch that starts now."""
    key = shuffle.next_key()
    return shuffle.permute(tf.range(size), size, key).numpy().tolist()


@pytest.mark.parametrize("size", [1, 2, 10, 1000])
def test_each_epoch_is_a_permutation(size):
    shuffle = EpochShuffle(seed=3)
    for _ in range(3):
        assert sorted(order(shuffle, size)) == list(range(size))


def test_epochs_and_seeds_differ():
    first, second = EpochShuffle(seed=1), EpochShuffle(seed=2)
    orders = [order(shuffle) for shuffle in (first, second) for _ in range(3)]
    assert len({tuple(o) for o in orders}) == 6
    assert all(o != sorted(o) for o in orders)


def test_the_same_seed_and_epoch_give_the_same_order():
    one, other = EpochShuffle(seed=1), EpochShuffle(seed=1)
    assert [order(one) for _ in range(3)] == [order(other) for _ in range(3)]


def test_a_resumed_run_sees_the_order_of_its_epoch():
    whole, resumed = EpochShuffle(seed=1), EpochShuffle(seed=1)
    orders = [order(whole) for _ in range(5)]
    resumed.on_epoch_begin(3)
    assert [order(resumed), order(resumed)] == orders[3:]


def test_rows_may_be_asked_for_in_any_batches():
    shuffle = EpochShuffle(seed=1)
    whole = shuffle.permute(tf.range(SIZE), SIZE, tf.constant(4, tf.int64))
    parts = [
        shuffle.permute(part, SIZE, tf.constant(4, tf.int64))
        for part in tf.split(tf.range(SIZE), [7, 3])
    ]
    np.testing.assert_array_equal(tf.concat(parts, 0), whole)


class LabelRecorder(keras.Model):
    """Has nothing to learn; writes down the labels that it is given."""

    def __init__(self):
        super().__init__()
        self.seen = []
        self.dense = keras.layers.Dense(1)

    def call(self, inputs):
        return self.dense(inputs)

    def train_step(self, data):
        _, labels = data
        self.seen += labels.numpy().tolist()
        return {"loss": tf.zeros([])}


def labels_of_fit(shuffle, **kwargs):
    data = batches(np.zeros([SIZE, 1]), np.arange(SIZE), 5, shuffle)
    model = LabelRecorder()
    model.compile(run_eagerly=True)
    model.fit(data, callbacks=[shuffle], shuffle=False, verbose=0, **kwargs)
    return np.reshape(model.seen, [-1, SIZE]).tolist()


def test_fit_keys_every_epoch_by_its_number():
    whole = EpochShuffle(seed=1)
    expected = [order(whole) for _ in range(4)]
    assert labels_of_fit(EpochShuffle(seed=1), epochs=4) == expected
    resumed = labels_of_fit(EpochShuffle(seed=1), initial_epoch=2, epochs=4)
    assert resumed == expected[2:]


def test_fit_is_not_disturbed_by_other_readers_of_the_data():
    whole = EpochShuffle(seed=1)
    expected = [order(whole) for _ in range(2)]
    shuffle = EpochShuffle(seed=1)
    for _ in batches(np.zeros([SIZE, 1]), np.arange(SIZE), 5, shuffle):
        pass
    assert labels_of_fit(shuffle, epochs=2) == expected
