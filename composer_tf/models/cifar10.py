"""A convolutional Composer for CIFAR-10, as one would ship it."""

import dataclasses
from typing import Any

import keras

from composer_tf.composer import Composer
from composer_tf.layers import Metalayer, StandardizedConv2D
from composer_tf.models.settings import ComposerSettings, Range

NUM_CLASSES = 10
_IMAGE_SHAPE = (32, 32, 3)


@dataclasses.dataclass(kw_only=True)
class Cifar10(ComposerSettings):
    """A small network, and two metalayers that go on where it is worth it.

    The stem goes down to 8x8 pixels, and could answer alone; the controller
    sees what it would answer. The modules of a metalayer, from cheap to dear,
    are skip (nothing); depthwise (a separable convolution) in the first and
    plain (one convolution) in the second; and residual (two wide ones). All but
    skip add what they compute to the features that skip hands on, and begin as
    skip.

    Features that a small network can answer from are not all that a larger one
    can learn from. So the stem hands on what it saw at 16x16 pixels too, and
    the first residual module reads both: else what the cheap path wants of the
    layers that all paths share costs the dear one its accuracy.

    The stem runs on every image, so it may normalize over the batch. In modules
    such statistics would depend on gamma: there, kernels of full convolutions
    are standardized instead.

    Attributes:
        channels: Of the stem at 32x32, 16x16 and 8x8 pixels.
        wide_channels: Inside the residual modules.
        glimpse: In accuracy per full cost: for `compile(reward="accuracy")`.
    """

    channels: tuple[int, int, int] = (16, 24, 48)
    wide_channels: int = 96
    grid: int = 1
    probe: bool = True
    glimpse: Range | None = (-0.05, 0.4)
    costs: str = "macs"
    estimator: str = "exact"
    teacher: str = "dearest"

    def build(self, seed: int | None = None) -> Composer:
        """Makes the Composer, not compiled.

        Args:
            seed: Of its sampling; `keras.utils.set_random_seed` governs the
                initial weights.

        Raises:
            ValueError: If `channels` are not three.
        """
        if len(self.channels) != 3:
            raise ValueError(
                f"`channels` must be three numbers, got {self.channels}."
            )
        third = self.channels[2]
        both = third + 2 * self.channels[1]
        head = [
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(NUM_CLASSES),
        ]
        first = [self._skip(both), self._depthwise(both), self._residual(both)]
        second = [self._skip(third), self._plain(third), self._residual(third)]
        return self.compose(
            stem=self._stem(),
            metalayers=[
                Metalayer(first, name="skip_depthwise_residual"),
                Metalayer(second, name="skip_plain_residual"),
                keras.Sequential(head, name="head"),
            ],
            seed=seed,
            name="cifar10",
        )

    def _stem(self) -> keras.Model:
        """Features to answer from, and what they were made of."""
        first, second, third = self.channels
        images = keras.Input(_IMAGE_SHAPE)
        x = keras.layers.Rescaling(1.0 / 127.5, offset=-1.0)(images)
        x = _normalized(x, first, strides=1)
        x = _normalized(x, second, strides=2)
        early = _normalized(x, second, strides=1)
        x = _normalized(early, third, strides=2)
        features = _normalized(x, third, strides=1)
        early = keras.layers.DepthwiseConv2D(
            2, strides=2, depth_multiplier=2, use_bias=False
        )(early)
        outputs = keras.layers.Concatenate()([features, early])
        return keras.Model(images, outputs, name="stem")

    def _skip(self, channels: int) -> keras.Model:
        inputs, features = self._inputs(channels)
        return keras.Model(inputs, features, name="skip")

    def _depthwise(self, channels: int) -> keras.Model:
        inputs, features = self._inputs(channels)
        x = keras.layers.DepthwiseConv2D(3, padding="same", use_bias=False)(
            features
        )
        x = StandardizedConv2D(self.channels[2], 1, gain=0.0)(x)
        return keras.Model(inputs, _added(features, x), name="depthwise")

    def _plain(self, channels: int) -> keras.Model:
        inputs, features = self._inputs(channels)
        x = StandardizedConv2D(self.channels[2], 3, gain=0.0)(features)
        return keras.Model(inputs, _added(features, x), name="plain")

    def _residual(self, channels: int) -> keras.Model:
        inputs, features = self._inputs(channels)
        x = StandardizedConv2D(self.wide_channels, 3)(inputs)
        x = keras.layers.ReLU()(x)
        x = StandardizedConv2D(self.channels[2], 3, gain=0.0)(x)
        return keras.Model(inputs, _added(features, x), name="residual")

    def _inputs(self, channels: int) -> tuple[Any, Any]:
        """Of a module, and the features among them."""
        height, width, _ = _IMAGE_SHAPE
        inputs: Any = keras.Input((height // 4, width // 4, channels))
        if channels == self.channels[2]:  # A slice of all would be a copy.
            return inputs, inputs
        return inputs, inputs[..., : self.channels[2]]


def _normalized(inputs: Any, channels: int, strides: int) -> Any:
    x = keras.layers.Conv2D(
        channels, 3, strides, padding="same", use_bias=False
    )(inputs)
    x = keras.layers.BatchNormalization(momentum=0.9)(x)
    return keras.layers.ReLU()(x)


def _added(features: Any, computed: Any) -> Any:
    return keras.layers.ReLU()(keras.layers.Add()([features, computed]))
