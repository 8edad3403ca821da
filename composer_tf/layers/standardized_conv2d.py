"""A convolution that needs no normalization of activations."""

import math
from typing import Any

import keras

# 1 / the standard deviation of the ReLU of a standard normal variable.
_RELU_GAIN = (0.5 - 0.5 / math.pi) ** -0.5


@keras.saving.register_keras_serializable(package="composer_tf")
class StandardizedConv2D(keras.layers.Conv2D):
    """A convolution whose kernel has mean 0 and a learned norm per channel.

    At a gain of 1 activations vary after ReLU as much as before the
    convolution, so that deep networks train without normalization. In LiteRT
    and ONNX the kernel is a constant, and standardizing it costs nothing; a
    SavedModel does it at every call.

    Args:
        filters: Output channels.
        kernel_size: As of `keras.layers.Conv2D`.
        gain: Initial value of the gain of each output channel, which is
            learned. Defaults to 1.
        **kwargs: The other arguments of `keras.layers.Conv2D`.

    References:
        Qiao et al. (2019), Micro-batch training with batch-channel
        normalization and weight standardization. Brock et al. (2021),
        Characterizing signal propagation to close the performance gap in
        unnormalized ResNets.

    Example:
        >>> StandardizedConv2D(4, 3)(keras.ops.ones([1, 5, 5, 2])).shape
        TensorShape([1, 3, 3, 4])
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int | tuple[int, int],
        gain: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(filters, kernel_size, **kwargs)
        self.initial_gain = gain

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        self.gain = self.add_weight(
            name="gain",
            shape=(self.filters,),
            initializer=keras.initializers.Constant(self.initial_gain),
        )

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        ops = keras.ops
        kernel -= ops.mean(kernel, axis=(0, 1, 2))
        squares = ops.sum(ops.square(kernel), axis=(0, 1, 2))
        kernel *= _RELU_GAIN * self.gain * ops.rsqrt(ops.maximum(squares, 1e-6))
        return super().convolution_op(inputs, kernel)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "gain": self.initial_gain}
