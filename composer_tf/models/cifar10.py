"""A convolutional Composer for CIFAR-10, as one would ship it."""

import dataclasses
from collections.abc import Sequence

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
    skip add what they compute to what they get, and begin as skip.

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
        layers = keras.layers
        if len(self.channels) != 3:
            raise ValueError(
                f"`channels` must be three numbers, got {self.channels}."
            )
        first, second, third = self.channels
        stem = [
            layers.Rescaling(1.0 / 127.5, offset=-1.0),
            *_normalized(first, strides=1),
            *_normalized(second, strides=2),
            *_normalized(second, strides=1),
            *_normalized(third, strides=2),
            *_normalized(third, strides=1),
        ]
        head = [layers.GlobalAveragePooling2D(), layers.Dense(NUM_CLASSES)]
        depthwise = [
            layers.DepthwiseConv2D(3, padding="same", use_bias=False),
            StandardizedConv2D(third, 1, gain=0.0),
        ]
        plain = [StandardizedConv2D(third, 3, gain=0.0)]
        return self.compose(
            stem=keras.Sequential(stem, name="stem"),
            metalayers=[
                self._metalayer(depthwise, "depthwise"),
                self._metalayer(plain, "plain"),
                keras.Sequential(head, name="head"),
            ],
            seed=seed,
            name="cifar10",
        )

    def _metalayer(
        self, cheap: Sequence[keras.layers.Layer], name: str
    ) -> Metalayer:
        channels = self.channels[-1]
        shape = (_IMAGE_SHAPE[0] // 4, _IMAGE_SHAPE[1] // 4, channels)
        residual = [
            StandardizedConv2D(self.wide_channels, 3),
            keras.layers.ReLU(),
            StandardizedConv2D(channels, 3, gain=0.0),
        ]
        return Metalayer(
            [
                keras.layers.Activation("linear", name="skip"),
                _added_to_its_input(cheap, shape, name),
                _added_to_its_input(residual, shape, "residual"),
            ],
            name=f"skip_{name}_residual",
        )


def _normalized(channels: int, strides: int) -> list[keras.layers.Layer]:
    return [
        keras.layers.Conv2D(
            channels, 3, strides, padding="same", use_bias=False
        ),
        keras.layers.BatchNormalization(momentum=0.9),
        keras.layers.ReLU(),
    ]


def _added_to_its_input(
    branch: Sequence[keras.layers.Layer], shape: tuple[int, ...], name: str
) -> keras.Model:
    inputs = keras.Input(shape)
    outputs = inputs
    for layer in branch:
        outputs = layer(outputs)
    outputs = keras.layers.ReLU()(keras.layers.Add()([inputs, outputs]))
    return keras.Model(inputs, outputs, name=name)
