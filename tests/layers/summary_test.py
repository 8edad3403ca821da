"""Truth is an average over windows, by numpy."""

import numpy as np
import pytest
import tensorflow as tf

from composer_tf.layers.summary import summarize, summary_size


def pool(array, grid):
    """Mean over windows of ceil(size / grid), padded alike at both ends."""
    for axis in range(1, array.ndim - 1):
        size = array.shape[axis]
        window = int(np.ceil(size / grid))
        cells = int(np.ceil(size / window))
        start = -((cells * window - size) // 2)
        ends = [start + window * (i + 1) for i in range(cells)]
        # The windows at the ends are smaller, so weigh by the grid itself.
        parts = np.split(array, ends[:-1], axis=axis)
        array = np.concatenate(
            [part.mean(axis=axis, keepdims=True) for part in parts], axis=axis
        )
    return array.reshape(len(array), -1)


@pytest.mark.parametrize(
    ("shape", "grid", "length"),
    [
        ((3, 7), 4, 7),
        ((3, 8, 2), 4, 4 * 2),
        ((3, 10, 2), 4, 4 * 2),
        ((3, 3, 2), 4, 3 * 2),
        ((3, 8, 12, 2), 4, 4 * 4 * 2),
        ((3, 5, 6, 1), 4, 3 * 3 * 1),
        ((3, 9, 7, 2), 1, 2),
        ((2, 4, 5, 6, 2), 2, 2 * 2 * 2 * 2),
    ],
)
def test_summary_is_average_pooling(shape, grid, length):
    array = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    built_for = (None, *shape[1:])
    summary = summarize(tf.constant(array), built_for, grid)
    np.testing.assert_allclose(summary, pool(array, grid), atol=1e-6)
    assert summary.shape[1] == length
    assert summary_size(built_for, grid) == length


@pytest.mark.parametrize("dtype", ["float16", "uint8"])
def test_a_summary_is_float32_whatever_is_summarised(dtype):
    images = tf.cast(tf.reshape(tf.range(2 * 4 * 4), [2, 4, 4, 1]), dtype)
    summary = summarize(images, (None, 4, 4, 1), grid=1)
    assert summary.dtype == tf.float32
    np.testing.assert_array_equal(summary, [[7.5], [23.5]])


def test_images_of_unknown_size_are_summarised_by_their_mean():
    shape = (None, None, None, 2)

    @tf.function(input_signature=[tf.TensorSpec(shape)])
    def traced(images):
        return summarize(images, shape, grid=4)

    images = np.random.default_rng(0).normal(size=(3, 5, 6, 2))
    np.testing.assert_allclose(
        traced(images.astype(np.float32)),
        images.mean(axis=(1, 2)),
        atol=1e-6,
    )
    assert summary_size(shape, grid=4) == 2


@pytest.mark.parametrize(
    ("shape", "message"),
    [((None,), "2 to 5 axes"), ((None, None), "known size of its last axis")],
)
def test_activations_that_cannot_be_summarised_are_refused(shape, message):
    with pytest.raises(ValueError, match=message):
        summary_size(shape, grid=4)
