"""What runs before rows are merged, and that it changes no result."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import composer_tf as ct
from composer_tf.layers.continuations import with_continuations
from composer_tf.layers.routing import DEPLOYED

layers = keras.layers


class OwnPooling(layers.GlobalAveragePooling2D):
    """A layer of a user's own, which might look at several rows at a time."""


def metalayer(num_modules=2, size=8, **options):
    result = ct.Metalayer(
        [layers.Conv2D(4, 3) for _ in range(num_modules)], **options
    )
    result.build((None, size, size, 3))
    return result


def lengths(*steps):
    return [len(continuation) for _, continuation in with_continuations(steps)]


def test_rows_are_merged_where_they_are_smallest():
    first = metalayer()
    wider = layers.Conv2D(64, 1)
    pooling = layers.MaxPooling2D()
    steps = [first, pooling, wider, layers.Flatten()]
    found = with_continuations(steps)
    assert [step for step, _ in found] == [first, wider, steps[-1]]
    assert [continuation for _, continuation in found] == [(pooling,), (), ()]
    head = [layers.GlobalAveragePooling2D(), layers.Dense(3), layers.Softmax()]
    assert lengths(metalayer(), *head) == [2, 0]
    assert lengths(metalayer(), layers.Flatten(), layers.Dense(2)) == [2]


@pytest.mark.parametrize(
    "following",
    [
        OwnPooling(),
        keras.Sequential([OwnPooling()]),
        layers.Lambda(lambda x: x[:, 0]),
        layers.ReLU(),
        layers.GlobalAveragePooling2D(dtype="float16"),
        ct.Metalayer([layers.GlobalAveragePooling2D()]),
    ],
)
def test_other_steps_wait_until_rows_are_merged(following):
    assert lengths(metalayer(), following) == [0, 0]


def test_only_a_merge_of_known_size_has_a_continuation():
    pooling = layers.GlobalAveragePooling2D()
    assert lengths(layers.Conv2D(4, 3), pooling) == [0, 0]
    assert lengths(metalayer(num_modules=1), pooling) == [0, 0]
    assert lengths(metalayer(size=None), pooling) == [0, 0]


@pytest.mark.parametrize("routing", DEPLOYED)
@pytest.mark.parametrize(
    "choices",
    [
        [[0, 1], [1, 0], [0, 0], [2, 1]],
        [[1, 1]] * 3,
        [[2, 0]],
        np.zeros([0, 2], np.int32),
    ],
)
def test_results_are_those_of_running_all(routing, choices):
    model = ct.Composer(
        [
            ct.Metalayer([layers.Dense(4) for _ in range(3)]),
            layers.Flatten(),
            layers.Dense(8),
            layers.BatchNormalization(),
            ct.Metalayer([layers.Dense(9), layers.Dense(9)]),
            layers.Dense(5, "softmax"),
        ]
    )
    rng = np.random.default_rng(0)
    x = rng.normal(size=[len(choices), 6, 3]).astype(np.float32)
    model.build(x.shape)
    taken = [len(c) for _, c in with_continuations(model.metalayers)]
    assert taken == [2, 0, 1]
    for layer in model.metalayers:
        for weight in layer.weights:
            weight.assign(rng.uniform(0.1, 1.0, weight.shape))

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, 6, 3]),
            tf.TensorSpec([None, 2], tf.int32),
        ]
    )
    def run(x, choices):
        return model(x, choices=choices, routing=routing)

    actual = run(x, tf.constant(choices))
    wanted = model(x, choices=tf.constant(choices), routing="dense")
    np.testing.assert_allclose(actual, wanted, atol=1e-6)
