"""The exact gradient, by running every path."""

from collections.abc import Sequence

import keras
import tensorflow as tf

from composer_tf.estimators import functional
from composer_tf.estimators.estimator import Estimator
from composer_tf.policy import Policy, all_paths
from composer_tf.preferences import PreferenceCollection


@keras.saving.register_keras_serializable(package="composer_tf")
class Exact(Estimator):
    """Enumerates all m_1 * ... * m_n paths of every example: no sampling noise.

    It is for small models, and the reference that the other estimators are
    tested against. A step costs as much as training every path on every
    example; with a single metalayer that is every module once, no more than XLA
    computes for one sample.

    Raises:
        ValueError: In training, if there are more than 256 paths.

    Example:
        >>> Exact().paths([1, 2])
        [(0, 0), (0, 1)]
    """

    def paths(self, num_modules: Sequence[int]) -> list[tuple[int, ...]]:
        try:
            return all_paths(num_modules)
        except ValueError as error:
            raise ValueError(
                f"estimator 'exact' runs every path. {error} Use 'reinforce' "
                "or 'leave_one_out'."
            ) from error

    def path_weights(self, log_probs: tf.Tensor) -> tf.Tensor:
        return tf.exp(log_probs)

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
        expected_costs = tf.zeros_like(losses[0])  # [B]
        for preference, value in preferences.split(gamma):
            expected_costs += preference.expected_cost(policy, value)
        return functional.exact_loss(
            sample_weight * losses,
            sample_weight * expected_costs,
            policy.log_prob,
            None if rewards is None else sample_weight * rewards,
        )
