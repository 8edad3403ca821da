"""The base class of gradient estimators."""

import abc
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from composer_tf.policy import POLICY, Policy
from composer_tf.preferences import PreferenceCollection


class Estimator(keras.layers.Layer, abc.ABC):
    """An estimator of the gradient of the objective (10).

    An estimator says how many paths each example takes in a training step and
    turns their losses into one surrogate loss per example. It is a Keras layer
    so that a baseline's state is saved and trained with the model. It computes
    in float32, under mixed precision too.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})

    @abc.abstractmethod
    def paths(self, num_modules: Sequence[int]) -> list[tuple[int, ...]]:
        """The K paths that every example takes, given m_1, ..., m_n.

        Returns:
            K tuples of n modules, -1 where the policy is to be sampled.
        """

    def path_weights(self, log_probs: tf.Tensor) -> tf.Tensor:
        """Weight of each path in the logs, float32 `[K, B]`."""
        return tf.ones_like(log_probs) / tf.cast(
            tf.shape(log_probs)[0], tf.float32
        )

    @abc.abstractmethod
    def call(
        self,
        losses: tf.Tensor,
        policy: Policy,
        preferences: PreferenceCollection,
        gamma: tf.Tensor,
        context: tf.Tensor,
        sample_weight: tf.Tensor | float = 1.0,
        rewards: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """The surrogate loss, whose gradient is minus that of (10).

        With several replicas the tensors hold the rows of all of them. The
        output of the estimator's own trainable weights passes through
        `replicas.count_once`.

        Args:
            losses: float32 `[K, B]`, -log p(y|x,c).
            policy: Policy of batch shape `[K, B]`.
            preferences: Preferences, which give the costs.
            gamma: float32 `[B, k]`.
            context: float32 `[B, d]`, what a baseline may depend on: a summary
                of the first metalayer's input and the scaled gamma.
            sample_weight: float32 `[B]`, weights of examples. Defaults to 1.
            rewards: float32 `[K, B]`, what the policy maximizes besides the
                costs. Defaults to minus the losses, as in (10).

        Returns:
            float32 `[B]`.
        """

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["dtype"]
        return config


def sampled_paths(
    num_paths: int, num_modules: Sequence[int]
) -> list[tuple[int, ...]]:
    """`num_paths` paths, sampled from the policy at every metalayer.

    Example:
        >>> sampled_paths(2, [4, 3, 4])
        [(-1, -1, -1), (-1, -1, -1)]
    """
    return [(POLICY,) * len(num_modules)] * num_paths


def example_rewards(
    losses: tf.Tensor,
    policy: Policy,
    preferences: PreferenceCollection,
    gamma: tf.Tensor,
    sample_weight: tf.Tensor | float,
    rewards: tf.Tensor | None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """The two parts of the factor of grad log p(c|x), without gradients.

    Returns:
        float32 `[K, B]`, rewards: the given ones or log p(y|x,c), plus all
        costs of the example alone; a baseline applies to them. And float32
        `[K, B]`, credits: the example's share of costs over the batch; no
        baseline applies. The credits include the sample weights, as weights of
        every example's gamma; the rewards do not.
    """
    rewards = -losses if rewards is None else rewards
    credits = tf.zeros_like(losses)
    for preference, value in preferences.split(gamma):
        credit = preference.credit(policy, value * sample_weight)
        if credit is None:
            rewards += preference.checked_cost(policy, value)
        else:
            credits += credit
    return tf.stop_gradient(rewards), tf.stop_gradient(credits)
