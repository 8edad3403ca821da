"""A Composer of two metalayers with a fixed step between, and inputs."""

import keras
import numpy as np

import composer_tf as ct

layers = keras.layers

X = np.random.default_rng(0).normal(size=[7, 3]).astype("float32")


def make(**options):
    return ct.Composer(
        **{
            "metalayers": [
                ct.Metalayer([layers.Dense(6, "relu"), layers.Dense(6)]),
                layers.Dense(5, "relu"),
                ct.Metalayer(
                    [layers.Dense(4), layers.Dense(4, "tanh"), layers.Dense(4)]
                ),
            ],
            "preferences": [ct.GlimpsePreference(ct.Uniform(-2.0, 6.0))],
            "seed": 0,
            **options,
        }
    )
