"""A convolution that needs no normalization of activations."""

import math
from typing import Any, Literal

import keras
import tensorflow as tf

from composer_tf import validation

# 1 / the standard deviation of the ReLU of a standard normal variable.
_RELU_GAIN = (0.5 - 0.5 / math.pi) ** -0.5
_EPSILON = 1e-6


@keras.saving.register_keras_serializable(package="composer_tf")
class StandardizedConv2D(keras.layers.Layer):
    """A convolution whose kernel has mean 0 and a learned norm per channel.

    At a gain of 1, activations vary as much after ReLU as before the
    convolution, so deep networks train without normalization. In an
    artifact the kernel is a constant, and standardizing it costs nothing; only
    a SavedModel with variables standardizes it at every call.

    Args:
        filters: Output channels, int >= 1.
        kernel_size: Height and width of the kernel, int >= 1.
        strides: Stride along both axes, int >= 1. Defaults to 1.
        padding: `"same"` (default) or `"valid"`.
        gain: Initial gain of each output channel, which is learned. Defaults
            to 1.

    Call arguments:
        inputs: `[B, height, width, channels]`.

    Returns:
        `[B, height', width', filters]`.

    Raises:
        ValueError: If an argument is out of range.

    References:
        Qiao et al. (2019), Micro-batch training with batch-channel
        normalization and weight standardization. Brock et al. (2021),
        Characterizing signal propagation to close the performance gap in
        unnormalized ResNets.

    Example:
        >>> StandardizedConv2D(4, 3)(tf.ones([1, 5, 5, 2])).shape
        TensorShape([1, 5, 5, 4])
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int,
        strides: int = 1,
        padding: Literal["same", "valid"] = "same",
        gain: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        for name, value in (
            ("filters", filters),
            ("kernel_size", kernel_size),
            ("strides", strides),
        ):
            if value < 1:
                raise ValueError(f"`{name}` must be at least 1, got {value}.")
        validation.check_choice("padding", padding, ("same", "valid"))
        self.filters = filters
        self.kernel_size = kernel_size
        self.strides = strides
        self.padding = padding
        self.gain = gain

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.kernel = self.add_weight(
            name="kernel",
            shape=(*[self.kernel_size] * 2, input_shape[-1], self.filters),
            autocast=False,  # It is standardized in float32.
        )
        self.gains = self.add_weight(
            name="gains",
            shape=(self.filters,),
            initializer=keras.initializers.Constant(self.gain),
            autocast=False,
        )
        self.bias = self.add_weight(
            name="bias", shape=(self.filters,), initializer="zeros"
        )

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        kernel = tf.convert_to_tensor(self.kernel)
        kernel -= tf.reduce_mean(kernel, axis=(0, 1, 2))
        squares = tf.reduce_sum(tf.square(kernel), axis=(0, 1, 2))
        kernel *= _RELU_GAIN * self.gains * tf.math.rsqrt(squares + _EPSILON)
        kernel = tf.cast(kernel, self.compute_dtype)
        outputs: Any = keras.ops.conv(
            inputs, kernel, self.strides, self.padding, "channels_last"
        )
        return outputs + self.bias

    def compute_output_shape(self, input_shape: Any) -> tuple[Any, ...]:
        batch, height, width, _ = input_shape
        lost = self.kernel_size - 1 if self.padding == "valid" else 0
        sizes = (
            size and (size - lost + self.strides - 1) // self.strides
            for size in (height, width)
        )
        return (batch, *sizes, self.filters)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "padding": self.padding,
            "gain": self.gain,
        }
