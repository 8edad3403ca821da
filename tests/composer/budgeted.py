"""A model that follows gamma, for the tests of budgets."""

import keras
import numpy as np

import composer_tf as ct

layers = keras.layers
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=[200, 4]).astype("float32")
Y = np.arange(200) % 3
QUIET = {"verbose": 0, "return_dict": True}


def build(*more, seed=0, costs=(0.1, 1.0), gamma=None):
    """Follows gamma, each example in its own way."""
    keras.utils.set_random_seed(seed)
    model = ct.Composer(
        [
            ct.Metalayer(
                [
                    layers.Dense(3),
                    keras.Sequential([layers.Dense(64), layers.Dense(3)]),
                ]
            )
        ],
        preferences=[
            *more,
            ct.GlimpsePreference(gamma or ct.Uniform(-2.0, 6.0)),
        ],
        costs=[costs],
        seed=0,
    )
    model.compile("sgd", metrics=["accuracy"])
    model(X[:1])
    return model


def calibrated(**options):
    model = build()
    model.calibrate(X, batch_size=200, **options)
    return model
