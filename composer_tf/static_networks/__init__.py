"""Alternatives to a Composer: a network of one path, or early exits."""

from composer_tf.static_networks.counterparts import (
    cost_of_path as cost_of_path,
)
from composer_tf.static_networks.counterparts import (
    costs_of_exits as costs_of_exits,
)
from composer_tf.static_networks.counterparts import (
    early_exit_network as early_exit_network,
)
from composer_tf.static_networks.counterparts import (
    path_network as path_network,
)
from composer_tf.static_networks.early_exit_network import (
    EarlyExitNetwork as EarlyExitNetwork,
)
from composer_tf.static_networks.exit_stage import ExitStage as ExitStage
from composer_tf.static_networks.path_network import PathNetwork as PathNetwork
