"""Times of functions that run in turns."""

import time
from collections.abc import Callable, Mapping

import numpy as np


def interleaved_rounds(
    callers: Mapping[str, Callable[[], object]],
    rounds: int = 30,
    round_seconds: float = 0.02,
) -> dict[str, np.ndarray]:
    """Time in seconds of one call of each, in every round of turns.

    What slows a round down slows all that is measured in it: ratios within a
    round say more than the ratio of two medians.

    Args:
        callers: Functions to time, by name.
        rounds: Number of turns of each function.
        round_seconds: Approximate duration of a turn.

    Returns:
        float64 `[rounds]` by name.
    """
    repeats = {}
    for name, call in callers.items():
        call()
        start = time.perf_counter()
        call()
        seconds = max(time.perf_counter() - start, 1e-6)
        repeats[name] = max(1, round(round_seconds / seconds))
    taken: dict[str, list[float]] = {name: [] for name in callers}
    for _ in range(rounds):
        for name, call in callers.items():
            start = time.perf_counter()
            for _ in range(repeats[name]):
                call()
            taken[name].append((time.perf_counter() - start) / repeats[name])
    return {name: np.array(seconds) for name, seconds in taken.items()}


def interleaved_seconds(
    callers: Mapping[str, Callable[[], object]],
    rounds: int = 30,
    round_seconds: float = 0.02,
) -> dict[str, float]:
    """Median time in seconds of one call of each, measured in turns.

    Args:
        callers: Same as in `interleaved_rounds`.
        rounds: Same as in `interleaved_rounds`.
        round_seconds: Same as in `interleaved_rounds`.
    """
    taken = interleaved_rounds(callers, rounds, round_seconds)
    return {name: float(np.median(seconds)) for name, seconds in taken.items()}
