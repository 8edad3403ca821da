import keras
import numpy as np
import pytest
import tensorflow as tf

from composer_tf.layers import DepthToSpace, SpaceToDepth


def test_a_block_of_pixels_becomes_one_with_the_channels_of_all():
    pixels = np.array([[1, 2, 5, 6], [3, 4, 7, 8]], np.float32)[None, ..., None]
    np.testing.assert_array_equal(
        SpaceToDepth()(pixels), [[[[1, 2, 3, 4], [5, 6, 7, 8]]]]
    )


@pytest.mark.parametrize("block_size", [2, 3])
def test_each_direction_undoes_the_other(block_size):
    pixels = np.random.default_rng(0).random([2, 6, 12, 5], np.float32)
    blocks = SpaceToDepth(block_size)(pixels)
    np.testing.assert_array_equal(DepthToSpace(block_size)(blocks), pixels)


def test_shapes_are_known_before_sizes_are():
    inputs = keras.Input((None, None, 3))
    blocks = SpaceToDepth()(inputs)
    assert blocks.shape == (None, None, None, 12)
    assert DepthToSpace()(blocks).shape == (None, None, None, 3)
    model = keras.Model(inputs, DepthToSpace()(blocks))
    assert model(tf.ones([1, 4, 8, 3])).shape == (1, 4, 8, 3)


@pytest.mark.parametrize("layer", [SpaceToDepth, DepthToSpace])
def test_bad_blocks_are_refused(layer):
    with pytest.raises(ValueError, match="`block_size` must be at least 2"):
        layer(1)
    needs = "whole blocks" if layer is SpaceToDepth else "multiple of 4"
    with pytest.raises(ValueError, match=needs):
        layer()(keras.Input((5, 5, 3)))


def test_what_is_not_made_of_whole_blocks_is_refused_before_it_runs():
    with pytest.raises(ValueError, match=r"whole blocks of 2 x 2 .*\(1, 3, 4"):
        SpaceToDepth()(tf.ones([1, 3, 4, 1]))
    with pytest.raises(ValueError, match="a multiple of 4 channels"):
        DepthToSpace()(tf.ones([1, 4, 4, 3]))
