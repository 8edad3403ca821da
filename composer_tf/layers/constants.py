"""Variables as constants of the graphs that read them."""

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf


class Constants(keras.StatelessScope):
    """A scope in which variables are constants of each graph that reads them.

    A SavedModel reads each variable by operators of its own, is handed all of
    them at each call, and computes what depends on variables alone anew. A
    constant lies where it is used: that of a module that does not run costs
    nothing.

    Args:
        variables: Variables that are constants, with the values they have now.
            Updates of them end with the scope; others stay as they are.
    """

    def __init__(self, variables: Sequence[keras.Variable]) -> None:
        super().__init__()
        with tf.init_scope():
            self._values: dict[int, np.ndarray] = {
                id(variable): variable.numpy() for variable in variables
            }
        self._constants: dict[tuple[int, tf.Graph], tf.Tensor] = {}

    def get_current_value(self, variable: keras.Variable) -> tf.Tensor | None:
        updated = super().get_current_value(variable)
        if updated is not None or id(variable) not in self._values:
            return updated
        key = (id(variable), tf.compat.v1.get_default_graph())
        if key not in self._constants:
            self._constants[key] = tf.constant(self._values[id(variable)])
        return self._constants[key]

    def add_update(self, update: tuple[keras.Variable, tf.Tensor]) -> None:
        variable, value = update
        if id(variable) in self._values:
            super().add_update(update)
        else:  # Such as the state of a generator of random numbers.
            variable._direct_assign(value)  # As Keras does outside of scopes.
