import keras
import numpy as np
import pytest
import tensorflow as tf

from composer_tf.layers import StandardizedConv2D


def test_a_standardized_kernel_keeps_the_variance_of_activations():
    keras.utils.set_random_seed(0)
    activations = tf.random.stateless_normal([64, 16, 16, 8], [1, 2])
    for _ in range(4):
        layer = StandardizedConv2D(8, 3)
        activations = tf.nn.relu(layer(activations))
    assert 0.5 < np.std(activations) < 2.0


def test_a_standardized_kernel_has_mean_0_and_the_norm_of_its_gain():
    layer = StandardizedConv2D(4, 3, padding="valid", gain=0.5)
    inputs = tf.random.stateless_normal([2, 6, 6, 3], [1, 2])
    actual = layer(inputs)
    kernel = layer.kernel.numpy().reshape(27, 4)
    kernel -= kernel.mean(axis=0)
    kernel /= np.linalg.norm(kernel, axis=0)
    relu_variance = 0.5 - 0.5 / np.pi
    kernel *= 0.5 / np.sqrt(relu_variance)
    expected = tf.nn.conv2d(inputs, kernel.reshape(3, 3, 3, 4), 1, "VALID")
    np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_what_was_learned_is_saved(tmp_path):
    """Its gains too, which a subclass of Keras' convolution would lose."""
    model = keras.Sequential([StandardizedConv2D(4, 3, strides=2)])
    x = np.random.default_rng(0).normal(size=[2, 6, 6, 3])
    model(x)
    model.set_weights([w + 0.1 for w in model.get_weights()])
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(loaded(x), model(x))
    assert len(loaded.get_weights()) == 3


@pytest.mark.parametrize(
    ("name", "value"),
    [("filters", 0), ("kernel_size", 0), ("strides", 0), ("padding", "full")],
)
def test_bad_arguments_are_named(name, value):
    arguments = {"filters": 4, "kernel_size": 3, name: value}
    with pytest.raises(ValueError, match=f"`{name}`"):
        StandardizedConv2D(**arguments)


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("strides", [1, 2, 3])
def test_the_shape_is_known_beforehand(padding, strides):
    layer = StandardizedConv2D(4, 3, strides, padding)
    for height, width in ((9, 8), (7, 5)):
        shape = layer(tf.ones([2, height, width, 3])).shape
        assert layer.compute_output_shape((2, height, width, 3)) == shape
    unknown = layer.compute_output_shape((None, None, None, 3))
    assert unknown == (None, None, None, 4)


def test_kernels_are_standardized_in_float32_under_mixed_precision():
    images = np.random.default_rng(0).normal(size=[4, 8, 8, 16])
    images = images.astype("float16").astype("float32")
    exact = StandardizedConv2D(32, 3)
    half = StandardizedConv2D(32, 3, dtype="mixed_bfloat16")
    exact.build(images.shape)
    half.build(images.shape)
    half.set_weights(exact.get_weights())
    plain = keras.layers.Conv2D(32, 3, padding="same")
    plain_half = keras.layers.Conv2D(
        32, 3, padding="same", dtype="mixed_bfloat16"
    )
    plain.build(images.shape)
    plain_half.build(images.shape)
    plain_half.set_weights(plain.get_weights())

    def error(half, exact):
        wanted = exact(images)
        found = tf.cast(half(images), tf.float32)
        return float(tf.norm(found - wanted) / tf.norm(wanted))

    assert error(half, exact) < 1.1 * error(plain_half, plain)
