"""Policy preferences: costs that are added to the reward, and gammas."""

from composer_tf.preferences.batch_entropy_preference import (
    BatchEntropyPreference as BatchEntropyPreference,
)
from composer_tf.preferences.collection import Gamma as Gamma
from composer_tf.preferences.collection import (
    PreferenceCollection as PreferenceCollection,
)
from composer_tf.preferences.distributions import Constant as Constant
from composer_tf.preferences.distributions import (
    GammaDistribution as GammaDistribution,
)
from composer_tf.preferences.distributions import LogUniform as LogUniform
from composer_tf.preferences.distributions import Uniform as Uniform
from composer_tf.preferences.entropy_preference import (
    EntropyPreference as EntropyPreference,
)
from composer_tf.preferences.glimpse_preference import (
    GlimpsePreference as GlimpsePreference,
)
from composer_tf.preferences.preference import Preference as Preference
