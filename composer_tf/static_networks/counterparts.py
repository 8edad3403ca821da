"""Networks made of a Composer's layers, without a policy, for comparison.

They share the Composer's layers and thus its weights: to train one, make it
from a Composer of its own. Costs are fractions of that Composer's full cost.
"""

from collections.abc import Sequence

import numpy as np

from composer_tf import costs, validation
from composer_tf.composer import Composer
from composer_tf.composer.inputs import without_gamma
from composer_tf.static_networks.early_exit_network import EarlyExitNetwork
from composer_tf.static_networks.exit_stage import ExitStage
from composer_tf.static_networks.path_network import PathNetwork


def path_network(composer: Composer, path: Sequence[int]) -> PathNetwork:
    """The built network of one path c_1, ..., c_n."""
    network = PathNetwork(composer.layers_along(path))
    network.build(without_gamma(composer.build_shape))
    return network


def cost_of_path(composer: Composer, path: Sequence[int]) -> float:
    """Cost of the network of one path: everything but the controller."""
    validation.check_paths(
        np.array([path], np.int32), composer.num_modules, "path", least=0
    )
    table = composer.cost_table
    chosen = [row[c] for row, c in zip(table.modules, path, strict=True)]
    return (table.fixed + sum(chosen)) / table.full


def early_exit_network(composer: Composer) -> EarlyExitNetwork:
    """The built dearest path, with exits where the Composer decides.

    There is an exit before each metalayer, if any weights lie between it and
    the previous exit or the input.

    Args:
        composer: Built Composer.

    Raises:
        ValueError: If there is no such metalayer.
    """
    modules = {id(m) for layer in composer.routed_layers for m in layer.modules}
    num_classes = composer.output_row_shape[-1]
    stages, steps = [], []
    for step in composer.layers_along(composer.cost_table.dearest):
        if id(step) in modules and any(s.count_params() for s in steps):
            stages.append(ExitStage(steps, num_classes))
            steps = []
        steps.append(step)
    if not stages:
        raise ValueError(
            "Early exits need weights before a metalayer, but no layer before "
            "the last metalayer has any."
        )
    network = EarlyExitNetwork([*stages, ExitStage(steps)])
    network.build(without_gamma(composer.build_shape))
    return network


def costs_of_exits(
    composer: Composer, network: EarlyExitNetwork
) -> list[float]:
    """Cost of everything that has run by each exit.

    Args:
        composer: Composer whose full cost is the unit of all costs.
        network: Early-exit network made from `composer`.

    Raises:
        ValueError: If the costs of modules are the user's own numbers.
    """
    unit = composer.cost_table.unit
    if unit not in costs.COUNTERS:
        raise ValueError(
            "Early exits need costs that can be counted, "
            f"{sorted(costs.COUNTERS)}, got those of {unit!r}."
        )
    count = costs.COUNTERS[unit]
    shape, spent = without_gamma(composer.build_shape), []
    for stage in network.stages:
        spent.append(count(stage, shape) / composer.cost_table.full)
        shape = stage.compute_output_shape(shape)[0]
    return np.cumsum(spent).tolist()
