"""Measured cost of each gamma, and the gamma of a budget."""

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple, Self

import numpy as np
import tensorflow as tf

_COARSE = 9  # Gammas that are measured for any curve.
_FINEST = 2.0**-11  # Smallest distance of gammas on the scale [-1, 1].
_TOLERANCE = 0.04  # Largest excess over a budget, a fraction of full cost.
_MIN_WIDTH = 1e-6  # Of a ramp; float32 resolves budgets to a tenth of this.

Budget = float | Sequence[float] | np.ndarray | tf.Tensor


class Calibration(NamedTuple):
    """A measured curve of mean cost along the gamma of one preference.

    Attributes:
        preference: Name of the steerable preference.
        gammas: Gammas from the dearest to the cheapest.
        costs: Mean cost at each gamma, a fraction of full cost, made monotone:
            no less than that of any cheaper gamma.

    Example:
        >>> calibration = Calibration("glimpse", (0.0, 1.0), (0.52, 0.5))
        >>> calibration
        Calibration('glimpse', gamma 0 to 1, cost 0.52 to 0.5)
        >>> calibration.gamma([0.51, 0.52, 1.0]).numpy().tolist()
        [0.5, 0.0, 0.0]
    """

    preference: str
    gammas: tuple[float, ...]
    costs: tuple[float, ...]

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.preference!r}, "
            f"gamma {self.gammas[0]:.3g} to {self.gammas[-1]:.3g}, "
            f"cost {self.costs[0]:.3g} to {self.costs[-1]:.3g})"
        )

    @classmethod
    def of(
        cls, preference: str, gammas: Sequence[float], costs: Sequence[float]
    ) -> Self:
        """Makes one from a measured curve, which may fall or rise, with noise.

        Args:
            preference: Name of the preference.
            gammas: Two or more gammas in ascending order.
            costs: Mean cost at each gamma.
        """
        if costs[0] < costs[-1]:
            gammas, costs = gammas[::-1], costs[::-1]
        monotone = np.maximum.accumulate(costs[::-1])[::-1]
        return cls(
            preference, tuple(map(float, gammas)), tuple(map(float, monotone))
        )

    def gamma(self, budget: Budget) -> tf.Tensor:
        """The gamma at which the mean cost is equal to the budget, or less.

        At a measured cost it is the cheapest gamma of that cost; between two
        measured costs it goes from one gamma to the other in a straight line.
        The further apart they are, the less is known about costs in between,
        and the longer the cheaper gamma is kept. So where the curve jumps, a
        budget within the jump gets the gamma below it. For a budget of at least
        the cheapest cost, the mean cost exceeds the budget nowhere by more than
        0.04, on the data measured and if the cost is monotone between the
        gammas measured.

        Args:
            budget: Number or `[B]`, fractions of full cost in [0, 1]. Outside
                the measured costs it is clipped to them.

        Returns:
            float32 of the same shape. If the budget is not known yet, as in a
            traced function, no value is an error: NaN or infinity gives NaN,
            which a model replaces by the default gamma.

        Raises:
            ValueError: If the shape does not fit, or a value that is known now
                is not in [0, 1].
        """
        budget = self._checked(budget)
        start, end, slope = self._ramps()
        # Uses operators that every target has. The sum goes up from the
        # smaller end: down from 10.0, float32 would not reach 0.0001 exactly.
        column = tf.expand_dims(budget, -1)
        ramps = tf.minimum(tf.maximum(column, start), end)
        rises = self.gammas[0] > self.gammas[-1]
        parts = ramps - start if rises else end - ramps
        gamma = min(self.gammas) + tf.reduce_sum(parts * slope, -1)
        return tf.where(tf.abs(budget) < float("inf"), gamma, float("nan"))

    def mixture(self, budget: float, num_examples: int) -> np.ndarray:
        """Gammas of many examples that spend the budget in full.

        No single gamma has a cost within a jump of the curve. Here some
        examples get the gamma above it and the rest that below, in turn, so
        that the mean of any first examples is the budget or a little less, for
        data like those measured.

        Args:
            budget: Fraction of full cost in [0, 1]. Outside the measured costs
                it is clipped to them.
            num_examples: Number of examples N.

        Returns:
            float32 `[N]`.

        Raises:
            ValueError: If the budget is no number in [0, 1].

        Example:
            >>> calibration = Calibration("glimpse", (0.0, 1.0), (0.9, 0.1))
            >>> calibration.mixture(0.5, 5).tolist()
            [1.0, 0.0, 1.0, 0.0, 1.0]
        """
        wanted = float(self._checked(float(budget)))
        costs = np.array(self.costs)
        wanted = float(np.clip(wanted, costs[-1], costs[0]))
        # The first gamma that costs no more, and the one before.
        below = int(np.argmax(costs <= wanted))
        above = max(below - 1, 0)
        gap = costs[above] - costs[below]
        share = (wanted - costs[below]) / gap if gap else 0.0
        number = np.floor(share * np.arange(num_examples + 1))
        is_above = np.diff(number) > 0.0
        chosen = np.where(is_above, self.gammas[above], self.gammas[below])
        return chosen.astype(np.float32)

    def _checked(self, budget: Budget) -> tf.Tensor:
        """The budget as float32, `[]` or `[B]`."""
        try:
            tensor = tf.cast(budget, tf.float32)
        except (TypeError, ValueError, tf.errors.OpError) as error:
            raise ValueError(
                "`budget` must be a number or one value per example, got "
                f"{budget!r}."
            ) from error
        if tensor.shape.rank not in (0, 1):
            raise ValueError(
                "`budget` must be a number or one value per example, got shape "
                f"{tensor.shape}."
            )
        known = tf.get_static_value(tensor)
        if known is not None:
            # A measured cost is a valid budget, even if rounded to above 1.
            high = np.float32(max(1.0, self.costs[0]))
            values = np.ravel(known)
            bad = values[~((values >= 0.0) & (values <= high))]
            if bad.size:
                raise ValueError(
                    "`budget` must be a fraction of full cost, from 0 to 1, "
                    f"got {bad[0]:g}."
                )
        return tensor

    def _ramps(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Budgets where each step to a dearer gamma starts and ends, and slope.

        float32 `[gammas - 1]` each; the slope is positive.
        """
        gammas, costs = np.array(self.gammas), np.array(self.costs)
        gaps = costs[:-1] - costs[1:]
        known = gaps / np.maximum(gaps / _TOLERANCE, 1.0) ** 2
        start = (costs[:-1] - known).astype(np.float32)
        end = start + np.maximum(known, _MIN_WIDTH).astype(np.float32)
        slope = np.float32(np.abs(np.diff(gammas))) / (end - start)
        return start, end, slope


def measure(
    preference: str,
    cost_at: Callable[[float], float],
    unscale: Callable[[float], float],
    num_gammas: int,
) -> Calibration:
    """Measures a curve, most finely where it is steep.

    After a few gammas over the whole support, each new one is in the middle of
    the two neighbors whose costs differ most; where the curve jumps, down to a
    four-thousandth of the support. Distances are on the gamma's own scale.

    Args:
        preference: Name of the preference.
        cost_at: Function that returns the mean cost at a gamma.
        unscale: Increasing function from [-1, 1] to the gammas of the support.
        num_gammas: Most gammas to measure, 2 or more.

    Example:
        >>> log = lambda scaled: 10.0**scaled
        >>> measure("glimpse", lambda gamma: 1.0 - gamma / 10.0, log, 3)[1:]
        ((0.1, 1.0, 10.0), (0.99, 0.9, 0.0))
    """
    first = np.linspace(-1.0, 1.0, min(num_gammas, _COARSE))
    costs = {scaled: cost_at(unscale(scaled)) for scaled in first.tolist()}
    while len(costs) < num_gammas:
        gaps = [
            (abs(costs[left] - costs[right]), (left + right) / 2.0)
            for left, right in itertools.pairwise(sorted(costs))
            if right - left > _FINEST
        ]
        gap, middle = max(gaps, default=(0.0, 0.0))
        if gap == 0.0:
            break
        costs[middle] = cost_at(unscale(middle))
    places = sorted(costs)
    return Calibration.of(
        preference, [unscale(s) for s in places], [costs[s] for s in places]
    )
