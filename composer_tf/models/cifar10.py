"""A convolutional Composer for CIFAR-10, suited for production."""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras

from composer_tf.composer import Composer
from composer_tf.layers import (
    DepthToSpace,
    Metalayer,
    SpaceToDepth,
    StandardizedConv2D,
)
from composer_tf.models.settings import ComposerSettings, Range

NUM_CLASSES = 10
_IMAGE_SHAPE = (32, 32, 3)


@dataclasses.dataclass(kw_only=True)
class Cifar10(ComposerSettings):
    """A small network, and two metalayers that refine it where it pays off.

    The stem goes down to 8x8 pixels and could answer alone; the controller sees
    its probe's guess of that answer. The modules of a metalayer, from cheap to
    expensive, are skip (nothing); depthwise (a separable convolution) in the
    first and plain (one convolution) in the second; and residual (three
    convolutions in the first, two blocks of two in the second). All but skip
    add what they compute to the features that skip passes on, and are initially
    equal to skip. The dearest path takes five times the multiply-accumulates of
    the cheapest: the less all images cost, the more of them can take the
    dearest path within a budget.

    A larger network can learn from more than the features that suffice for a
    small one. So the stem also passes on its features at 16x16 pixels, and the
    first residual module computes features of its own from them: otherwise what
    the cheap path needs from the shared layers would cost the expensive path
    its accuracy. For the same reason each module of the last metalayer has a
    head of its own.

    The stem runs on every image, so it may normalize over the batch. In modules
    such statistics would depend on gamma; there, kernels of full convolutions
    are standardized instead.

    Attributes:
        channels: Numbers of channels of the stem at 32x32, 16x16 and 8x8
            pixels.
        residual_channels: Numbers of channels inside the residual modules, at
            16x16 pixels in the first and at 8x8 in the second.
        glimpse: Range of gamma, in accuracy per full cost: for
            `compile(reward="accuracy")`.
    """

    channels: tuple[int, int, int] = (16, 24, 48)
    residual_channels: tuple[int, int] = (64, 128)
    grid: int = 1
    probe: bool = True
    glimpse: Range | None = (-0.05, 0.4)
    costs: str = "macs"
    estimator: str = "exact"
    teacher: str = "dearest"

    def build(self, seed: int | None = None) -> Composer:
        """Makes the Composer, without compiling it.

        Args:
            seed: Seed of its sampling; `keras.utils.set_random_seed` governs
                the initial weights.

        Raises:
            ValueError: If `channels` are not three numbers, or
                `residual_channels` not two.
        """
        for name, wanted in (("channels", 3), ("residual_channels", 2)):
            numbers = getattr(self, name)
            if len(numbers) != wanted:
                raise ValueError(
                    f"`{name}` must be {wanted} numbers, got {numbers}."
                )
        first = [
            self._first("skip", lambda features, _: features),
            self._first("depthwise", lambda features, _: _depthwise(features)),
            self._first("residual", self._downsampled),
        ]
        second = [
            self._second("skip", lambda features: features),
            self._second("plain", _plain),
            self._second("residual", self._residual),
        ]
        return self.compose(
            stem=self._stem(),
            metalayers=[
                Metalayer(first, name="skip_depthwise_residual"),
                Metalayer(second, name="skip_plain_residual"),
            ],
            seed=seed,
            name="cifar10",
        )

    def _stem(self) -> keras.Model:
        """The stem: features to answer from, and those they were made of."""
        first, second, third = self.channels
        images = keras.Input(_IMAGE_SHAPE)
        x = keras.layers.Rescaling(1.0 / 127.5, offset=-1.0)(images)
        x = _normalized(x, first, strides=1)
        x = _normalized(x, second, strides=2)
        early = _normalized(x, second, strides=1)
        x = _normalized(early, third, strides=2)
        features = _normalized(x, third, strides=1)
        outputs = keras.layers.Concatenate()([features, SpaceToDepth()(early)])
        return keras.Model(images, outputs, name="stem")

    def _first(self, name: str, refined: Callable) -> keras.Model:
        """A module from the stem's outputs to features."""
        height, width, _ = _IMAGE_SHAPE
        _, second, third = self.channels
        inputs: Any = keras.Input((height // 4, width // 4, third + 4 * second))
        features, early = inputs[..., :third], inputs[..., third:]
        return keras.Model(inputs, refined(features, early), name=name)

    def _second(self, name: str, refined: Callable) -> keras.Model:
        """A module from features to logits."""
        height, width, _ = _IMAGE_SHAPE
        features = keras.Input((height // 4, width // 4, self.channels[2]))
        x = keras.layers.GlobalAveragePooling2D()(refined(features))
        logits = keras.layers.Dense(NUM_CLASSES)(x)
        return keras.Model(features, logits, name=name)

    def _downsampled(self, features: Any, early: Any) -> Any:
        x = DepthToSpace()(early)
        x = StandardizedConv2D(self.residual_channels[0], 3)(x)
        x = keras.layers.ReLU()(x)
        x = StandardizedConv2D(features.shape[-1], 3, strides=2)(x)
        x = keras.layers.ReLU()(x)
        return _added(features, 3, x)

    def _residual(self, features: Any) -> Any:
        for _ in range(2):
            x = StandardizedConv2D(self.residual_channels[1], 3)(features)
            features = _added(features, 3, keras.layers.ReLU()(x))
        return features


def _normalized(inputs: Any, channels: int, strides: int) -> Any:
    x = keras.layers.Conv2D(
        channels, 3, strides, padding="same", use_bias=False
    )(inputs)
    x = keras.layers.BatchNormalization(momentum=0.9)(x)
    return keras.layers.ReLU()(x)


def _depthwise(features: Any) -> Any:
    x = keras.layers.DepthwiseConv2D(3, padding="same", use_bias=False)(
        features
    )
    return _added(features, 1, x)


def _plain(features: Any) -> Any:
    return _added(features, 3, features)


def _added(features: Any, kernel_size: int, inputs: Any) -> Any:
    """The features plus a convolution of the inputs that starts at zero."""
    x = StandardizedConv2D(features.shape[-1], kernel_size, gain=0.0)(inputs)
    return keras.layers.ReLU()(keras.layers.Add()([features, x]))
