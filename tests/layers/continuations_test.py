"""What runs before rows are merged, and that it changes no result."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import composer_tf as ct
from composer_tf.layers.continuations import with_continuations
from composer_tf.layers.routing import MERGING_LATE

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


def test_pooling_is_taken_along():
    first, second = metalayer(), metalayer(num_modules=1)
    pooling = layers.MaxPooling2D()
    last = layers.GlobalAveragePooling2D()
    steps = [first, pooling, layers.Conv2D(3, 1), second, last, layers.Dense(3)]
    found = with_continuations(steps)
    assert [step for step, _ in found] == [first, steps[2], second, steps[5]]
    assert [taken for _, taken in found] == [(pooling,), (), (last,), ()]


@pytest.mark.parametrize(
    "following",
    [
        OwnPooling(),
        keras.Sequential([layers.GlobalAveragePooling2D()]),
        layers.Lambda(lambda x: x[:, 0]),
        layers.ReLU(),
        layers.GlobalAveragePooling2D(dtype="float16"),
        ct.Metalayer([layers.GlobalAveragePooling2D()]),
    ],
)
def test_other_steps_wait_until_rows_are_merged(following):
    if isinstance(following, ct.Metalayer):
        following.build((None, 6, 6, 4))
    assert lengths(metalayer(), following) == [0, 0]


def test_a_merge_of_unknown_size_has_no_continuation():
    pooling = layers.GlobalAveragePooling2D()
    assert lengths(layers.Conv2D(4, 3), pooling) == [0, 0]
    assert lengths(metalayer(size=None), pooling) == [0, 0]


@pytest.mark.parametrize(
    ("routing", "choices"),
    [
        (routing, choices)
        for routing in MERGING_LATE
        for choices in (
            [[0, 1, 0], [1, 0, 0], [0, 0, 0], [2, 1, 0]],
            [[1, 1, 0]] * 3,
            [[2, 0, 0]],
            np.zeros([0, 3], np.int32),
        )
        if len(choices) or routing != "static_scatter"  # It needs a row.
    ],
)
def test_results_are_those_of_running_all(routing, choices):
    model = ct.Composer(
        [
            ct.Metalayer([layers.Dense(4) for _ in range(3)]),
            layers.GlobalAveragePooling1D(),
            layers.Dense(8),
            ct.Metalayer([layers.Dense(9), layers.Dense(9)]),
            layers.Reshape([3, 3]),
            ct.Metalayer([layers.Dense(4)]),
            layers.GlobalAveragePooling1D(),
        ]
    )
    rng = np.random.default_rng(0)
    x = rng.normal(size=[len(choices), 6, 3]).astype(np.float32)
    model.build(x.shape)
    taken = [len(c) for _, c in with_continuations(model.metalayers)]
    assert taken == [1, 0, 0, 0, 1]
    for layer in model.metalayers:
        for weight in layer.weights:
            weight.assign(rng.uniform(0.1, 1.0, weight.shape))

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, 6, 3]),
            tf.TensorSpec([None, 3], tf.int32),
        ]
    )
    def run(x, choices):
        return model(x, choices=choices, routing=routing)

    actual = run(x, tf.constant(choices))
    wanted = model(x, choices=tf.constant(choices), routing="dense")
    np.testing.assert_allclose(actual, wanted, atol=1e-6)
