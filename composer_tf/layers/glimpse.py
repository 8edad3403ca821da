"""A layer that shows a module a part of the image."""

from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="composer_tf")
class Glimpse(keras.layers.Layer):
    """Crops a fixed window out of an image (section 3.1).

    Put it first in a module that should see only a part of the input: the
    small module of Wide-MNIST sees the left half.

    Args:
        height: Rows of the window, int >= 1, or `None` for all below `top`.
        width: Columns of the window, int >= 1, or `None` for all right of
            `left`.
        top: First row of the window, int >= 0. Defaults to 0.
        left: First column of the window, int >= 0. Defaults to 0.

    Call arguments:
        inputs: `[B, H, W, C]`, any dtype.

    Returns:
        `[B, height, width, C]`, same dtype.

    Raises:
        ValueError: If the window is empty or does not fit in the image.

    Example:
        >>> import tensorflow as tf
        >>> Glimpse(width=28)(tf.zeros([2, 28, 56, 1])).shape
        TensorShape([2, 28, 28, 1])
    """

    def __init__(
        self,
        height: int | None = None,
        width: int | None = None,
        top: int = 0,
        left: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        for name, size in (("height", height), ("width", width)):
            if size is not None and size < 1:
                raise ValueError(f"`{name}` must be at least 1, got {size}.")
        for name, offset in (("top", top), ("left", left)):
            if offset < 0:
                raise ValueError(f"`{name}` must be at least 0, got {offset}.")
        self.height = height
        self.width = width
        self.top = top
        self.left = left

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        if len(input_shape) != 4:
            raise ValueError(
                "`Glimpse` expects images [batch, height, width, channels], "
                f"got shape {tuple(input_shape)}."
            )
        self._extent("height", self.top, self.height, input_shape[1])
        self._extent("width", self.left, self.width, input_shape[2])

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        bottom = None if self.height is None else self.top + self.height
        right = None if self.width is None else self.left + self.width
        window = inputs[:, self.top : bottom, self.left : right, :]
        if None not in inputs.shape[1:3]:
            return window
        return tf.ensure_shape(window, [None, self.height, self.width, None])

    def compute_output_shape(
        self, input_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        batch, height, width, channels = input_shape
        return (
            batch,
            self._extent("height", self.top, self.height, height),
            self._extent("width", self.left, self.width, width),
            channels,
        )

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "height": self.height,
            "width": self.width,
            "top": self.top,
            "left": self.left,
        }

    @staticmethod
    def _extent(
        name: str, offset: int, size: int | None, available: int | None
    ) -> int | None:
        """The window's size on one axis; raises if it does not fit."""
        if available is None:
            return size
        end = available if size is None else offset + size
        if end > available or offset >= available:
            raise ValueError(
                f"The glimpse [{offset}, {end}) does not fit in an image of "
                f"{name} {available}."
            )
        return end - offset
