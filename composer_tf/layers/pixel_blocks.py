"""Two resolutions in one activation: pixels to channels, and back."""

from typing import Any

import keras
import tensorflow as tf


class _PixelBlocks(keras.layers.Layer):
    """The base of both directions: the size of a block of pixels."""

    def __init__(self, block_size: int = 2, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if block_size < 2:
            raise ValueError(
                f"`block_size` must be at least 2, got {block_size}."
            )
        self.block_size = block_size

    def build(self, input_shape: Any) -> None:
        self.compute_output_shape(input_shape)  # Raises for a wrong one.

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "block_size": self.block_size}


@keras.saving.register_keras_serializable(package="composer_tf")
class SpaceToDepth(_PixelBlocks):
    """Turns each block of pixels into one pixel with the channels of all.

    All modules of a metalayer read the same activation. With this layer it can
    hold features of two resolutions, side by side as channels.

    Args:
        block_size: Height and width of a block, int >= 2. Defaults to 2.

    Call arguments:
        inputs: `[B, height, width, channels]`, made of whole blocks.

    Returns:
        `[B, height / block_size, width / block_size,
        block_size ** 2 * channels]`.

    Raises:
        ValueError: If `block_size` is below 2, or the inputs are not made of
            whole blocks.

    Example:
        >>> SpaceToDepth()(tf.ones([1, 4, 6, 3])).shape
        TensorShape([1, 2, 3, 12])
    """

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return tf.nn.space_to_depth(inputs, self.block_size)

    def compute_output_shape(self, input_shape: Any) -> tuple[Any, ...]:
        batch, height, width, channels = input_shape
        block = self.block_size
        for size in (height, width):
            if size is not None and size % block:
                raise ValueError(
                    f"Inputs must be whole blocks of {block} x {block} pixels, "
                    f"got shape {tuple(input_shape)}."
                )
        return (
            batch,
            height and height // block,
            width and width // block,
            channels and channels * block**2,
        )


@keras.saving.register_keras_serializable(package="composer_tf")
class DepthToSpace(_PixelBlocks):
    """Undoes `SpaceToDepth`.

    Args:
        block_size: Height and width of a block, int >= 2. Defaults to 2.

    Call arguments:
        inputs: `[B, height, width, block_size ** 2 * channels]`.

    Returns:
        `[B, height * block_size, width * block_size, channels]`.

    Raises:
        ValueError: If `block_size` is below 2, or the number of channels is not
            a multiple of its square.

    Example:
        >>> pixels = tf.reshape(tf.range(16.0), [1, 4, 4, 1])
        >>> undone = DepthToSpace()(SpaceToDepth()(pixels))
        >>> bool(tf.reduce_all(undone == pixels))
        True
    """

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return tf.nn.depth_to_space(inputs, self.block_size)

    def compute_output_shape(self, input_shape: Any) -> tuple[Any, ...]:
        batch, height, width, channels = input_shape
        block = self.block_size
        if channels is not None and channels % block**2:
            raise ValueError(
                f"Inputs must have a multiple of {block**2} channels, got "
                f"shape {tuple(input_shape)}."
            )
        return (
            batch,
            height and height * block,
            width and width * block,
            channels and channels // block**2,
        )
