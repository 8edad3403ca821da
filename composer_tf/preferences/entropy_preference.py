"""The ordinary, unbatched entropy preference."""

import keras
import tensorflow as tf

from composer_tf.policy import Policy
from composer_tf.preferences.preference import Preference


@keras.saving.register_keras_serializable(package="composer_tf")
class EntropyPreference(Preference):
    """C = -gamma * sum_i ||p_i||^2, per example (appendix B.2).

    Equation (7) with a batch of one: a larger gamma makes each example's own
    distribution over modules flatter. It is the standard entropy penalty that
    the batch preference is compared with.

    Args:
        gamma: Same as in `Preference`.
        per: Same as in `Preference`.
        default: Same as in `Preference`.
        name: Name of the preference. Defaults to `"entropy"`.

    Example:
        >>> EntropyPreference(0.1).steerable
        False
    """

    def cost(self, policy: Policy, gamma: tf.Tensor) -> tf.Tensor:
        norms = [
            tf.reduce_sum(probs**2, axis=-1) for probs in policy.probabilities
        ]
        return -gamma * tf.add_n(norms)  # [..., B]
