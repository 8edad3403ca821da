"""What each gamma costs, as measured, and the gamma of a budget."""

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple, Self

import numpy as np
import tensorflow as tf

_COARSE = 9  # Gammas that are measured wherever the curve turns.
_FINEST = 2.0**-12  # Of the support: gammas no nearer to each other.
_TOLERANCE = 0.04  # Largest excess over a budget, a fraction of full cost.
_MIN_WIDTH = 1e-6  # Of a ramp: float32 knows budgets to a tenth of this.

Budget = float | Sequence[float] | np.ndarray | tf.Tensor


class Calibration(NamedTuple):
    """A measured curve of mean cost along the gamma of one preference.

    Attributes:
        preference: Name of the steerable preference.
        gammas: From the dearest to the cheapest.
        costs: The mean cost at each gamma, a fraction of full cost, made
            monotone: no less than that of any cheaper gamma.

    Example:
        >>> calibration = Calibration("glimpse", (0.0, 1.0), (0.52, 0.5))
        >>> calibration.gamma([0.51, 0.52, 2.0]).numpy().tolist()
        [0.5, 0.0, 0.0]
    """

    preference: str
    gammas: tuple[float, ...]
    costs: tuple[float, ...]

    @classmethod
    def of(
        cls, preference: str, gammas: Sequence[float], costs: Sequence[float]
    ) -> Self:
        """Of a curve as measured, which may fall or rise, and waver.

        Args:
            preference: Name of the preference.
            gammas: At least two, in rising order.
            costs: The mean cost at each.
        """
        if costs[0] < costs[-1]:
            gammas, costs = gammas[::-1], costs[::-1]
        monotone = np.maximum.accumulate(costs[::-1])[::-1]
        return cls(
            preference, tuple(map(float, gammas)), tuple(map(float, monotone))
        )

    def gamma(self, budget: Budget) -> tf.Tensor:
        """The gamma at which the mean cost is as large as the budget, or less.

        At a measured cost it is the cheapest gamma of that cost, and between
        two of them it goes from one gamma to the other in a straight line. The
        further apart they are, the less is known of what lies between: there
        the cheaper gamma is kept for longer. So where the curve jumps a budget
        within the jump gets what comes below it, and nowhere does the mean
        cost exceed the budget by more than 0.04, on the data measured and if
        it is monotone between the gammas measured.

        Args:
            budget: A number or `[B]`, fractions of full cost. Outside of the
                measured costs it is clipped to them.

        Returns:
            float32 of the same shape; NaN, which a model takes for the
            default, where the budget is NaN or infinite.

        Raises:
            ValueError: If the shape does not fit.
        """
        budget = tf.cast(tf.convert_to_tensor(budget), tf.float32)
        if budget.shape.rank not in (0, 1):
            raise ValueError(
                "`budget` must be a number or one value per example, got shape "
                f"{budget.shape}."
            )
        start, end, slope = self._ramps()
        # Operators that every target has; exact at both ends of a ramp.
        column = tf.expand_dims(budget, -1)
        ramps = tf.minimum(tf.maximum(column, start), end)
        gamma = self.gammas[-1] + tf.reduce_sum((ramps - start) * slope, -1)
        return tf.where(tf.abs(budget) < float("inf"), gamma, float("nan"))

    def _ramps(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Budgets where each step to a dearer gamma starts and ends, and slope.

        float32 `[gammas - 1]` each.
        """
        gammas, costs = np.array(self.gammas), np.array(self.costs)
        gaps = costs[:-1] - costs[1:]
        known = gaps / np.maximum(gaps / _TOLERANCE, 1.0) ** 2
        start = (costs[:-1] - known).astype(np.float32)
        end = start + np.maximum(known, _MIN_WIDTH).astype(np.float32)
        slope = np.float32(gammas[:-1] - gammas[1:]) / (end - start)
        return start, end, slope


def measure(
    preference: str,
    cost_at: Callable[[float], float],
    support: tuple[float, float],
    num_gammas: int,
) -> Calibration:
    """Measures a curve, most closely where it is steep.

    After a few gammas over the whole support each is in the middle of the two
    neighbours whose costs differ most; where the curve jumps, until they are a
    four-thousandth of the support apart.

    Args:
        preference: Name of the preference.
        cost_at: The mean cost at a gamma.
        support: Lowest and highest gamma.
        num_gammas: How many to measure at most, 2 or more.

    Example:
        >>> measure("glimpse", lambda gamma: 1.0 - gamma, (0.0, 1.0), 3).costs
        (1.0, 0.5, 0.0)
    """
    low, high = support
    first = np.linspace(low, high, min(num_gammas, _COARSE))
    costs = {gamma: cost_at(gamma) for gamma in first.tolist()}
    while len(costs) < num_gammas:
        gammas = sorted(costs)
        gaps = [
            (abs(costs[left] - costs[right]), (left + right) / 2.0)
            for left, right in itertools.pairwise(gammas)
            if right - left > _FINEST * (high - low)
        ]
        gap, middle = max(gaps, default=(0.0, low))
        if gap == 0.0:
            break
        costs[middle] = cost_at(middle)
    gammas = sorted(costs)
    return Calibration.of(preference, gammas, [costs[g] for g in gammas])
