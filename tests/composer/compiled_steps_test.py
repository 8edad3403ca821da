"""A loop of steps that XLA compiles takes the batches that Keras would take."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

import composer_tf as ct
from composer_tf.composer import compiled_steps, replicated_model
from composer_tf.composer.compiled_steps import training_function
from tests.small_training import X, Y, make

PRIME = 31


class Steps:
    """A step that keeps an account of the batches, in their order."""

    def __init__(self):
        self.account = tf.Variable(0, dtype=tf.int32)
        self.calls = 0

    def step(self, batch):
        seen = self.account * PRIME + tf.reduce_sum(batch["rows"])
        return {"seen": self.account.assign(seen), "rows": batch["rows"][0]}

    def otherwise(self, iterator):
        self.calls += 1
        raise StopIteration

    def expected(self, batches):
        account = 0
        for batch in batches:
            account = account * PRIME + sum(batch)
        return account


def batches_of(*sizes):
    numbers = itertools.count(1)
    return [[next(numbers) for _ in range(size)] for size in sizes]


def dataset(batches):
    return tf.data.Dataset.from_generator(
        lambda: ({"rows": batch} for batch in batches),
        output_signature={"rows": tf.TensorSpec([None], tf.int32)},
    )


@pytest.mark.parametrize("steps_per_execution", [2, 3, 4, 9, 50])
@pytest.mark.parametrize(
    "sizes", [[3], [3, 3, 3, 3], [3, 3, 3, 3, 1], [2, 3, 2, 2, 2, 2, 1]]
)
def test_each_call_takes_so_many_batches_in_order(
    sizes, steps_per_execution, monkeypatch
):
    monkeypatch.setattr(compiled_steps, "_MOST_STEPS", 4)  # Of one program.
    batches, steps = batches_of(*sizes), Steps()
    train = training_function(steps.step, steps_per_execution, steps.otherwise)
    iterator = iter(dataset(batches))
    for start in range(0, len(batches), steps_per_execution):
        taken = batches[: start + steps_per_execution]
        logs = train(iterator)
        assert logs["seen"] == steps.account == steps.expected(taken)
        assert logs["rows"] == taken[-1][0]
    with pytest.raises(StopIteration):
        train(iterator)
    assert not steps.calls


def test_no_more_is_read_than_is_run():
    steps, read = Steps(), []

    def generate():
        for batch in itertools.count():
            read.append(batch)
            yield {"rows": [batch]}

    data = tf.data.Dataset.from_generator(
        generate, output_signature={"rows": tf.TensorSpec([1], tf.int32)}
    )
    options = tf.data.Options()
    options.autotune.enabled = False  # It reads ahead.
    train = training_function(steps.step, 3, steps.otherwise)
    iterator = iter(data.with_options(options))
    train(iterator)
    assert read == [0, 1, 2]
    train(iterator)
    assert read == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("sizes", [(2, 8), (8, 2)])
def test_batches_of_another_fixed_size_train_too(sizes, monkeypatch):
    monkeypatch.setattr(compiled_steps, "_MOST_BYTES", 64)
    steps, seen = Steps(), []
    train = training_function(steps.step, 4, steps.otherwise)
    for size in sizes:
        seen += batches_of(*[size] * 4)
        rows = np.array(batches_of(*[size] * 4), np.int32).ravel()
        data = tf.data.Dataset.from_tensor_slices({"rows": rows})
        train(iter(data.batch(size, drop_remainder=True)))
        assert steps.account == np.int64(steps.expected(seen)).astype(np.int32)


@pytest.mark.parametrize(
    "data",
    [
        [{"rows": np.ones([2], np.int32)}],
        tf.data.Dataset.from_tensors({"rows": ["a", "b"]}),
        tf.data.Dataset.from_tensors({"rows": tf.ragged.constant([[1], []])}),
    ],
    ids=["no tensors", "text", "ragged"],
)
def test_other_data_is_left_to_keras(data):
    steps = Steps()
    train = training_function(steps.step, 8, steps.otherwise)
    with pytest.raises(StopIteration):
        train(iter(data))
    assert steps.calls == 1


@pytest.mark.parametrize(
    ("options", "compiles"),
    [
        ({"jit_compile": True, "steps_per_execution": 3}, True),
        ({"jit_compile": True}, False),
        ({"steps_per_execution": 3}, False),
    ],
    ids=["both", "single steps", "no XLA"],
)
def test_fit_compiles_the_loop_if_it_is_told_to(options, compiles, monkeypatch):
    made = []

    def spy(step, steps_per_execution, otherwise):
        made.append(steps_per_execution)
        return training_function(step, steps_per_execution, otherwise=None)

    monkeypatch.setattr(replicated_model, "training_function", spy)
    model = make()
    model.compile("sgd", **options)
    model.fit(X, Y, batch_size=8, verbose=0)
    assert made == [3] * compiles
    model.run_eagerly = True
    model.make_train_function(force=True)
    assert made == [3] * compiles


@pytest.mark.slow
def test_training_is_that_of_single_steps():
    def trained(steps_per_execution):
        keras.utils.set_random_seed(0)
        model = make(
            preferences=[ct.GlimpsePreference(ct.Uniform(-1.0, 2.0))],
            controller=ct.RNNController(units=4),
        )
        model.compile(
            "adam",
            metrics=["accuracy"],
            jit_compile=True,
            steps_per_execution=steps_per_execution,
        )
        weights = np.linspace(0.0, 2.0, len(X), dtype="float32")
        data = tf.data.Dataset.from_tensor_slices((X, Y, weights)).batch(6)
        history = model.fit(data, epochs=2, verbose=0).history
        return model, history

    one, wanted = trained(1)
    several, history = trained(4)  # The last of an epoch are fewer.
    assert several.optimizer.iterations == one.optimizer.iterations
    for name, values in wanted.items():
        np.testing.assert_allclose(history[name], values, rtol=1e-5)
    for a, b in zip(several.get_weights(), one.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
