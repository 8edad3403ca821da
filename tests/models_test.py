import keras
import numpy as np
import pytest
import tensorflow as tf

from composer_tf.models import Cifar10, Mnist, WideMnist
from composer_tf.models.cifar10 import StandardizedConv2D

SHAPES = {WideMnist: (28, 56, 1), Mnist: (28, 28, 1), Cifar10: (32, 32, 3)}
SMALL = {
    WideMnist: WideMnist(small_units=4, large_units=8),
    Mnist: Mnist(
        hidden_units=(4, 8, 12),
        num_metalayers=3,
        glimpse=(-1.0, 2.0),
        entropy=(0.1, 0.1),
    ),
    Cifar10: Cifar10(channels=(8, 16)),
}


@pytest.mark.parametrize("model", SHAPES)
def test_it_maps_images_to_logits_of_each_class(model):
    images = np.zeros([2, *SHAPES[model]], np.uint8)
    composer = SMALL[model].build(seed=0)
    assert composer(images).shape == (2, 20 if model is WideMnist else 10)


@pytest.mark.parametrize("model", SHAPES)
def test_the_sandwich_is_an_option(model):
    assert SMALL[model].build().sandwich is None
    settings = model(sandwich=0.5, distillation=2.0)
    sandwich = settings.build().sandwich
    assert sandwich.dearest == sandwich.cheapest == 0.5
    assert sandwich.distillation == 2.0
    with pytest.raises(ValueError, match="`distillation` needs `sandwich`"):
        model(distillation=1.0).build()


def test_parameters_of_mnist_modules_stand_in_the_ratio_of_their_units():
    composer = SMALL[Mnist].build()
    composer.build((None, 28, 28, 1))
    first, *others = np.array(composer.cost_table.modules)
    np.testing.assert_allclose(first / first[0], [1, 2, 3], rtol=0.01)
    for costs in others:  # Biases of the output weigh more there.
        np.testing.assert_allclose(costs / costs[0], [1, 2, 3], rtol=0.1)
    assert composer.preferences.names == ("glimpse",)  # Entropy is constant.


def test_cifar_modules_cost_what_their_convolutions_do():
    composer = SMALL[Cifar10].build()
    composer.build((None, 32, 32, 3))
    pixels = (16 * 16, 8 * 8)
    for size, channels, costs in zip(
        pixels, (8, 16), composer.cost_table.modules, strict=True
    ):
        convolution = size * 9 * channels**2
        depthwise = size * (9 * channels + channels**2)
        assert costs == (0.0, depthwise, convolution, 2.0 * convolution)


def test_cifar_modules_begin_as_skip():
    composer = SMALL[Cifar10].build()
    x = tf.abs(tf.random.stateless_normal([4, 16, 16, 8], [1, 2]))
    for module in composer.choosing[0].modules:
        np.testing.assert_array_equal(module(x), x)


def test_a_standardized_kernel_keeps_the_variance_of_activations():
    keras.utils.set_random_seed(0)
    activations = tf.random.stateless_normal([64, 16, 16, 8], [1, 2])
    for _ in range(4):
        layer = StandardizedConv2D(8, 3, padding="same")
        activations = tf.nn.relu(layer(activations))
    assert 0.5 < np.std(activations) < 2.0


def test_a_standardized_kernel_has_mean_0_and_the_norm_of_its_gain():
    layer = StandardizedConv2D(4, 3, gain=0.5)
    inputs = tf.random.stateless_normal([2, 6, 6, 3], [1, 2])
    actual = layer(inputs)
    kernel = layer.kernel.numpy().reshape(27, 4)
    kernel -= kernel.mean(axis=0)
    kernel /= np.linalg.norm(kernel, axis=0)
    relu_variance = 0.5 - 0.5 / np.pi
    kernel *= 0.5 / np.sqrt(relu_variance)
    expected = tf.nn.conv2d(inputs, kernel.reshape(3, 3, 3, 4), 1, "VALID")
    np.testing.assert_allclose(actual, expected, atol=1e-5)
