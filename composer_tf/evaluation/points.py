"""Points of accuracy against cost, and measures of a line of points."""

import csv
import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Point(NamedTuple):
    """One row of a trade-off table.

    Attributes:
        method: Name such as `"composer"`, `"random_mixture"` or `"cascade"`.
        gamma: Setting that gave the point: the gamma of a Composer; for a
            random mixture, the probability of the dearest module; for a cascade
            or early exits, the threshold; otherwise the point's own cost.
        cost: Mean cost per example, as a fraction of full cost, of everything
            that the method has to run.
        accuracy: Share of examples whose likeliest class is the label.
    """

    method: str
    gamma: float
    cost: float
    accuracy: float


def accuracy_at_cost(points: Sequence[Point], cost: float) -> float | None:
    """Best accuracy of the points that cost at most `cost`, or `None`.

    Example:
        >>> points = [Point("composer", 6.0, 0.2, 0.5),
        ...           Point("composer", 0.0, 0.6, 0.9)]
        >>> accuracy_at_cost(points, 0.5)
        0.5
    """
    affordable = [p.accuracy for p in points if p.cost <= cost]
    return max(affordable, default=None)


def interpolated_accuracy(
    points: Sequence[Point], costs: Sequence[float] | np.ndarray
) -> np.ndarray:
    """Accuracy along the line through the points, at any cost.

    An accuracy between two points is reached by giving some examples one
    setting and the rest the other. A higher cost buys at least the accuracy
    that a lower one does.

    Args:
        points: Points of one method, in any order.
        costs: Costs at which to read the accuracy.

    Returns:
        float64, one per cost; NaN below the cheapest point.

    Example:
        >>> points = [Point("composer", 6.0, 0.2, 0.5),
        ...           Point("composer", 0.0, 0.6, 0.9)]
        >>> interpolated_accuracy(points, [0.1, 0.4, 0.8]).round(2).tolist()
        [nan, 0.7, 0.9]
    """
    line = sorted((p.cost, p.accuracy) for p in points)
    at, accuracies = np.array(line, np.float64).T
    best = np.maximum.accumulate(accuracies)
    return np.atleast_1d(np.interp(costs, at, best, left=np.nan))


def normalized_area(
    points: Sequence[Point], worst: Sequence[Point], best: Sequence[Point]
) -> float:
    """Area between a line and the worst, over the area of the best.

    0 means as good as `worst`, 1 as good as `best`. The area runs from the
    lowest cost at which all three lines exist to the highest cost of any; past
    its end, a line keeps its best accuracy. NaN if that of `best` is 0.

    Args:
        points: Points of the method.
        worst: Points of the random mixture.
        best: Points of the oracle.

    Example:
        >>> mixture = [Point("m", 0, 0.0, 0.0), Point("m", 1, 1.0, 1.0)]
        >>> oracle = [Point("o", 0, 0.0, 1.0)]
        >>> half = [Point("c", 0, 0.0, 0.5), Point("c", 1, 1.0, 1.0)]
        >>> round(normalized_area(half, mixture, oracle), 3)
        0.5
    """
    ends = [p.cost for line in (points, worst, best) for p in line]
    start = max(min(p.cost for p in line) for line in (points, worst, best))
    costs = np.linspace(start, max(ends), 2001)
    line, low, high = (
        interpolated_accuracy(p, costs) for p in (points, worst, best)
    )
    possible = np.sum(high - low)
    return float(np.sum(line - low) / possible) if possible else float("nan")


def write_csv(points: Sequence[Point], path: str | os.PathLike) -> None:
    """Writes points as CSV rows `method,gamma,cost,accuracy`."""
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(Point._fields)
        writer.writerows(points)
