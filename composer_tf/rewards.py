"""What the policy maximises beside the costs, if it is not minus the loss."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from composer_tf import losses

RewardFunction = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
Reward = str | RewardFunction | None


def probability(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """p(y | x, c): how often a sampled answer would be right.

    Log p rewards a path for being less wrong on an example that it gets wrong
    all the same; this one only for what may turn the answer. It suits a model
    that is judged by its accuracy.

    Args:
        labels: Integers `[B]` or `[B, 1]`.
        logits: `[B, classes]`.

    Returns:
        float32 `[B]`, in [0, 1].

    Example:
        >>> probability(tf.constant([1]), tf.math.log([[0.25, 0.75]])).numpy()
        array([0.75], dtype=float32)
    """
    probabilities = tf.nn.softmax(tf.cast(logits, tf.float32))
    labels = tf.cast(tf.reshape(labels, [-1]), tf.int32)
    return tf.gather(probabilities, labels, batch_dims=1)


def get(reward: Reward, loss: Any) -> RewardFunction | None:
    """The function of a reward, float32 `[B]`.

    Args:
        reward: As given to `compile`.
        loss: As given to `compile`.

    Raises:
        ValueError: If the name is unknown, or the loss is not that of a softmax
            classifier on logits, which `"probability"` needs.
        TypeError: If it is neither a name nor a function.
    """
    if reward is None:
        return None
    if isinstance(reward, str):
        if reward != "probability":
            raise ValueError(
                "`reward` must be 'probability', a function or None, got "
                f"{reward!r}."
            )
        losses.check_logits(loss, "`reward='probability'`")
        return probability
    if not callable(reward):
        raise TypeError(
            "`reward` must be 'probability', a function or None, got "
            f"{reward!r}."
        )
    return losses.per_example(reward)
