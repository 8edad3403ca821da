"""REINFORCE with a choice of baselines."""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import keras
import tensorflow as tf

from composer_tf import replicas, validation
from composer_tf.estimators import functional
from composer_tf.estimators.estimator import (
    Estimator,
    example_rewards,
    sampled_paths,
)
from composer_tf.policy import Policy
from composer_tf.preferences import PreferenceCollection

Baseline = Literal["none", "batch_mean", "moving_average", "learned"]


@keras.saving.register_keras_serializable(package="composer_tf")
class Reinforce(Estimator):
    """One sampled path per example, equation (11), with a baseline.

    Args:
        baseline: Baseline to subtract from the reward. None of them biases the
            gradient, as long as no module mixes the rows of a batch and no
            logit is at the controller's bound (`max_gap`).
            `"none"`: nothing, as in the paper.
            `"batch_mean"`: the mean reward of the batch's other examples.
            `"moving_average"`: an average over past batches.
            `"learned"`: a small network of the input's summary and gamma,
                trained on the squared error to the reward. It is the default,
                as it leaves the least variance
                (`benchmarks/estimator_variance.py`).
        decay: Decay of the moving average per batch, in [0, 1). Defaults to
            0.99.
        units: Hidden units of the learned baseline. Defaults to 32.

    Raises:
        ValueError: If the baseline is unknown or `decay` is out of range.

    Example:
        >>> Reinforce(baseline="batch_mean").paths([2, 3])
        [(-1, -1)]
    """

    def __init__(
        self,
        baseline: Baseline = "learned",
        decay: float = 0.99,
        units: int = 32,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        validation.check_choice("baseline", baseline, get_args(Baseline))
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"`decay` must be in [0, 1), got {decay}.")
        self.baseline = baseline
        self.decay = decay
        self.units = units

    def build(self, context_shape: tuple[int | None, ...]) -> None:
        self._context_shape = list(context_shape)
        if self.baseline == "moving_average":
            self.average = self.add_weight(
                name="average",
                shape=(),
                initializer="zeros",
                trainable=False,
                aggregation="only_first_replica",  # It is the same on all.
            )
        if self.baseline == "learned":
            self.value = keras.Sequential(
                [
                    keras.layers.Dense(
                        self.units, activation="relu", dtype="float32"
                    ),
                    keras.layers.Dense(1, dtype="float32"),
                ],
                name="value",
            )
            self.value.build(tuple(context_shape))
        self.built = True

    def paths(self, num_modules: Sequence[int]) -> list[tuple[int, ...]]:
        return sampled_paths(1, num_modules)

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
        baseline, baseline_loss = self._baseline(rewards, context)
        surrogate = functional.reinforce_loss(
            sample_weight * losses,
            sample_weight * preferences.cost(policy, gamma),
            sample_weight * (rewards - baseline) + credits,
            policy.log_prob,
        )  # [1, B]
        surrogate = tf.reduce_mean(surrogate, axis=0)  # [B]
        return surrogate + sample_weight * baseline_loss

    def _baseline(
        self, rewards: tf.Tensor, context: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor | float]:
        """The baseline, broadcast to `[1, B]`, and the loss that trains it."""
        if self.baseline == "batch_mean":
            return functional.mean_of_others(rewards, axis=-1), 0.0
        if self.baseline == "moving_average":
            average = tf.convert_to_tensor(self.average)  # Past batches only.
            change = (1.0 - self.decay) * (tf.reduce_mean(rewards) - average)
            self.average.assign(average + change)
            return average, 0.0
        if self.baseline == "learned":
            value = replicas.count_once(self.value(context)[:, 0])  # [B]
            return value, tf.reduce_mean((value - rewards) ** 2, axis=0)
        return tf.zeros([]), 0.0

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "baseline": self.baseline,
            "decay": self.decay,
            "units": self.units,
        }

    def get_build_config(self) -> dict[str, Any] | None:
        return {"input_shape": self._context_shape} if self.built else None
