"""Models for a device, and what Keras says of them."""

import importlib.util
import pathlib

import keras
import numpy as np

import composer_tf as ct

KIT = pathlib.Path(__file__).parents[3] / "export" / "device"
GAMMAS = (-4.0, 0.0, 2.0, 6.0)
NAMED_GAMMAS = ({"glimpse": 6.0, "entropy": 1.0}, {"entropy": 0.5})
IMAGES = np.random.default_rng(0).normal(size=[24, 8, 8, 1]).astype("float32")

spec = importlib.util.spec_from_file_location("client", KIT / "client.py")
client = importlib.util.module_from_spec(spec)
spec.loader.exec_module(client)


def metalayer():
    conv = keras.layers.Conv2D
    return ct.Metalayer([conv(8, 1), conv(8, 5, padding="same")])


def build(gammas, *preferences):
    """An untrained Composer that happens to follow gamma."""
    keras.utils.set_random_seed(0)
    model = ct.Composer(
        [
            metalayer(),
            keras.layers.MaxPooling2D(),
            metalayer(),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(5),
        ],
        controller=ct.RNNController(units=4, grid=2),
        preferences=preferences,
    )
    model(IMAGES)
    model.compile()
    random = np.random.default_rng(0)
    while len({mean_cost(model, gamma) for gamma in gammas}) < len(gammas):
        for weight in model.controller.trainable_variables:
            weight.assign(random.normal(size=weight.shape))
    return model


def keras_outputs(model, gamma):
    composition = model(IMAGES, gamma=gamma, return_composition=True)
    return {
        "probabilities": keras.ops.softmax(composition.outputs).numpy(),
        "choices": composition.policy.choices.numpy(),
    }


def mean_cost(model, gamma):
    return cost_of(model, keras_outputs(model, gamma)["choices"]).mean()


def cost_of(model, choices):
    modules = zip(model.cost_table.fractions, choices.T, strict=True)
    return model.overhead + sum(np.array(beta)[c] for beta, c in modules)


def assert_same(outputs, wanted):
    np.testing.assert_array_equal(outputs["choices"], wanted["choices"])
    np.testing.assert_allclose(
        outputs["probabilities"], wanted["probabilities"], atol=1e-5
    )
