"""Measurements and pictures of a trained Composer."""

from composer_tf.evaluation.plots import plot_routing as plot_routing
from composer_tf.evaluation.plots import plot_tradeoff as plot_tradeoff
from composer_tf.evaluation.routing import (
    module_probabilities as module_probabilities,
)
from composer_tf.evaluation.tradeoff import Point as Point
from composer_tf.evaluation.tradeoff import (
    accuracy_at_cost as accuracy_at_cost,
)
from composer_tf.evaluation.tradeoff import (
    evaluate_random_mixture as evaluate_random_mixture,
)
from composer_tf.evaluation.tradeoff import (
    evaluate_tradeoff as evaluate_tradeoff,
)
from composer_tf.evaluation.tradeoff import gamma_grid as gamma_grid
from composer_tf.evaluation.tradeoff import write_csv as write_csv
