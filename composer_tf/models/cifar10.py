"""A convolutional Composer for CIFAR-10, as one would ship it."""

import dataclasses
import math
from typing import Any

import keras

from composer_tf.composer import Composer
from composer_tf.layers import Metalayer
from composer_tf.models.settings import ComposerSettings, Range

NUM_CLASSES = 10
_IMAGE_SHAPE = (32, 32, 3)
# 1 / the standard deviation of the ReLU of a standard normal variable.
_RELU_GAIN = (0.5 - 0.5 / math.pi) ** -0.5


@keras.saving.register_keras_serializable(package="composer_tf")
class StandardizedConv2D(keras.layers.Conv2D):
    """A convolution whose kernel has mean 0 and unit norm per output channel.

    After ReLU and with a gain of 1, outputs vary as much as inputs do, so that
    deep networks train without batch normalization. A deployed kernel is a
    constant: standardizing it costs nothing there.

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


@dataclasses.dataclass(kw_only=True)
class Cifar10(ComposerSettings):
    """Stages of one metalayer each; every stage halves the resolution.

    The modules of a metalayer, from cheap to dear: skip (nothing), depthwise
    (a separable convolution), plain (one convolution) and residual (two). All
    but skip add what they compute to what they get, and begin as skip.

    Kernels are standardized instead of activations: statistics of a batch would
    depend on gamma, and normalization of each example costs time on a device.

    Attributes:
        channels: Of each stage; the first works on 16x16 pixels.
    """

    channels: tuple[int, ...] = (16, 32, 64)
    glimpse: Range | None = (-3.0, 4.0)
    batch_entropy: Range | None = (0.2, 0.2)
    costs: str = "macs"
    teacher: str = "dearest"

    def build(self, seed: int | None = None) -> Composer:
        """Makes the Composer, not compiled.

        Args:
            seed: Of its sampling; `keras.utils.set_random_seed` governs the
                initial weights.
        """
        layers = keras.layers
        steps: list[keras.layers.Layer] = []
        size = _IMAGE_SHAPE[0] // 2
        for i, channels in enumerate(self.channels):
            if i:
                size //= 2
                steps.append(_convolution(channels, 2, f"reduce_{i}"))
            steps.append(_metalayer((size, size, channels), f"stage_{i}"))
        head = [
            layers.GlobalAveragePooling2D(),
            layers.Dense(NUM_CLASSES),
        ]
        stem = [
            layers.Rescaling(1.0 / 127.5, offset=-1.0),
            _convolution(self.channels[0], 2, "convolution"),
        ]
        return self.compose(
            stem=keras.Sequential(stem, name="stem"),
            metalayers=[*steps, keras.Sequential(head, name="head")],
            seed=seed,
            name="cifar10",
        )


def _metalayer(shape: tuple[int, ...], name: str) -> Metalayer:
    channels = shape[-1]
    depthwise = [
        keras.layers.DepthwiseConv2D(3, padding="same", use_bias=False),
        StandardizedConv2D(channels, 1, gain=0.0),
    ]
    plain = [_convolution_3x3(channels, gain=0.0)]
    residual = [
        _convolution_3x3(channels),
        keras.layers.ReLU(),
        _convolution_3x3(channels, gain=0.0),
    ]
    return Metalayer(
        [
            keras.layers.Activation("linear", name="skip"),
            _added_to_its_input(depthwise, shape, "depthwise"),
            _added_to_its_input(plain, shape, "plain"),
            _added_to_its_input(residual, shape, "residual"),
        ],
        name=name,
    )


def _added_to_its_input(
    branch: list[keras.layers.Layer], shape: tuple[int, ...], name: str
) -> keras.Model:
    inputs = keras.Input(shape)
    outputs = inputs
    for layer in branch:
        outputs = layer(outputs)
    outputs = keras.layers.ReLU()(keras.layers.Add()([inputs, outputs]))
    return keras.Model(inputs, outputs, name=name)


def _convolution(channels: int, strides: int, name: str) -> keras.Sequential:
    return keras.Sequential(
        [_convolution_3x3(channels, strides), keras.layers.ReLU()], name=name
    )


def _convolution_3x3(
    channels: int, strides: int = 1, gain: float = 1.0
) -> keras.layers.Layer:
    return StandardizedConv2D(
        channels, 3, strides=strides, padding="same", gain=gain
    )
