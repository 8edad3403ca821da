"""What an exporter needs to know about a model; nothing about training."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import tensorflow as tf

from composer_tf.calibration import Calibration

Table = tf.saved_model.experimental.TrackableResource


class Forward(Protocol):
    """Runs a routed model.

    Args:
        inputs: Tensors `[B, ...]` by name.
        gamma: float32 `[1, k]` or `[B, k]`, not clipped yet; `None` if the
            model has none.
        choices: int32 `[B, n]`, modules to take, -1 to ask the controller; or
            `None`.
        routing: Name of a strategy of `composer_tf.layers.routing`.

    Returns:
        Outputs of the contract by name, each `[B, ...]`.
    """

    def __call__(
        self,
        inputs: Mapping[str, tf.Tensor],
        gamma: tf.Tensor | None,
        choices: tf.Tensor | None,
        routing: str,
    ) -> dict[str, tf.Tensor]: ...


class GammaInput(NamedTuple):
    """A steerable preference of a deployed model.

    Attributes:
        name: Name of the preference.
        low: Lower bound of the trained support.
        high: Upper bound of the trained support.
        default: Gamma to use where none is given, or one that is not finite.
        sweep: Gammas from low to high in even steps on the controller's scale.
            Defaults to the two ends.
    """

    name: str
    low: float
    high: float
    default: float
    sweep: tuple[float, ...] = ()

    def at_share(self, share: float) -> float:
        """The gamma a share in [0, 1] of the way along the support.

        Example:
            >>> sweep = (0.01, 0.1, 1.0)
            >>> GammaInput("glimpse", 0.01, 1.0, 0.5, sweep).at_share(0.5)
            0.1
        """
        sweep = self.sweep or (self.low, self.high)
        return float(np.interp(share, np.linspace(0, 1, len(sweep)), sweep))


@dataclasses.dataclass(frozen=True)
class RoutedModel:
    """A forward function and its facts.

    Attributes:
        name: Name of the model.
        forward: Forward function.
        along: Function that runs a given path c_1, ..., c_n without the
            controller, at the lowest possible cost. Returns outputs by name.
        inputs: Shape and type of each input; the batch axis is `None`.
        gammas: The k steerable preferences.
        module_costs: beta, n tuples with a fraction of full cost per module.
        overhead: Cost of every path besides its modules, a fraction of full
            cost.
        variables: All variables of the model, some of which `forward` reads.
        tables: Lookup tables, some of which `forward` may read.
        calibration: Measured cost of each gamma of one preference, or `None`.
    """

    name: str
    forward: Forward
    along: Callable[
        [Mapping[str, tf.Tensor], Sequence[int]], dict[str, tf.Tensor]
    ]
    inputs: Mapping[str, tf.TensorSpec]
    gammas: Sequence[GammaInput]
    module_costs: Sequence[Sequence[float]]
    overhead: float
    variables: Sequence[tf.Variable]
    tables: Sequence[Table] = ()
    calibration: Calibration | None = None

    @property
    def num_metalayers(self) -> int:
        """Number of choices in a path, n in the paper."""
        return len(self.module_costs)

    def alone(self, path: Sequence[int]) -> "RoutedModel":
        """A model that holds only the modules of one path, and no choice."""

        def forward(inputs, gamma, choices, routing):
            return self.along(inputs, path)

        return dataclasses.replace(
            self, forward=forward, gammas=(), module_costs=(), calibration=None
        )
