"""One Keras model, any compute budget, per input.

Composers (Odena, Lawson and Olah, 2017): models whose modules are chosen per
example by a controller, steered at test time by policy preferences.
"""

from composer_tf import datasets as datasets
from composer_tf.composer import Composer as Composer
from composer_tf.costs import CostTable as CostTable
from composer_tf.estimators import Estimator as Estimator
from composer_tf.estimators import Exact as Exact
from composer_tf.estimators import LeaveOneOut as LeaveOneOut
from composer_tf.estimators import Reinforce as Reinforce
from composer_tf.layers import Controller as Controller
from composer_tf.layers import FeedForwardController as FeedForwardController
from composer_tf.layers import Glimpse as Glimpse
from composer_tf.layers import Metalayer as Metalayer
from composer_tf.layers import RNNController as RNNController
from composer_tf.policy import Composition as Composition
from composer_tf.policy import Policy as Policy
from composer_tf.preferences import (
    BatchEntropyPreference as BatchEntropyPreference,
)
from composer_tf.preferences import Constant as Constant
from composer_tf.preferences import EntropyPreference as EntropyPreference
from composer_tf.preferences import GammaDistribution as GammaDistribution
from composer_tf.preferences import GlimpsePreference as GlimpsePreference
from composer_tf.preferences import LogUniform as LogUniform
from composer_tf.preferences import Preference as Preference
from composer_tf.preferences import Uniform as Uniform
from composer_tf.version import __version__ as __version__
