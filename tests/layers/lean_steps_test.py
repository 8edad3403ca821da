"""Lean steps against the layers of Keras that hold their weights."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from composer_tf.layers.lean_steps import gru_step, normalize


def built(layer, size):
    """The layer with random weights, none of which is 0 or 1."""
    layer.build((None, size))
    rng = np.random.default_rng(0)
    layer.set_weights([rng.normal(size=w.shape) for w in layer.get_weights()])
    return layer


def values_and_gradients(function, layer, *inputs):
    tensors = [tf.constant(x, tf.float32) for x in inputs]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        outputs = function(layer, *tensors)
        loss = tf.reduce_sum(tf.sin(outputs))
    sources = [*(v.value for v in layer.trainable_variables), *tensors]
    return outputs, *tape.gradient(loss, sources)


def assert_same(ours, keras_own, layer, *inputs):
    for actual, expected in zip(
        values_and_gradients(ours, layer, *inputs),
        values_and_gradients(keras_own, layer, *inputs),
        strict=True,
    ):
        np.testing.assert_allclose(actual, expected, atol=1e-5)


def num_operators(function, *specs):
    """Number of operators that work on a batch."""
    graph = tf.function(function).get_concrete_function(*specs).graph
    idle = ("Const", "Placeholder", "ReadVariableOp", "Identity", "NoOp")
    return sum(op.type not in idle for op in graph.get_operations())


def keras_gru_step(cell, inputs, state):
    return cell(inputs, [state])[0]


@pytest.mark.parametrize("rows_of_state", [1, 4])
def test_the_step_of_a_gru_is_that_of_keras(rows_of_state):
    cell = built(keras.layers.GRUCell(5), 3)
    rng = np.random.default_rng(1)
    inputs, state = rng.normal(size=[4, 3]), rng.normal(size=[rows_of_state, 5])
    assert_same(gru_step, keras_gru_step, cell, inputs, state)


def test_the_normalization_is_that_of_keras():
    layer = built(keras.layers.LayerNormalization(), 6)
    inputs = np.random.default_rng(1).normal(2.0, 3.0, size=[4, 6])
    assert_same(normalize, lambda norm, x: norm(x), layer, inputs)


def test_they_take_fewer_operators_than_those_of_keras():
    spec = tf.TensorSpec([None, 6])
    cell = built(keras.layers.GRUCell(6), 6)
    ours, theirs = (
        num_operators(lambda x, h, step=step: step(cell, x, h), spec, spec)
        for step in (gru_step, keras_gru_step)
    )
    assert ours < theirs
    layer = built(keras.layers.LayerNormalization(), 6)
    ours = num_operators(lambda x: normalize(layer, x), spec)
    assert ours < num_operators(lambda x: layer(x), spec)
