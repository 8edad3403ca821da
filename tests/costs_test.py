"""Costs against numbers worked out by hand, written out as products."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from composer_tf.costs import (
    CostTable,
    check_user_costs,
    count_macs,
    count_parameters,
)

L = keras.layers


class SelfAttention(L.Layer):
    """A layer of one input around one of two."""

    def __init__(self):
        super().__init__()
        self.attention = L.MultiHeadAttention(num_heads=2, key_dim=3)

    def build(self, input_shape):
        self.attention.build(input_shape, input_shape)

    def call(self, inputs):
        return self.attention(inputs, inputs)


class Guarded(L.Layer):
    """Does its work inside of a conditional, as routing does."""

    def build(self, input_shape):
        self.inner = L.Dense(5)
        self.inner.build(input_shape)

    def call(self, inputs):
        return tf.cond(
            tf.reduce_sum(inputs) > 0.0,
            lambda: self.inner(inputs),
            lambda: inputs,
        )


@pytest.mark.parametrize(
    ("layer", "shape", "parameters", "macs"),
    [
        (L.Dense(3), (None, 5), 5 * 3 + 3, 5 * 3),
        (L.Dense(3), (None, 4, 5), 5 * 3 + 3, 4 * 5 * 3),
        (L.Conv1D(4, 3), (None, 6, 2), 3 * 2 * 4 + 4, 4 * 3 * 2 * 4),
        (
            L.Conv2D(4, 3),
            (None, 6, 7, 2),
            3 * 3 * 2 * 4 + 4,
            (4 * 5) * (3 * 3 * 2 * 4),
        ),
        (
            L.Conv2D(4, 3, strides=2, padding="same", use_bias=False),
            (None, 6, 7, 2),
            3 * 3 * 2 * 4,
            (3 * 4) * (3 * 3 * 2 * 4),
        ),
        (
            L.Conv2D(4, 3, dilation_rate=2),
            (None, 8, 8, 2),
            3 * 3 * 2 * 4 + 4,
            (4 * 4) * (3 * 3 * 2 * 4),
        ),
        (
            L.Conv2D(8, 3, groups=2),
            (None, 6, 7, 4),
            3 * 3 * 2 * 8 + 8,
            (4 * 5) * (3 * 3 * 2 * 8),
        ),
        (
            L.DepthwiseConv2D(3, depth_multiplier=2),
            (None, 6, 6, 5),
            3 * 3 * 5 * 2 + 10,
            (4 * 4) * (3 * 3 * 5 * 2),
        ),
        (
            L.SeparableConv2D(4, 3),
            (None, 6, 6, 5),
            3 * 3 * 5 + 5 * 4 + 4,
            (4 * 4) * (3 * 3 * 5 + 5 * 4),
        ),
        (
            L.Conv2DTranspose(4, 3, strides=2, padding="same"),
            (None, 5, 6, 2),
            3 * 3 * 2 * 4 + 4,
            (5 * 6) * (3 * 3 * 2 * 4),
        ),
        (
            L.Conv2DTranspose(4, 3, strides=2, padding="valid"),
            (None, 5, 6, 2),
            3 * 3 * 2 * 4 + 4,
            (5 * 6) * (3 * 3 * 2 * 4),
        ),
        (
            L.Conv3D(4, 2),
            (None, 3, 3, 3, 5),
            2**3 * 5 * 4 + 4,
            2**3 * (2**3 * 5 * 4),
        ),
        (
            L.EinsumDense("abc,cde->abde", output_shape=(None, 2, 7)),
            (None, 4, 6),
            6 * 2 * 7,
            4 * 6 * 2 * 7,
        ),
        (
            L.EinsumDense("...x,xy->...y", output_shape=7),
            (None, 4, 6),
            6 * 7,
            4 * 6 * 7,
        ),
        (
            SelfAttention(),
            (None, 4, 6),
            3 * (6 * 2 * 3 + 2 * 3) + (2 * 3 * 6 + 6),
            # Query, key, value and output; then scores and their use.
            4 * (4 * 6 * 2 * 3) + 2 * (2 * 4 * 4 * 3),
        ),
        (
            L.LSTM(3, unroll=True),
            (None, 4, 5),
            4 * (5 * 3 + 3 * 3 + 3),
            4 * 4 * (5 * 3 + 3 * 3),
        ),
        (L.BatchNormalization(), (None, 6), 4 * 6, 0),
        (L.Embedding(10, 3), (None, 6), 10 * 3, 0),
        (
            keras.Sequential([L.Flatten(), L.Dense(7, "relu"), L.Dense(3)]),
            (None, 2, 5),
            (10 * 7 + 7) + (7 * 3 + 3),
            10 * 7 + 7 * 3,
        ),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_layers_cost_what_their_formulas_say(layer, shape, parameters, macs):
    layer.build(shape)
    assert count_parameters(layer, shape) == parameters
    assert count_macs(layer, shape) == macs


def test_frozen_weights_are_parameters_too():
    layer = L.Dense(3, trainable=False)
    layer.build((None, 5))
    assert count_parameters(layer) == 18.0


def test_macs_of_a_function_of_several_tensors():
    macs = count_macs(lambda a, b: tf.matmul(a, b), (None, 2, 3), (None, 3, 4))
    assert macs == 2 * 3 * 4


def test_macs_of_named_inputs():
    def function(inputs):
        return inputs["x"] @ tf.ones([5, 3]) + inputs["y"] @ tf.ones([2, 3])

    assert count_macs(function, {"x": (None, 5), "y": (None, 2)}) == 15 + 6


def test_macs_do_not_depend_on_the_precision():
    layer = L.Dense(3, dtype="mixed_float16")
    layer.build((None, 5))
    assert count_macs(layer, (None, 5)) == 15


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (L.LSTM(3), (None, 4, 5)),
        (L.Conv3DTranspose(4, 2), (None, 3, 3, 3, 5)),
        (Guarded(), (None, 5)),
    ],
    ids=["loop", "uncounted operation", "conditional"],
)
def test_work_that_cannot_be_counted_is_refused_by_name(layer, shape):
    layer.build(shape)
    with pytest.raises(ValueError, match=rf"'{layer.name}'.*cannot count"):
        count_macs(layer, shape)


def test_a_loop_in_a_function_is_refused():
    def function(rows):
        return tf.map_fn(lambda row: row @ tf.ones([5, 5]), rows)

    with pytest.raises(ValueError, match="cannot count"):
        count_macs(function, (None, 4, 1, 5))


def test_the_recurrent_operator_of_a_gpu_is_refused():
    def function(rows):  # What Keras makes of an LSTM there.
        zeros = tf.zeros([1, 2, 3])
        return tf.raw_ops.CudnnRNNV3(
            input=rows,
            input_h=zeros,
            input_c=zeros,
            params=tf.zeros([96]),
            sequence_lengths=tf.fill([2], 4),
        ).output

    with pytest.raises(ValueError, match="cannot count"):
        count_macs(function, (4, 2, 5))


def test_a_shape_that_is_not_known_is_refused():
    layer = L.Conv2D(2, 3)
    layer.build((None, None, None, 3))
    with pytest.raises(ValueError, match=r"known input shapes.*None, None, 3"):
        count_macs(layer, (None, None, None, 3))


def test_a_cost_table_normalises_by_the_dearest_path():
    table = CostTable(
        "macs", fixed=10.0, controller=30.0, modules=((20.0, 80.0), (40.0, 0.0))
    )
    assert table.full == 10.0 + 30.0 + 80.0 + 40.0
    assert table.overhead == 40.0 / 160.0
    assert table.fractions == ((0.125, 0.5), (0.25, 0.0))
    dearest = sum(max(costs) for costs in table.fractions)
    assert math.isclose(table.overhead + dearest, 1.0)
    assert table.dearest == (1, 0)
    assert table.cheapest == (0, 1)


@pytest.mark.parametrize(
    "costs", [[[1, 2], [0, 0.5, 3]], ((0, 0), (0, 0, 1)), np.ones([2, 3])]
)
def test_user_costs_that_fit_are_taken(costs):
    check_user_costs(costs, [len(row) for row in costs])


@pytest.mark.parametrize(
    ("costs", "message"),
    [
        ([[1.0, 2.0]], r"one number per module.*\[2, 3\] of them, got \[\["),
        ([[1.0], [1.0, 2.0, 3.0]], r"\[2, 3\] of them, got \[\["),
        ([[1.0, -1.0], [1.0, 2.0, 3.0]], "finite numbers, 0 or more"),
        ([[1.0, math.nan], [1.0, 2.0, 3.0]], "finite numbers, 0 or more"),
        ([[1.0, math.inf], [1.0, 2.0, 3.0]], "finite numbers, 0 or more"),
        ([[0.0, 0.0], [0.0, 0.0, 0.0]], "must not all be 0"),
        ([1.0, 2.0], "one number per module of each metalayer"),
        (None, r"`costs` must be one of \('parameters', 'macs'\), or.*None"),
        (5, "got 5"),
    ],
)
def test_user_costs_that_do_not_fit_are_refused(costs, message):
    with pytest.raises(ValueError, match=message):
        check_user_costs(costs, [2, 3])
