import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

import composer_tf as ct
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
    Cifar10: Cifar10(channels=(4, 6, 8), residual_channels=(5, 12)),
}


@pytest.mark.parametrize("model", SHAPES)
def test_it_maps_images_to_logits_of_each_class(model):
    images = np.zeros([2, *SHAPES[model]], np.uint8)
    composer = SMALL[model].build(seed=0)
    assert composer(images).shape == (2, 20 if model is WideMnist else 10)


@pytest.mark.parametrize("model", SHAPES)
def test_the_sandwich_is_an_option(model):
    assert SMALL[model].build().sandwich is None
    for weight in ("dearest", "cheapest", "random"):
        settings = model(**{weight: 0.5}, distillation=2.0)
        sandwich = settings.build().sandwich
        assert getattr(sandwich, weight) == 0.5
        assert sandwich.dearest + sandwich.cheapest + sandwich.random == 0.5
        assert sandwich.distillation == 2.0
    with pytest.raises(ValueError, match="`distillation` needs `dearest`"):
        model(distillation=1.0).build()


def test_a_gamma_is_of_an_example_or_of_a_batch():
    settings = {"glimpse": (-1.0, 2.0), "batch_entropy": (1.0, 1.0)}
    glimpse, entropy = (
        Mnist(**settings, glimpse_per="batch").build().preferences
    )
    assert (glimpse.per, entropy.per) == ("batch", "batch")
    glimpse, entropy = Mnist(**settings).build().preferences
    assert (glimpse.per, entropy.per) == ("example", "batch")


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
    pixels = 8 * 8
    head = 8 * 10
    depthwise = pixels * (9 * 8 + 8 * 8)
    downsampled = 9 * (16 * 16 * 6 * 5 + pixels * (5 * 8 + 8 * 8))
    plain = 9 * pixels * 8 * 8
    residual = 2 * 9 * pixels * (8 * 12 + 12 * 8)
    assert composer.cost_table.modules == (
        (0.0, depthwise, downsampled),
        (head, plain + head, residual + head),
    )
    assert composer.cost_table.fixed == 9 * (
        32 * 32 * 3 * 4 + 16 * 16 * (4 * 6 + 6 * 6) + pixels * (6 * 8 + 8 * 8)
    )


def test_cifar_modules_begin_as_skip():
    composer = SMALL[Cifar10].build()
    first, second = composer.routed_layers
    x = tf.abs(tf.random.stateless_normal([4, 8, 8, 8 + 4 * 6], [1, 2]))
    for module in first.modules:
        np.testing.assert_array_equal(module(x), x[..., :8])
    features = x[..., :8]
    for module in second.modules:
        module.layers[-1].set_weights([np.eye(8, 10), np.zeros(10)])
        expected = tf.reduce_mean(features, axis=(1, 2))
        np.testing.assert_allclose(module(features)[:, :8], expected, 1e-6)


def test_the_first_residual_module_reads_what_the_stem_saw_at_16x16_pixels():
    composer = SMALL[Cifar10].build()
    composer.build((None, 32, 32, 3))
    residual = composer.routed_layers[0].modules[2]
    for layer in residual.layers:
        if isinstance(layer, ct.StandardizedConv2D):
            layer.gains.assign(tf.ones_like(layer.gains))
    x = tf.random.stateless_normal([1, 8, 8, 8 + 4 * 6], [3, 4])
    other = tf.concat([x[..., :8], x[..., 8:] + 1.0], axis=-1)
    assert np.abs(residual(x) - residual(other)).max() > 1e-3


@pytest.mark.parametrize(
    ("name", "numbers"),
    [("channels", (8, 16)), ("residual_channels", (8, 16, 32))],
)
def test_cifar_has_channels_for_each_resolution(name, numbers):
    with pytest.raises(ValueError, match=f"`{name}` must be . numbers"):
        Cifar10(**{name: numbers}).build()


def test_every_setting_reaches_the_composer():
    settings = Mnist(
        num_metalayers=2,
        hidden_units=(4, 8),
        controller_units=5,
        grid=3,
        max_gap=1.5,
        price_factor=2.5,
        probe=True,
        glimpse=(-1.0, 2.0),
        glimpse_per="batch",
        batch_entropy=(0.1, 0.1),
        entropy=(0.0, 1.0),
        costs="macs",
        estimator="exact",
        dearest=0.5,
        cheapest=0.75,
        random=0.125,
        distillation=0.25,
        teacher="dearest",
    )
    assert {f.name for f in dataclasses.fields(settings)} == {
        *("num_metalayers", "hidden_units", "features", "controller_units"),
        *("grid", "max_gap", "price_factor", "probe", "glimpse", "glimpse_per"),
        *(
            "batch_entropy",
            "entropy",
            "costs",
            "estimator",
            "dearest",
            "cheapest",
            "random",
        ),
        *("distillation", "teacher"),
    }
    composer = settings.build(seed=7)
    controller = composer.controller
    assert (controller.units, controller.grid) == (5, 3)
    assert controller.max_gap == 1.5
    assert controller.price_factor == 2.5
    assert controller.probe
    assert composer.costs == "macs"
    assert isinstance(composer.estimator, ct.Exact)
    assert composer.seed == 7
    assert composer.sandwich.get_config() == {
        "dearest": 0.5,
        "cheapest": 0.75,
        "random": 0.125,
        "distillation": 0.25,
        "teacher": "dearest",
        "temperature": 2.0,
    }
    by_name = {p.name: p for p in composer.preferences}
    assert list(by_name) == ["glimpse", "batch_entropy", "entropy"]
    assert by_name["glimpse"].gamma.support == (-1.0, 2.0)
    assert by_name["entropy"].gamma.support == (0.0, 1.0)
    assert not by_name["batch_entropy"].steerable


def test_cifar_is_taught_by_its_dearest_path():
    sandwich = Cifar10(dearest=1.0, distillation=1.0).build().sandwich
    assert sandwich.teacher == "dearest"


@pytest.mark.parametrize("support", [(1.0,), (None,), (1.0, 2.0, 3.0)])
def test_a_range_is_two_numbers(support):
    with pytest.raises(ValueError, match="`glimpse` must be two numbers"):
        Mnist(glimpse=support).build()


def test_a_fresh_process_loads_what_was_saved(tmp_path):
    folders = []
    for model, shape in SHAPES.items():
        folder = tmp_path / model.__name__
        folder.mkdir()
        composer = SMALL[model].build(seed=0)
        images = np.random.default_rng(0).integers(0, 256, [3, *shape])
        composer(images)
        composer.set_weights([w + 0.01 for w in composer.get_weights()])
        composer.save(folder / "m.keras")
        np.save(folder / "x.npy", images)
        np.save(folder / "y.npy", composer(images))
        folders.append(folder)
    program = (
        "import sys, numpy as np, keras, composer_tf\n"
        "for folder in sys.argv[1:]:\n"
        "    model = keras.models.load_model(folder + '/m.keras')\n"
        "    x, y = (np.load(f'{folder}/{name}.npy') for name in 'xy')\n"
        "    np.testing.assert_allclose(model(x), y, atol=1e-5)\n"
    )
    subprocess.run([sys.executable, "-c", program, *folders], check=True)
