"""A bound on logits that lets go of what it holds."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf


def floor_gaps(logits: tf.Tensor, depth: float) -> tf.Tensor:
    """Logits below the greatest one, no deeper than `depth`.

    Shifting all logits alike changes no probability, so only these gaps matter,
    and the greatest stays the greatest. A gap at the floor passes the gradient
    that leads it up again, and drops the one that leads further down: an
    ordinary floor would hold it there for good.

    That gradient is exact above the floor. At the floor it is one-sided: of the
    noise of a sampled gradient it keeps what leads up, so a module there is
    tried a little more often than an unbiased estimate would have it.

    Args:
        logits: float32 `[..., m]`.
        depth: Above 0.

    Returns:
        Same shape, in [-depth, 0].
    """

    def with_gradient(gaps: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            downwards = tf.logical_and(gaps <= -depth, upstream > 0.0)
            return tf.where(downwards, tf.zeros_like(upstream), upstream)

        return tf.maximum(gaps, -depth), gradient

    floor: Any = tf.custom_gradient(with_gradient)
    return floor(logits - tf.reduce_max(logits, axis=-1, keepdims=True))
