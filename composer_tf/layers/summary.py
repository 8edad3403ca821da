"""Summaries of activations of any rank as one vector, for controllers."""

import math
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

Shape = Sequence[int | None]


def summarize(activations: tf.Tensor, shape: Shape, grid: int) -> tf.Tensor:
    """Averages spatial axes to at most `grid` cells each.

    Args:
        activations: `[B, ...]` of 2 to 5 axes.
        shape: Static shape of the activations, with the batch axis. If the size
            of a spatial axis is unknown, each is averaged as a whole.
        grid: Cells per spatial axis, at least 1.

    Returns:
        float32 `[B, summary_size(shape, grid)]`.
    """
    activations = tf.cast(activations, tf.float32)
    if len(shape) == 2:
        return activations
    windows = _windows(shape, grid)
    if windows is None:
        between = range(1, activations.shape.rank - 1)
        return tf.reduce_mean(activations, axis=between)  # [B, C]
    return _average(activations, shape, windows)


def summary_size(shape: Shape, grid: int) -> int:
    """Length of the summary of activations of a given shape.

    Raises:
        ValueError: If it does not have 2 to 5 axes, or the size of the last is
            unknown.
    """
    if not 2 <= len(shape) <= 5:
        raise ValueError(
            "A metalayer's input must have 2 to 5 axes, batch and "
            f"channels included, got shape {tuple(shape)}."
        )
    channels = shape[-1]
    if channels is None:
        raise ValueError(
            "A metalayer's input needs a known size of its last axis, got "
            f"shape {tuple(shape)}. Pad sequences to one length."
        )
    cells = 1
    for axis, window in enumerate(_windows(shape, grid) or [], start=1):
        cells *= math.ceil((shape[axis] or 0) / window)
    return cells * channels


def _windows(shape: Shape, grid: int) -> list[int] | None:
    """Pooling window per spatial axis; `None` if a size is unknown."""
    sizes = [size for size in shape[1:-1] if size is not None]
    if len(sizes) < len(shape) - 2:
        return None
    return [math.ceil(size / grid) for size in sizes]


def _average(
    activations: tf.Tensor, shape: Shape, windows: Sequence[int]
) -> tf.Tensor:
    """Means over windows of the spatial axes, float32 `[B, cells * C]`.

    Where windows do not fit an axis, those at both ends are smaller. Summing
    one axis at a time takes a tenth of the time of TensorFlow's average pooling
    when there are few channels.
    """
    rest = math.prod(shape[1:])  # type: ignore[arg-type]
    counts = np.ones([])
    for size, window in zip(shape[1:-1], windows, strict=True):
        assert size is not None
        rest //= size
        missing = -size % window
        padding = (missing // 2, missing - missing // 2)
        real = np.pad(np.ones(size), padding).reshape(-1, window)
        counts = np.multiply.outer(counts, real.sum(axis=1))
        if window > 1:
            rows = tf.reshape(activations, [-1, size, rest])
            if missing:
                rows = tf.pad(rows, [[0, 0], padding, [0, 0]])
            # With a last axis of size 1, LiteRT sums number by number.
            row = [window, rest] if rest > 1 else [window]
            rows = tf.reshape(rows, [-1, *row])
            activations = tf.reduce_sum(rows, axis=1)  # [B * cells, ...]
    counts = np.repeat(counts.ravel(), rest).astype(np.float32)
    return tf.reshape(activations, [-1, counts.size]) * (1.0 / counts)
