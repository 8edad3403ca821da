"""Lean layers against the layers of Keras whose weights they have."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from composer_tf.layers.lean_layers import LeanGRUCell, LeanLayerNormalization


def twins(lean, plain, size):
    """Both layers, built, with the same random weights."""
    rng = np.random.default_rng(0)
    for layer in (lean, plain):
        layer.build((None, size))
    weights = [rng.normal(size=w.shape) for w in plain.get_weights()]
    for layer in (lean, plain):
        layer.set_weights(weights)
    return lean, plain


def values_and_gradients(layer, function, *inputs):
    tensors = [tf.constant(x) for x in inputs]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        outputs = function(layer, *tensors)
        loss = tf.reduce_sum(tf.sin(outputs))
    sources = [*(v.value for v in layer.trainable_variables), *tensors]
    return outputs, *tape.gradient(loss, sources)


def operators(function, *specs):
    """Number of operators that work on a batch."""
    graph = tf.function(function).get_concrete_function(*specs).graph
    idle = ("Const", "Placeholder", "ReadVariableOp", "Identity", "NoOp")
    return sum(op.type not in idle for op in graph.get_operations())


@pytest.mark.parametrize("rows_of_state", [1, 4])
def test_the_gru_cell_is_that_of_keras(rows_of_state):
    lean, plain = twins(LeanGRUCell(5), keras.layers.GRUCell(5), 3)
    rng = np.random.default_rng(1)
    inputs = rng.normal(size=[4, 3]).astype(np.float32)
    state = rng.normal(size=[rows_of_state, 5]).astype(np.float32)

    def step(cell, inputs, state):
        return cell(inputs, [state])[0]

    for actual, expected in zip(
        values_and_gradients(lean, step, inputs, state),
        values_and_gradients(plain, step, inputs, state),
        strict=True,
    ):
        np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_the_normalization_is_that_of_keras():
    lean, plain = twins(
        LeanLayerNormalization(), keras.layers.LayerNormalization(), 6
    )
    inputs = np.random.default_rng(1).normal(2.0, 3.0, size=[4, 6])
    for actual, expected in zip(
        values_and_gradients(lean, lambda n, x: n(x), np.float32(inputs)),
        values_and_gradients(plain, lambda n, x: n(x), np.float32(inputs)),
        strict=True,
    ):
        np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_they_take_fewer_operators_than_those_of_keras():
    spec = tf.TensorSpec([None, 6])
    lean, plain = twins(LeanGRUCell(6), keras.layers.GRUCell(6), 6)
    ours = operators(lambda x, h: lean(x, [h]), spec, spec)
    assert ours < operators(lambda x, h: plain(x, [h]), spec, spec)
    lean, plain = twins(
        LeanLayerNormalization(), keras.layers.LayerNormalization(), 6
    )
    assert operators(lean, spec) < operators(plain, spec)
