"""Variables as constants of a graph."""

from collections.abc import Sequence

import keras
import tensorflow as tf


class Constants(keras.StatelessScope):
    """A scope in which variables are constants of the graph that is traced.

    A SavedModel reads each variable by operators of its own, and computes what
    depends on variables alone at each call. Of a small controller that would be
    most of the work.

    Args:
        variables: Variables that are constants, with the values they have now.
            Updates of them end with the scope; others stay as they are.
    """

    def __init__(self, variables: Sequence[keras.Variable]) -> None:
        with tf.init_scope():
            values = [variable.numpy() for variable in variables]
        constants = [tf.constant(value) for value in values]
        super().__init__(zip(variables, constants, strict=True))

    def add_update(self, update: tuple[keras.Variable, tf.Tensor]) -> None:
        variable, value = update
        if self.get_current_value(variable) is not None:
            super().add_update(update)
        else:  # Such as the state of a generator of random numbers.
            variable.value.assign(value)
