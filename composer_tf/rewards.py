"""What the policy maximises beside the costs, if it is not minus the loss."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from composer_tf import losses, validation

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


def accuracy(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """1 where the likeliest class is the label, else 0, float32 `[B]`.

    What a classifier is judged by, though it has no gradient.

    Args:
        labels: Integers `[B]` or `[B, 1]`.
        logits: `[B, classes]`.

    Example:
        >>> accuracy(tf.constant([1, 1]), [[0.2, 0.9], [0.6, 0.1]]).numpy()
        array([1., 0.], dtype=float32)
    """
    labels = tf.cast(tf.reshape(labels, [-1]), tf.int32)
    likeliest = tf.argmax(logits, axis=-1, output_type=tf.int32)
    return tf.cast(likeliest == labels, tf.float32)


_BY_NAME = {"accuracy": accuracy, "probability": probability}


def get(reward: Reward, loss: Any) -> RewardFunction | None:
    """The function of a reward, float32 `[B]`.

    Args:
        reward: As given to `compile`.
        loss: As given to `compile`.

    Raises:
        ValueError: If the name is unknown, or the loss is not that of a softmax
            classifier on logits, which the names need.
        TypeError: If it is neither a name nor a function.
    """
    if reward is None:
        return None
    if isinstance(reward, str):
        validation.check_choice("reward", reward, tuple(_BY_NAME))
        losses.check_logits(loss, f"`reward={reward!r}`")
        return _BY_NAME[reward]
    if not callable(reward):
        raise TypeError(
            f"`reward` must be one of {tuple(_BY_NAME)}, a function or None, "
            f"got {reward!r}."
        )
    return losses.per_example(reward)
