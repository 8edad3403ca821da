"""What Keras layers of a controller compute, by fewer operators.

A controller is small: on one example its time is that of its operators, not of
its arithmetic. The layers hold the weights.
"""

import keras
import tensorflow as tf


def normalize(
    layer: keras.layers.LayerNormalization, inputs: tf.Tensor
) -> tf.Tensor:
    """Layer normalization over the last axis, with scale and offset.

    ONNX Runtime knows this order of operators, and makes one of them.

    Args:
        layer: Built layer with Keras's default options.
        inputs: float32 `[B, d]`.

    Returns:
        float32 `[B, d]`.
    """
    scale, offset = map(tf.convert_to_tensor, (layer.gamma, layer.beta))
    centered = inputs - tf.reduce_mean(inputs, axis=-1, keepdims=True)
    variance = tf.reduce_mean(tf.square(centered), axis=-1, keepdims=True)
    return centered / tf.sqrt(variance + layer.epsilon) * scale + offset


def gru_step(
    cell: keras.layers.GRUCell, inputs: tf.Tensor, state: tf.Tensor
) -> tf.Tensor:
    """The next state h_t of a GRU.

    Args:
        cell: Built cell with Keras's default options.
        inputs: float32 `[B, d]`.
        state: h_{t-1}, float32 `[B, units]`, or `[1, units]` for all rows.

    Returns:
        h_t, float32 `[B, units]`.
    """
    of_inputs, of_state = tf.unstack(tf.convert_to_tensor(cell.bias))
    seen = tf.nn.bias_add(tf.matmul(inputs, cell.kernel), of_inputs)
    recalled = tf.matmul(state, cell.recurrent_kernel)
    recalled = tf.nn.bias_add(recalled, of_state)
    # Equal parts: LiteRT runs others outside of its delegate.
    update, reset, new = tf.split(seen, 3, axis=-1)
    old_update, old_reset, old_new = tf.split(recalled, 3, axis=-1)
    update = tf.sigmoid(update + old_update)
    reset = tf.sigmoid(reset + old_reset)
    new = tf.tanh(new + reset * old_new)
    return new + update * (state - new)
