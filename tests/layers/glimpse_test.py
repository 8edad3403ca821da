import keras
import numpy as np
import pytest
import tensorflow as tf

from composer_tf.layers import Glimpse

IMAGES = np.arange(2 * 6 * 8 * 3, dtype=np.float32).reshape(2, 6, 8, 3)


@pytest.mark.parametrize(
    ("window", "expected"),
    [
        ({}, IMAGES),
        ({"width": 4}, IMAGES[:, :, :4]),
        ({"left": 5}, IMAGES[:, :, 5:]),
        ({"top": 1, "left": 2}, IMAGES[:, 1:, 2:]),
        (
            {"height": 2, "width": 3, "top": 4, "left": 5},
            IMAGES[:, 4:6, 5:8],
        ),
    ],
)
def test_crops_the_window(window, expected):
    glimpse = Glimpse(**window)
    np.testing.assert_array_equal(glimpse(IMAGES), expected)
    assert glimpse.compute_output_shape((None, 6, 8, 3)) == (
        None,
        *expected.shape[1:],
    )


def test_is_exact_for_integers():
    images = tf.cast(IMAGES, tf.uint8)
    outputs = Glimpse(width=2, autocast=False)(images)
    assert outputs.dtype == tf.uint8
    np.testing.assert_array_equal(outputs, images[:, :, :2])


def test_images_of_unknown_size_give_the_window_or_stay_unknown():
    glimpse = Glimpse(width=4, top=1)
    shape = glimpse.compute_output_shape((None, None, None, 3))
    assert shape == (None, None, 4, 3)
    glimpse.build((None, None, None, 3))
    np.testing.assert_array_equal(glimpse(IMAGES), IMAGES[:, 1:, :4])


def test_a_window_that_does_not_fit_an_image_of_unknown_size_is_refused():
    glimpse = Glimpse(width=28)
    glimpse.build((None, None, None, 1))

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 1])])
    def run(images):
        return glimpse(images)

    assert run(tf.ones([1, 8, 30, 1])).shape == (1, 8, 28, 1)
    with pytest.raises(tf.errors.InvalidArgumentError, match="28"):
        run(tf.ones([1, 8, 8, 1]))


@pytest.mark.parametrize(
    ("argument", "value"),
    [("height", 0), ("width", -1), ("top", -1), ("left", -2)],
)
def test_bad_arguments_are_named(argument, value):
    with pytest.raises(ValueError, match=rf"`{argument}`.*{value}"):
        Glimpse(**{argument: value})


@pytest.mark.parametrize(
    ("window", "message"),
    [
        ({"height": 7}, r"\[0, 7\) does not fit in an image of height 6"),
        ({"width": 4, "left": 5}, r"\[5, 9\) does not fit .* width 8"),
        ({"top": 6}, r"\[6, 6\) does not fit .* height 6"),
    ],
)
def test_a_window_that_does_not_fit_is_refused(window, message):
    with pytest.raises(ValueError, match=message):
        Glimpse(**window)(IMAGES)


def test_only_images_are_taken():
    with pytest.raises(ValueError, match="expects images"):
        Glimpse(width=1)(tf.zeros([2, 3]))


def test_config_keeps_the_window():
    glimpse = Glimpse(height=2, width=3, top=4, left=5)
    copy = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(glimpse)
    )
    np.testing.assert_array_equal(copy(IMAGES), glimpse(IMAGES))
