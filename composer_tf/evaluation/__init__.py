"""Measurements and plots of a trained Composer."""

from composer_tf.evaluation.baselines import PathOutcomes as PathOutcomes
from composer_tf.evaluation.baselines import cascade as cascade
from composer_tf.evaluation.baselines import early_exit as early_exit
from composer_tf.evaluation.baselines import evaluate_paths as evaluate_paths
from composer_tf.evaluation.baselines import (
    evaluate_random_mixture as evaluate_random_mixture,
)
from composer_tf.evaluation.baselines import exits_taken as exits_taken
from composer_tf.evaluation.baselines import (
    input_independent as input_independent,
)
from composer_tf.evaluation.baselines import oracle as oracle
from composer_tf.evaluation.decisions import Decisions as Decisions
from composer_tf.evaluation.decisions import Recorder as Recorder
from composer_tf.evaluation.plots import plot_entropy as plot_entropy
from composer_tf.evaluation.plots import plot_examples as plot_examples
from composer_tf.evaluation.plots import plot_routing as plot_routing
from composer_tf.evaluation.plots import plot_tradeoff as plot_tradeoff
from composer_tf.evaluation.points import Point as Point
from composer_tf.evaluation.points import (
    accuracy_at_cost as accuracy_at_cost,
)
from composer_tf.evaluation.points import (
    interpolated_accuracy as interpolated_accuracy,
)
from composer_tf.evaluation.points import normalized_area as normalized_area
from composer_tf.evaluation.points import write_csv as write_csv
from composer_tf.evaluation.specialisation import Estimate as Estimate
from composer_tf.evaluation.specialisation import contingency as contingency
from composer_tf.evaluation.specialisation import (
    main_module_shares as main_module_shares,
)
from composer_tf.evaluation.specialisation import (
    mean_by_label as mean_by_label,
)
from composer_tf.evaluation.specialisation import (
    module_probabilities as module_probabilities,
)
from composer_tf.evaluation.specialisation import (
    mutual_information as mutual_information,
)
from composer_tf.evaluation.specialisation import path_table as path_table
from composer_tf.evaluation.specialisation import usage as usage
from composer_tf.evaluation.tradeoff import (
    evaluate_tradeoff as evaluate_tradeoff,
)
from composer_tf.evaluation.tradeoff import gamma_grid as gamma_grid
from composer_tf.evaluation.tradeoff import point as point
