"""A convolutional Composer for CIFAR-10, as one would ship it."""

import dataclasses

import keras

from composer_tf.composer import Composer
from composer_tf.layers import Metalayer, StandardizedConv2D
from composer_tf.models.settings import ComposerSettings, Range

NUM_CLASSES = 10
_IMAGE_SHAPE = (32, 32, 3)


@dataclasses.dataclass(kw_only=True)
class Cifar10(ComposerSettings):
    """Stages of one metalayer each; every stage halves the resolution.

    The modules of a metalayer, from cheap to dear: skip (nothing), depthwise
    (a separable convolution), plain (one convolution) and residual (two). All
    but skip add what they compute to what they get, and begin as skip.

    Kernels of full convolutions are standardized instead of activations:
    statistics of a batch would depend on gamma, and normalization of each
    example costs time on a device.

    Attributes:
        channels: Of each stage; the first works on 16x16 pixels.
    """

    channels: tuple[int, ...] = (16, 32, 64)
    glimpse: Range | None = (-0.5, 3.0)
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
    return StandardizedConv2D(channels, 3, strides, gain=gain)
