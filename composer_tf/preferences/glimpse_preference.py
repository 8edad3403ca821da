"""The preference for cheap paths."""

from collections.abc import Sequence

import keras
import tensorflow as tf

from composer_tf.policy import Policy
from composer_tf.preferences.preference import Preference


@keras.saving.register_keras_serializable(package="composer_tf")
class GlimpsePreference(Preference):
    """C_1 = -gamma * sum_i beta_{i,c_i}, per example (equation 6).

    beta is normalized so that the most expensive path of the model costs 1:
    gamma is in units of the reward per full cost, nats by default. A larger
    gamma gives a cheaper model; a negative one rewards compute.

    Args:
        gamma: Same as in `Preference`. A support from below 0 to about twice
            the loss of the worst path, such as `Uniform(-4.0, 6.0)` for 20
            classes, covers everything from the dearest path to the cheapest; a
            smaller one does if the paths are nearly as good as each other.
        per: Same as in `Preference`.
        default: Same as in `Preference`.
        name: Name of the preference. Defaults to `"glimpse"`.

    Example:
        >>> from composer_tf.preferences import Uniform
        >>> GlimpsePreference(Uniform(-2.0, 6.0)).default
        0.0
    """

    def cost(self, policy: Policy, gamma: tf.Tensor) -> tf.Tensor:
        return -gamma * policy.path_cost

    def module_prices(
        self, module_costs: Sequence[Sequence[float]]
    ) -> Sequence[Sequence[float]]:
        return module_costs
