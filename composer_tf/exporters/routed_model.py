"""What an exporter needs to know of a model, and nothing of how it trains."""

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
        gamma: float32 `[1, k]` or `[B, k]`, as the user gave it; `None` if the
            model has none.
        choices: int32 `[B, n]` of modules to take, -1 to ask the controller;
            or `None`.
        routing: Name of a strategy of `composer_tf.layers.routing`.

    Returns:
        The outputs of the contract by name, each with `[B, ...]`.
    """

    def __call__(
        self,
        inputs: Mapping[str, tf.Tensor],
        gamma: tf.Tensor | None,
        choices: tf.Tensor | None,
        routing: str,
    ) -> dict[str, tf.Tensor]: ...


class GammaInput(NamedTuple):
    """A steerable preference, as a deployed model knows it.

    Attributes:
        name: Of the preference.
        low: Lower bound of the trained support.
        high: Upper bound.
        default: Taken where no gamma is given, or a bad one.
        sweep: Gammas from low to high in even steps of the controller's scale.
            Defaults to the two ends.
    """

    name: str
    low: float
    high: float
    default: float
    sweep: tuple[float, ...] = ()

    def at_share(self, share: float) -> float:
        """The gamma a share in [0, 1] of the way through the support.

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
        name: Of the model.
        forward: The function.
        along: Runs a given path c_1, ..., c_n without the controller: the least
            that its answer can cost. Returns outputs by name.
        inputs: Shape and type of each input, the batch axis `None`.
        gammas: The k steerable preferences.
        module_costs: beta: n tuples, a fraction of full cost for each module.
        overhead: What every path costs beside its modules, a fraction.
        variables: All that `forward` reads.
        tables: Lookup tables, of which `forward` may read some.
        calibration: What each gamma of one of them costs, or `None`.
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
        """How many choices a path has: n of the paper."""
        return len(self.module_costs)

    def alone(self, path: Sequence[int]) -> "RoutedModel":
        """The model that holds just the modules of one path, and no choice."""

        def forward(inputs, gamma, choices, routing):
            return self.along(inputs, path)

        return dataclasses.replace(
            self, forward=forward, gammas=(), module_costs=(), calibration=None
        )
