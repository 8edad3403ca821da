"""Keras layers of a controller, computed by fewer operators.

A controller is small: on one example its time is that of its operators, not of
its arithmetic. Weights and results are those of the layers in Keras.
"""

from collections.abc import Sequence

import keras
import tensorflow as tf


class LeanLayerNormalization(keras.layers.LayerNormalization):
    """Layer normalization over the last axis.

    ONNX Runtime knows this order of operators, and makes one of them.
    """

    gamma: keras.Variable
    beta: keras.Variable

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        mean = tf.reduce_mean(inputs, axis=-1, keepdims=True)
        centered = inputs - mean
        variance = tf.reduce_mean(tf.square(centered), axis=-1, keepdims=True)
        deviation = tf.sqrt(variance + self.epsilon)
        return centered / deviation * self.gamma + self.beta


class LeanGRUCell(keras.layers.GRUCell):
    """A GRU cell with Keras's default activations."""

    def call(
        self, inputs: tf.Tensor, states: Sequence[tf.Tensor]
    ) -> tuple[tf.Tensor, Sequence[tf.Tensor]]:
        """The next state h_t.

        Args:
            inputs: float32 `[B, d]`.
            states: h_{t-1}, one tensor float32 `[B, units]`, or `[1, units]`
                for all rows.

        Returns:
            h_t, float32 `[B, units]`, twice.
        """
        (state,) = states
        of_inputs, of_state = tf.unstack(self.bias)
        seen = tf.nn.bias_add(tf.matmul(inputs, self.kernel), of_inputs)
        recalled = tf.matmul(state, self.recurrent_kernel)
        recalled = tf.nn.bias_add(recalled, of_state)
        # Equal parts: LiteRT runs others outside of its delegate.
        update, reset, new = tf.split(seen, 3, axis=-1)
        old_update, old_reset, old_new = tf.split(recalled, 3, axis=-1)
        update = tf.sigmoid(update + old_update)
        reset = tf.sigmoid(reset + old_reset)
        new = tf.tanh(new + reset * old_new)
        state = new + update * (state - new)
        return state, [state]
