"""Time of a batch that goes through several files, from the time of each."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from composer_tf import evaluation

Point = dict[str, Any]


@dataclasses.dataclass
class FileTimes:
    """Measured times of files on numbers of rows, in any unit.

    Attributes:
        sizes: Numbers of rows that were measured, increasing; the last is that
            of a whole batch.
        medians: Median time by `"FILE ROWS"`.
        slow: 95th percentile, by the same names.
    """

    sizes: Sequence[int]
    medians: Mapping[str, float]
    slow: Mapping[str, float]

    def in_turn(self, shares: Mapping[str, float]) -> Point:
        """Time of a batch that goes through several files.

        The 95th percentile is an upper bound: the sum over files of that of the
        time, on the 95th percentile of the rows that reach the file.

        Args:
            shares: Share of a batch's rows that reaches each file, on average.
        """
        rows = self.sizes[-1]
        random = np.random.default_rng(0)
        time = slow = 0.0
        for name, share in shares.items():
            most = np.percentile(random.binomial(rows, share, 10_000), 95)
            time += self._at(name, share * rows, self.medians)
            slow += self._at(name, float(most), self.slow)
        return {"time": time, "95th percentile": slow}

    def _at(self, name: str, rows: float, times: Mapping[str, float]) -> float:
        """Time of a file on some rows of a batch; 0 on none."""
        measured = [0.0, *(times[f"{name} {size}"] for size in self.sizes)]
        return float(np.interp(rows, [0, *self.sizes], measured))


def cascade(
    line: Sequence[Point], cheap: str, dear: str, times: FileTimes
) -> list[Point]:
    """The cheap network on all rows, the dear one on those it is unsure of.

    A batch leaves the dear network the mean number of such rows.

    Args:
        line: Points of the cascade, from no rows for the dear one to all.
        cheap: Name of the cheap network's file.
        dear: Name of the dear one's.
        times: Times of both.
    """
    first, last = line[0]["cost"], line[-1]["cost"]
    points = []
    for point in line:
        unsure = (point["cost"] - first) / (last - first)
        shares = {cheap: 1.0, dear: float(np.clip(unsure, 0.0, 1.0))}
        points.append({**point, **times.in_turn(shares)})
    return points


def early_exit(
    line: Sequence[Point], confidence: np.ndarray, times: FileTimes
) -> list[Point]:
    """Each stage, in the file `exit_I`, on the rows not sure before it.

    Args:
        line: Points of the network with early exits; `gamma` is the threshold.
        confidence: float `[N, exits]`, of each exit on each example.
        times: Times of the stages.
    """
    points = []
    for point in line:
        taken = evaluation.exits_taken(confidence, point["gamma"])
        shares = {
            f"exit_{i}": float(np.mean(taken >= i))
            for i in range(confidence.shape[1])
        }
        points.append({**point, **times.in_turn(shares)})
    return points
