"""REINFORCE with K samples, whose baseline is the mean of the others."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from composer_tf.estimators import functional
from composer_tf.estimators.estimator import (
    Estimator,
    example_rewards,
    sampled_paths,
)
from composer_tf.policy import Policy
from composer_tf.preferences import PreferenceCollection


@keras.saving.register_keras_serializable(package="composer_tf")
class LeaveOneOut(Estimator):
    """K sampled paths per example; the baseline is the other paths' mean.

    The baseline depends on the input and gamma without being learned. A step
    costs about K times as much as with one sample.

    Args:
        num_samples: Number of paths K, int >= 2. Defaults to 4.

    Raises:
        ValueError: If `num_samples` is smaller than 2.

    References:
        Kool, van Hoof and Welling (2019), Buy 4 REINFORCE samples, get a
        baseline for free!

    Example:
        >>> len(LeaveOneOut(num_samples=4).paths([2, 3]))
        4
    """

    def __init__(self, num_samples: int = 4, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if num_samples < 2:
            raise ValueError(
                f"`num_samples` must be at least 2, got {num_samples}."
            )
        self.num_samples = num_samples

    def paths(self, num_modules: Sequence[int]) -> list[tuple[int, ...]]:
        return sampled_paths(self.num_samples, num_modules)

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
        rewards, credits = example_rewards(
            losses, policy, preferences, gamma, sample_weight, rewards
        )
        baseline = functional.mean_of_others(rewards, axis=0)
        surrogate = functional.reinforce_loss(
            sample_weight * losses,
            sample_weight * preferences.cost(policy, gamma),
            sample_weight * (rewards - baseline) + credits,
            policy.log_prob,
        )  # [K, B]
        return tf.reduce_mean(surrogate, axis=0)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_samples": self.num_samples}
