"""A small Composer and data for tests of training."""

import keras
import numpy as np

import composer_tf as ct

layers = keras.layers

RNG = np.random.default_rng(0)
X = RNG.normal(size=[64, 6]).astype("float32")
Y = (X[:, 0] > 0).astype("int64") + (X[:, 1] > 0)


def make(**options):
    return ct.Composer(
        **{
            "metalayers": [
                ct.Metalayer(
                    [
                        layers.Dense(3),
                        keras.Sequential(
                            [layers.Dense(8, "relu"), layers.Dense(3)]
                        ),
                    ]
                ),
            ],
            "controller": ct.FeedForwardController(4),
            "preferences": [ct.GlimpsePreference(ct.Uniform(-1.0, 2.0))],
            "seed": 0,
            **options,
        }
    )


def compiled(optimizer="sgd", **options):
    settings = {
        key: options.pop(key)
        for key in ("jit_compile", "steps_per_execution", "metrics", "loss")
        if key in options
    }
    keras.utils.set_random_seed(0)
    model = make(**options)
    model.compile(optimizer, **settings)
    return model


def data(epochs_shuffle=None, batch_size=16):
    shuffle = epochs_shuffle or ct.datasets.EpochShuffle(3)
    return ct.datasets.batches(X, Y, batch_size, shuffle)


def state(model):
    variables = [*model.weights, *model.optimizer.variables]
    return [v.numpy() for v in variables]


def assert_same_state(first, second):
    for a, b in zip(state(first), state(second), strict=True):
        np.testing.assert_array_equal(a, b)
