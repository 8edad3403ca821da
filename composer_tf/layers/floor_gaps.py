"""A bound on logits that still passes the gradient leading back."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf


def floor_gaps(logits: tf.Tensor, depth: float) -> tf.Tensor:
    """Gaps of logits below the greatest one, no deeper than `depth`.

    Shifting all logits alike changes no probability, so only these gaps matter,
    and the greatest stays the greatest. At the floor, a gap passes the gradient
    that leads up again and drops the one that leads further down; an ordinary
    floor would drop both, and the gap would stay there.

    The gradient is exact above the floor. At the floor it is one-sided: it
    keeps only the part of a sampled gradient's noise that leads up, so a module
    there is tried slightly more often than with an unbiased estimate.

    Args:
        logits: float32 `[..., m]`.
        depth: Largest gap, above 0.

    Returns:
        float32 `[..., m]`, in [-depth, 0].
    """

    def with_gradient(gaps: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            downwards = tf.logical_and(gaps <= -depth, upstream > 0.0)
            return tf.where(downwards, tf.zeros_like(upstream), upstream)

        return tf.maximum(gaps, -depth), gradient

    floor: Any = tf.custom_gradient(with_gradient)
    return floor(logits - tf.reduce_max(logits, axis=-1, keepdims=True))
