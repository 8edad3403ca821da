import numpy as np
import pytest
import tensorflow as tf

from composer_tf.models import Cifar10, Mnist, WideMnist

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


def test_cifar_modules_begin_near_their_input():
    """What is added to the input has unit variance at most."""
    composer = SMALL[Cifar10].build()
    x = tf.random.normal([4, 16, 16, 8])
    for module in composer.choosing[0].modules:
        assert np.std(module(x)) < 2.0
