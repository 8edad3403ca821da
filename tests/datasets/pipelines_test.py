import numpy as np
import pytest
import tensorflow as tf

from composer_tf.datasets import EpochShuffle, batches

SIZE = 10
IMAGES = np.arange(SIZE * 4, dtype=np.uint8).reshape(SIZE, 2, 2)
LABELS = np.arange(SIZE) + 100


def read(data):
    """All images and labels of one pass, and the sizes of the batches."""
    images, labels = zip(*data.as_numpy_iterator(), strict=True)
    sizes = [len(batch) for batch in labels]
    return np.concatenate(images), np.concatenate(labels), sizes


def test_without_shuffle_order_and_remainder_are_kept():
    data = batches(IMAGES, LABELS, 4)
    images, labels, sizes = read(data)
    np.testing.assert_array_equal(images, IMAGES)
    np.testing.assert_array_equal(labels, LABELS)
    assert sizes == [4, 4, 2]
    assert data.cardinality() == 3


def test_shuffled_images_keep_their_labels():
    images, labels, _ = read(batches(IMAGES, LABELS, 5, EpochShuffle(1)))
    assert labels.tolist() != LABELS.tolist()
    np.testing.assert_array_equal(np.sort(labels), LABELS)
    np.testing.assert_array_equal(images, IMAGES[labels - 100])


def test_a_shuffled_pass_drops_the_remainder_and_repeats_nothing():
    data = batches(IMAGES, LABELS, 4, EpochShuffle(1))
    _, labels, sizes = read(data)
    assert sizes == [4, 4]
    assert data.cardinality() == 2
    assert len(set(labels)) == 8


def test_the_remainder_is_another_one_in_each_epoch():
    data = batches(IMAGES, LABELS, 4, EpochShuffle(1))
    seen = {label for _ in range(10) for label in read(data)[1]}
    assert seen == set(LABELS)


@pytest.mark.parametrize("batch_size", [4, 5])
def test_several_passes_make_one_epoch(batch_size):
    data = batches(IMAGES, LABELS, batch_size, EpochShuffle(1), passes=3)
    _, labels, sizes = read(data)
    assert sizes == [batch_size] * 6
    assert data.cardinality() == 6
    passes = labels.reshape(3, -1).tolist()
    assert all(len(set(one)) == 2 * batch_size for one in passes)
    assert passes[0] != passes[1] != passes[2]


def test_every_epoch_of_several_passes_has_orders_of_its_own():
    data = batches(IMAGES, LABELS, 5, EpochShuffle(1), passes=2)
    orders = [tuple(o) for _ in range(3) for o in read(data)[1].reshape(2, -1)]
    assert len(set(orders)) == 6


def test_batches_have_static_shapes_and_the_types_of_the_arrays():
    image_spec, label_spec = batches(
        IMAGES, LABELS, 5, EpochShuffle(1)
    ).element_spec
    assert image_spec == tf.TensorSpec([5, 2, 2], tf.uint8)
    assert label_spec == tf.TensorSpec([5], tf.int64)


@pytest.mark.parametrize("batch_size", [0, -1, 11])
@pytest.mark.parametrize("shuffle", [None, EpochShuffle])
def test_a_batch_size_that_does_not_fit_is_refused(batch_size, shuffle):
    with pytest.raises(
        ValueError, match=rf"`batch_size`.*1 to the 10 .*got {batch_size}"
    ):
        batches(IMAGES, LABELS, batch_size, shuffle and shuffle())


def test_no_pass_is_refused():
    with pytest.raises(ValueError, match="`passes` must be at least 1, got 0"):
        batches(IMAGES, LABELS, 5, EpochShuffle(), passes=0)
    with pytest.raises(ValueError, match="`passes` needs `shuffle`"):
        batches(IMAGES, LABELS, 5, passes=3)
    with pytest.raises(ValueError, match="each of the 10 images, got 9"):
        batches(IMAGES, LABELS[1:], 5)


def test_every_batch_of_every_epoch_is_augmented_by_a_seed_of_its_own():
    def mark(images, seed):
        seeds = tf.cast(tf.reshape(seed, [2, 1, 1]), images.dtype)
        return tf.broadcast_to(seeds, tf.shape(images))

    def seeds_of_two_epochs():
        shuffle = EpochShuffle(3)
        data = batches(IMAGES, LABELS, 2, shuffle, passes=2, augment=mark)
        epochs = []
        for epoch in range(2):
            shuffle.on_epoch_begin(epoch)
            epochs += [
                images[:, 0, 0].tolist()
                for images, _ in data.as_numpy_iterator()
            ]
        return epochs

    seeds = seeds_of_two_epochs()
    assert [seed for seed, _ in seeds] == [3] * 20
    assert len({number for _, number in seeds}) == 20
    assert seeds == seeds_of_two_epochs()  # As of a run that resumes.


def test_augmentation_needs_a_shuffle():
    with pytest.raises(ValueError, match="`augment` needs `shuffle`"):
        batches(IMAGES, LABELS, 2, augment=lambda images, seed: images)
