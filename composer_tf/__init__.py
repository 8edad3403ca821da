"""One Keras model, any compute budget, per input.

Composers (Odena, Lawson and Olah, 2017): models whose modules are chosen per
example by a controller, steered at test time by policy preferences.
"""

import importlib
from typing import TYPE_CHECKING, Any

from composer_tf import static_networks as static_networks
from composer_tf.budget_tracker import BudgetTracker as BudgetTracker
from composer_tf.calibration import Calibration as Calibration
from composer_tf.composer import Composer as Composer
from composer_tf.costs import CostTable as CostTable
from composer_tf.estimators import Estimator as Estimator
from composer_tf.estimators import Exact as Exact
from composer_tf.estimators import LeaveOneOut as LeaveOneOut
from composer_tf.estimators import Reinforce as Reinforce
from composer_tf.layers import Controller as Controller
from composer_tf.layers import DepthToSpace as DepthToSpace
from composer_tf.layers import FeedForwardController as FeedForwardController
from composer_tf.layers import Glimpse as Glimpse
from composer_tf.layers import Metalayer as Metalayer
from composer_tf.layers import RNNController as RNNController
from composer_tf.layers import SpaceToDepth as SpaceToDepth
from composer_tf.layers import StandardizedConv2D as StandardizedConv2D
from composer_tf.objectives.sandwich import Sandwich as Sandwich
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

if TYPE_CHECKING:
    from composer_tf import datasets as datasets
    from composer_tf import deployment as deployment
    from composer_tf import evaluation as evaluation
    from composer_tf import models as models
    from composer_tf.evaluation import (
        evaluate_random_mixture as evaluate_random_mixture,
    )
    from composer_tf.evaluation import evaluate_tradeoff as evaluate_tradeoff

_LAZY_MODULES = ("datasets", "deployment", "evaluation", "models")
_LAZY_FUNCTIONS = ("evaluate_random_mixture", "evaluate_tradeoff")


def __getattr__(name: str) -> Any:
    """Imports at first use what a deployed model does not need."""
    if name in _LAZY_MODULES:
        return importlib.import_module(f"composer_tf.{name}")
    if name in _LAZY_FUNCTIONS:
        evaluation = importlib.import_module("composer_tf.evaluation")
        return getattr(evaluation, name)
    raise AttributeError(f"module 'composer_tf' has no attribute {name!r}")


def __dir__() -> list[str]:
    """All public names, including those that are not imported yet."""
    return sorted([*globals(), *_LAZY_MODULES, *_LAZY_FUNCTIONS])
