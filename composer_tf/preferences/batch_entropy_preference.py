"""The preference for using all modules equally within a batch."""

import keras
import tensorflow as tf

from composer_tf.policy import Policy
from composer_tf.preferences.preference import Preference


@keras.saving.register_keras_serializable(package="composer_tf")
class BatchEntropyPreference(Preference):
    """C_2 = -gamma * sum_i || mean_j p_i^(j) ||^2, per batch (equation 7).

    It is highest if the batch as a whole uses all modules equally, however sure
    the controller is about each example.

    Args:
        gamma: Same as in `Preference`. With a gamma per example, each example
            multiplies the batch's norm by its own.
        per: Same as in `Preference`, but defaults to `"batch"`.
        default: Same as in `Preference`.
        name: Name of the preference. Defaults to `"batch_entropy"`.

    Example:
        >>> BatchEntropyPreference(0.1).name
        'batch_entropy'
    """

    def __init__(self, gamma, per="batch", default=None, name=None) -> None:
        super().__init__(gamma, per=per, default=default, name=name)

    def cost(self, policy: Policy, gamma: tf.Tensor) -> tf.Tensor:
        norms = []
        for probs in policy.probabilities:  # [..., B, m]
            mean = tf.reduce_mean(probs, axis=-2, keepdims=True)
            norms.append(tf.reduce_sum(mean**2, axis=-1))  # [..., 1]
        return -gamma * tf.add_n(norms)  # [..., B]

    def credit(self, policy: Policy, gamma: tf.Tensor) -> tf.Tensor:
        """-mean(gamma) * sum_i (2 p_bar . p_j - ||p_j||^2 / B).

        It is B ||p_bar||^2 minus B ||p_bar - p_j / B||^2 for each example j.
        """
        credits = []
        for probs in policy.probabilities:
            batch_size = tf.cast(tf.shape(probs)[-2], tf.float32)
            mean = tf.reduce_mean(probs, axis=-2, keepdims=True)
            credits.append(
                tf.reduce_sum(probs * (2.0 * mean - probs / batch_size), -1)
            )  # [..., B]
        return -tf.reduce_mean(gamma) * tf.add_n(credits)

    def expected_cost(self, policy: Policy, gamma: tf.Tensor) -> tf.Tensor:
        """E||p_bar||^2 = ||E p_bar||^2 + sum_j Var(p_j) / B^2.

        The examples of a batch draw their paths independently.
        """
        path_probs = tf.exp(policy.log_prob)[..., tf.newaxis]  # [P, B, 1]
        norms = []
        for probs in policy.probabilities:  # [P, B, m]
            batch_size = tf.cast(tf.shape(probs)[1], tf.float32)
            expected = tf.reduce_sum(path_probs * probs, axis=0)  # [B, m]
            second = tf.reduce_sum(path_probs * probs**2, axis=0)
            mean = tf.reduce_mean(expected, axis=0)  # [m]
            variance = tf.reduce_mean(second - expected**2, axis=0)  # [m]
            norms.append(tf.reduce_sum(mean**2 + variance / batch_size))
        return -gamma * tf.add_n(norms)  # [B]
