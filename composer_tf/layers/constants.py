"""Variables as constants of the graphs that read them."""

from collections.abc import Iterable

import keras
import numpy as np
import tensorflow as tf


class Constants(keras.StatelessScope):
    """A scope in which variables are constants of functions that read them.

    A SavedModel reads each variable by operators of its own, is handed all of
    them at each call, and computes what depends on variables alone anew. A
    constant lies where it is used: that of a module that does not run costs
    nothing.

    Args:
        variables: Variables that are constants, with the values they have now.
            They cannot be updated within the scope; others can.
    """

    def __init__(self, variables: Iterable[keras.Variable]) -> None:
        super().__init__()
        with tf.init_scope():
            self._values: dict[int, np.ndarray] = {
                id(variable): variable.numpy() for variable in variables
            }
        self._constants: dict[tuple[int, tf.Graph], tf.Tensor] = {}

    def get_current_value(self, variable: keras.Variable) -> tf.Tensor | None:
        if id(variable) not in self._values:
            return None
        graph = tf.compat.v1.get_default_graph()
        # Keras calls a recurrent cell outside of its loop too.
        while type(graph).__name__.startswith("While"):
            graph = graph.outer_graph
        key = (id(variable), graph)
        if key not in self._constants:
            with graph.as_default():
                constant = tf.constant(self._values[id(variable)])
            self._constants[key] = constant
        return self._constants[key]

    def add_update(self, update: tuple[keras.Variable, tf.Tensor]) -> None:
        variable, value = update
        if id(variable) in self._values:
            raise ValueError(
                f"A call of the model updates the weight {variable.path!r}, "
                "which is a constant in an artifact, as weights are that are "
                "trained: make it with `trainable=False`."
            )
        # Such as the state of a generator of random numbers. Outside of scopes
        # Keras does the same.
        variable._direct_assign(value)
