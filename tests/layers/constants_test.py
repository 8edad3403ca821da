"""Variables as constants: what a graph then reads and writes."""

import keras
import numpy as np
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


def test_an_update_of_a_constant_ends_with_the_scope():
    weight = keras.Variable([1.0, 2.0])
    with Constants([weight]):
        weight.assign([3.0, 4.0])
        np.testing.assert_array_equal(weight, [3.0, 4.0])
    np.testing.assert_array_equal(weight, [1.0, 2.0])
