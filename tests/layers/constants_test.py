"""Variables as constants: what a graph then reads and writes."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from composer_tf.layers.constants import Constants


def test_a_graph_reads_constants_and_updates_other_variables():
    weight = keras.Variable(2.0)
    count = keras.Variable(0.0)

    @tf.function
    def step(x):
        with Constants([weight]):
            count.assign_add(1.0)
            return x * weight

    assert step(tf.constant(3.0)) == 6.0
    weight.assign(5.0)  # The graph has the value of its time.
    assert step(tf.constant(3.0)) == 6.0
    assert count.numpy() == 2.0
    captured = {id(t) for t in step.get_concrete_function(1.0).captured_inputs}
    assert id(weight.value.handle) not in captured


def test_a_constant_lies_in_the_function_that_reads_it():
    weight = keras.Variable([2.0, 7.0])

    @tf.function
    def step(x):
        with Constants([weight]):
            return tf.cond(x > 0.0, lambda: x * weight, lambda: -weight)

    np.testing.assert_array_equal(step(tf.constant(3.0)), [6.0, 21.0])
    graph = step.get_concrete_function(tf.TensorSpec([])).graph
    constants = {
        tuple(tf.make_ndarray(node.attr["value"].tensor).ravel())
        for node in graph.as_graph_def().node
        if node.op == "Const"
    }
    assert (2.0, 7.0) not in constants


def test_a_loop_and_what_comes_before_share_a_constant():
    weight = keras.Variable([2.0, 7.0])

    @tf.function
    def step(x):
        with Constants([weight]):
            body = lambda i, y: (i + 1, y * weight)  # noqa: E731
            return tf.while_loop(lambda i, _: i < 3, body, (0, x * weight))[1]

    np.testing.assert_array_equal(step(tf.ones([2])), [2.0**4, 7.0**4])
    definition = step.get_concrete_function(tf.TensorSpec([2])).graph
    graph = definition.as_graph_def()
    every = [graph.node, *(f.node_def for f in graph.library.function)]
    values = [
        tf.make_ndarray(node.attr["value"].tensor).tolist()
        for nodes in every
        for node in nodes
        if node.op == "Const"
    ]
    assert values.count([2.0, 7.0]) == 1


def test_a_constant_cannot_be_updated():
    weight = keras.Variable([1.0, 2.0], name="count")
    with Constants([weight]), pytest.raises(ValueError, match="'count'"):
        weight.assign([3.0, 4.0])
    np.testing.assert_array_equal(weight, [1.0, 2.0])
