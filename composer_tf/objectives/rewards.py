"""What the policy maximizes besides the costs, if not minus the loss."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from composer_tf import validation
from composer_tf.objectives import losses

RewardFunction = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
Reward = str | RewardFunction | None

_LOSS = "log_probability"  # Of the label, which is minus the loss.


def probability(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """p(y | x, c): how often a sampled answer would be right.

    Log p also rewards a path for being less wrong on an example that it still
    gets wrong; p rewards it only for what may change the answer. It suits a
    model that is judged by its accuracy.

    Args:
        labels: Integers `[B]` or `[B, 1]`.
        logits: `[B, classes]`.

    Returns:
        float32 `[B]`, in [0, 1].

    Example:
        >>> probability(tf.constant([1]), tf.math.log([[0.25, 0.75]])).numpy()
        array([0.75], dtype=float32)
    """
    logits = tf.cast(logits, tf.float32)
    _check_outputs(logits)
    probabilities = tf.nn.softmax(logits)
    labels = tf.cast(tf.reshape(labels, [-1]), tf.int32)
    # A label out of range is left to the loss, whose error is clearer.
    of_label = tf.one_hot(labels, probabilities.shape[-1])  # [B, classes]
    return tf.reduce_sum(of_label * probabilities, axis=-1)


def accuracy(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """1 where the likeliest class is the label, else 0, float32 `[B]`.

    This is what a classifier is judged by, though it has no gradient.

    Args:
        labels: Integers `[B]` or `[B, 1]`.
        logits: `[B, classes]`.

    Example:
        >>> accuracy(tf.constant([1, 1]), [[0.2, 0.9], [0.6, 0.1]]).numpy()
        array([1., 0.], dtype=float32)
    """
    logits = tf.convert_to_tensor(logits)
    _check_outputs(logits)
    labels = tf.cast(tf.reshape(labels, [-1]), tf.int32)
    likeliest = tf.argmax(logits, axis=-1, output_type=tf.int32)
    return tf.cast(likeliest == labels, tf.float32)


_BY_NAME = {"accuracy": accuracy, "probability": probability}


def get(reward: Reward, loss: Any) -> RewardFunction | None:
    """The function that computes a reward, float32 `[B]`.

    Args:
        reward: Reward in the form given to `compile`; `"log_probability"` is
            minus the loss.
        loss: Loss in the form given to `compile`.

    Returns:
        Function of targets and outputs, or `None` for minus the loss.

    Raises:
        ValueError: If the name is unknown, or needs a loss of integer labels
            on logits and the loss is another one.
        TypeError: If the reward is neither a name nor a function, or is a Keras
            loss, which is better the smaller it is.
    """
    names = (_LOSS, *_BY_NAME)
    if reward is None or reward == _LOSS:
        return None
    if isinstance(reward, str):
        validation.check_choice("reward", reward, names)
        _check_sparse(loss, reward)
        return _BY_NAME[reward]
    is_function = callable(reward) and not isinstance(reward, type)
    if not is_function or losses.is_keras_loss(reward):
        raise TypeError(
            f"`reward` must be one of {names}, None or a function that is the "
            f"larger the better, got {reward!r}."
        )
    return losses.of_each_example(reward, f"`reward` {reward!r}")


def _check_sparse(loss: Any, reward: str) -> None:
    """Raises `ValueError` unless labels are integers and none is ignored."""
    losses.check_logits(loss, f"`reward={reward!r}`")
    if (
        not isinstance(loss, keras.losses.SparseCategoricalCrossentropy)
        or loss.ignore_class is not None
    ):
        raise ValueError(
            f"`reward={reward!r}` needs integer labels that all count, as of "
            "SparseCategoricalCrossentropy(from_logits=True), got loss "
            f"{loss!r}: give a function of labels and logits instead."
        )


def _check_outputs(logits: tf.Tensor) -> None:
    if logits.shape.rank != 2:
        raise ValueError(
            "`reward` by name needs outputs [batch, classes], got shape "
            f"{logits.shape}: give a function of labels and logits instead."
        )
