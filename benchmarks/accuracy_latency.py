"""Accuracy against measured time: a Composer and its alternatives.

python benchmarks/accuracy_latency.py --run=DIR [--output=FOLDER]

DIR is a finished run of `python -m composer_tf` whose config trains the
cheapest and the dearest path alone. Real test images go through the Composer's
artifact, at gammas of roughly evenly spaced costs, and through the artifacts of
single paths' networks, all in turns. They are drawn so that the Composer spends
on them what it spends on the whole test split. Accuracies are the run's, over
its whole test split. The alternatives are static networks, one file each,
between which the application switches, and the cascade of the cheapest and the
dearest. If the run trained a network with early exits, each of its stages is a
file too, and each stage passes on the mean number of rows that are not sure
yet. Time is relative to the dearest network's of the same round: median and
quartiles, and the 95th percentile over single batches. Where a batch goes
through several files, that is of the 95th percentile of rows that reach a file,
as if rows were independent. Memory is the peak while files are loaded and run.

Tables give the time that each method takes for an accuracy, between its points
by the line through them.
"""

import pathlib
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import app, flags, logging
from chains import Point
from harness import FILES
from matplotlib.figure import Figure
from timed_methods import NUM_BATCHES, Measurement

from composer_tf.files import write_json

_RUN = flags.DEFINE_string("run", None, "Folder of a finished run.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder for JSON and picture.")
_ROUNDS = flags.DEFINE_integer("rounds", 15, "Turns of each artifact.")
_NUM_GAMMAS = flags.DEFINE_integer(
    "gammas", 9, "Points of the Composer, at most."
)

_STYLES = {"composer": "o-", "cascade": "--", "early_exit": "-.", "alone": "s"}


def least_times(
    points: Sequence[Point], accuracies: Sequence[float]
) -> list[float | None]:
    """Time at which a method reaches each accuracy; `None` if it does not.

    Between two points, some inputs get one setting and the rest the other.

    Args:
        points: Points of one method, in any order.
        accuracies: Accuracies to reach.
    """
    line = sorted((point["time"], point["accuracy"]) for point in points)
    if not line:
        return [None for _ in accuracies]
    times, reached = np.array(line).T
    best, first = np.unique(np.maximum.accumulate(reached), return_index=True)
    return [
        None
        if wanted > best[-1]
        else float(np.interp(wanted, best, times[first]))
        for wanted in accuracies
    ]


def by_accuracy(result: Mapping[str, Any]) -> list[dict[str, float | None]]:
    """Times of each method at the accuracies of the Composer's points."""
    wanted = sorted({point["accuracy"] for point in result["composer"]})
    columns = {
        method: least_times(result[method], wanted) for method in _STYLES
    }
    return [
        {"accuracy": accuracy, **{m: c[i] for m, c in columns.items()}}
        for i, accuracy in enumerate(wanted)
    ]


def plot(results: dict[str, Any], path: pathlib.Path) -> None:
    """Draws accuracy against time, a row of pictures for each format."""
    size = (4 * len(NUM_BATCHES), 3 * len(FILES) + 0.5)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(FILES), len(NUM_BATCHES), sharey=True)
    for axes, (title, result) in zip(grid.flat, results.items(), strict=True):
        for method, style in _STYLES.items():
            points = sorted(result[method], key=lambda point: point["time"])
            if not points:  # The run trained no such network.
                continue
            axes.plot(
                [point["time"] for point in points],
                [point["accuracy"] for point in points],
                style,
                label=method,
            )
        axes.set(title=title)
    for axes in grid[-1]:
        axes.set(xlabel="time over that of the dearest network")
    for axes in grid[:, 0]:
        axes.set(ylabel="accuracy")
    grid[0, 0].legend()
    figure.savefig(path, dpi=150)


def print_times(title: str, result: Mapping[str, Any]) -> None:
    """Prints a line for each accuracy, and what files and memory it takes."""
    print(f"\n{title}: time for an accuracy")
    print(f"{'accuracy':>10}", *(f"{method:>10}" for method in _STYLES))
    for row in result["time_at_accuracy"]:
        cells = (
            f"{row[m]:10.2f}" if row[m] is not None else f"{'':10}"
            for m in _STYLES
        )
        print(f"{row['accuracy']:10.4f}", *cells)
    for method, size in result["bytes"].items():
        memory = result["peak_bytes"][method]
        print(f"{method:<10} {size:>12} bytes, {memory:>12} at its peak")


def main(argv: list[str]) -> None:
    """Measures, prints and writes."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}.")
    logging.set_verbosity(logging.ERROR)
    run = pathlib.Path(_RUN.value or "")
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        for format in FILES:
            for rows in NUM_BATCHES:
                place = pathlib.Path(name) / format
                title = f"{format}, batch {rows}"
                result = Measurement(
                    run,
                    format,
                    rows,
                    place,
                    _ROUNDS.value,
                    _NUM_GAMMAS.value,
                ).measure()
                result["time_at_accuracy"] = by_accuracy(result)
                results[title] = result
                print_times(title, result)
    if _OUTPUT.value:
        output = pathlib.Path(_OUTPUT.value)
        output.mkdir(parents=True, exist_ok=True)
        write_json(results, output / "accuracy_latency.json")
        plot(results, output / "accuracy_latency.png")


if __name__ == "__main__":
    flags.mark_flag_as_required("run")
    app.run(main)
