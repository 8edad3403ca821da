"""An experiment: the runs of a config, over seeds and variants, summed up."""

import contextlib
import math
import os
import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from composer_tf import evaluation, workers
from composer_tf.config import Config
from composer_tf.evaluation import Point
from composer_tf.files import atomic_path, write_json
from composer_tf.training import measurements, training
from composer_tf.workdir import WorkdirError, check_folder, claim, locked

_NUM_MEANS = 101
_PUBLISHED = (
    "summary.json",
    "summary.md",
    "summary.png",
    "metrics.json",
    "tradeoff.csv",
    "tradeoff.png",
    "routing.png",
    "entropy.png",
    "examples.png",
)


def run(
    config: Config,
    workdir: str | os.PathLike,
    strategy: tf.distribute.Strategy | None = None,
) -> dict[str, Any]:
    """Does every run of a config and summarizes them.

    A config of one seed and no variants is one run in the workdir itself.
    Otherwise each run has a folder there, `VARIANT/seed_N`, and the workdir
    receives `config.json`, `summary.json`, `summary.md` with a table of
    accuracies at equal costs, and `summary.png`. Finished runs are not done
    again.

    Args:
        config: Config of the runs.
        workdir: Folder to write to, created if it does not exist.
        strategy: Strategy that `training.run` takes.

    Returns:
        Content of `summary.json`, or of `metrics.json` if there is one run.

    Raises:
        ConfigError: If a value of the config cannot work.
        WorkdirError: If a folder belongs to another config, is in use by
            another process, or is damaged.
        WorkersError: If the workers do not share the folder.
        DataUnavailableError: If the data is neither here nor obtainable.
        NonFiniteLossError: If the loss stops being finite.
    """
    config.validate()
    runs = config.runs()
    strategy = tf.distribute.get_strategy() if strategy is None else strategy
    folder = pathlib.Path(workdir)
    if list(runs) == [""]:
        return training.run(config, folder, strategy)
    for single in runs.values():
        if single.seed == config.seed:
            training.check(single)
    check_folder(folder, config.to_json())
    workers.wait_for_all(strategy)  # Before any changes the folder.
    chief = workers.is_chief(strategy)
    with locked(folder) if chief else contextlib.nullcontext():
        if chief:
            claim(folder, config.to_json())
        variants: dict[str, dict[int, dict[str, Any]]] = {}
        for i, (name, single) in enumerate(runs.items(), start=1):
            print(f"\nRun {i} of {len(runs)}: {name}")
            variant = name.rpartition("/")[0]
            metrics = training.run(single, folder / name, strategy)
            variants.setdefault(variant, {})[single.seed] = metrics
        summary = {
            variant or "default": summarize(
                {seed: metrics["summary"] for seed, metrics in by_seed.items()}
            )
            for variant, by_seed in variants.items()
        }
        if chief:
            _write(summary, variants, folder)
    return summary


def _write(
    summary: Mapping[str, Any],
    variants: Mapping[str, Mapping[int, Mapping[str, Any]]],
    folder: pathlib.Path,
) -> None:
    write_json(summary, folder / "summary.json")
    with atomic_path(folder / "summary.png") as path:
        evaluation.plot_tradeoff(mean_lines(variants), path)
    text = "\n".join(
        f"## {variant}\n\n{table(numbers)}"
        for variant, numbers in summary.items()
    )
    with atomic_path(folder / "summary.md") as path:
        path.write_text(text)
    print(f"\n{text}")


def table(numbers: Mapping[str, Mapping[str, Any]]) -> str:
    """Markdown tables: accuracy by method and cost, then the other numbers.

    Args:
        numbers: Result of `summarize`.

    Example:
        >>> some = {0: {"composer/accuracy@0.5": 0.9, "default/cost": 0.4}}
        >>> print(table(summarize(some)))
        | accuracy at a cost of | 0.5 |
        | --- | --- |
        | composer | 0.9000 |
        <BLANKLINE>
        | number | mean and standard deviation |
        | --- | --- |
        | default/cost | 0.4000 |
        <BLANKLINE>
    """
    cells = {
        name: cell(number)
        for name, number in numbers.items()
        if number["mean"] is not None
    }
    known = {name.partition("/")[2] for name in cells}
    columns = [f"accuracy@{cost:g}" for cost in measurements.TABLE_COSTS]
    columns = [column for column in columns if column in known]
    methods = dict.fromkeys(
        name.partition("/")[0]
        for name in cells
        if name.partition("/")[2] in columns
    )
    rows = [
        ["accuracy at a cost of", *(c.partition("@")[2] for c in columns)],
        ["---"] * (1 + len(columns)),
    ]
    for method in methods:
        row = [cells.pop(f"{method}/{column}", "") for column in columns]
        rows.append([method, *row])
    rest = [
        ["number", "mean and standard deviation"],
        ["---", "---"],
        *cells.items(),
    ]
    return "\n".join([*map(_row, rows), "", *map(_row, rest), ""])


def cell(number: Mapping[str, Any]) -> str:
    """A mean of `summarize` and its standard deviation, if it has one."""
    mean, std = number["mean"], number["std"]
    return f"{mean:.4f}" if std is None else f"{mean:.4f} ± {std:.4f}"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def publish(
    config: Config,
    workdir: str | os.PathLike,
    destination: str | os.PathLike,
) -> None:
    """Copies the numbers and pictures of finished runs to a folder.

    Args:
        config: Config of the runs.
        workdir: Folder that they were written to.
        destination: Folder to publish to; earlier results there are replaced.
            It receives the summary, and the numbers and pictures of the first
            seed of each variant, or of the one run.

    Raises:
        WorkdirError: If the folder holds something else.
    """
    check_destination(destination)
    source, target = pathlib.Path(workdir), pathlib.Path(destination).absolute()
    firsts = {
        name.rpartition("/")[0]: source / name
        for name, run in config.runs().items()
        if run.seed == config.seed
    }
    with atomic_path(target) as folder:
        folder.mkdir(parents=True)
        for variant, run_folder in [("", source), *firsts.items()]:
            (folder / variant).mkdir(exist_ok=True)
            for name in _PUBLISHED:
                if (run_folder / name).exists():
                    shutil.copy(run_folder / name, folder / variant)


def check_destination(destination: str | os.PathLike) -> None:
    """Raises `WorkdirError` if publishing there would remove other files."""
    folder = pathlib.Path(destination)
    if folder.is_file() or folder.is_symlink():
        kind = "symbolic link" if folder.is_symlink() else "file"
        raise WorkdirError(
            f"{folder} is a {kind}, and no folder to publish to."
        )
    for path in folder.rglob("*"):
        if path.is_file() and path.name not in _PUBLISHED:
            raise WorkdirError(
                f"{folder} holds something else than published results, such "
                f"as {path.relative_to(folder)}, and would be replaced as a "
                "whole: name a new folder."
            )


def summarize(
    summaries: Mapping[int, Mapping[str, float | None]],
) -> dict[str, Any]:
    """Mean and standard deviation over seeds of each number.

    Args:
        summaries: Mapping from seed to the numbers of its run.

    Returns:
        Mapping from name to `mean`, `std` (of the sample; `None` for one seed)
        and `by_seed`. If a seed lacks the number (`None`), mean and std are
        `None`.

    Example:
        >>> summarize({0: {"cost": 0.5}, 1: {"cost": 0.5}})["cost"]
        {'mean': 0.5, 'std': 0.0, 'by_seed': {'0': 0.5, '1': 0.5}}
    """
    names = dict.fromkeys(name for s in summaries.values() for name in s)
    result: dict[str, Any] = {}
    for name in names:
        by_seed = {str(seed): s.get(name) for seed, s in summaries.items()}
        values = [value for value in by_seed.values() if value is not None]
        complete = len(values) == len(by_seed)
        spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
        result[name] = {
            "mean": math.fsum(values) / len(values) if complete else None,
            "std": spread if complete else None,
            "by_seed": by_seed,
        }
    return result


def mean_lines(
    variants: Mapping[str, Mapping[int, Mapping[str, Any]]],
) -> list[Point]:
    """The mean over seeds of each point of each line.

    Baselines come from the first variant only.
    """
    points = []
    for i, (variant, by_seed) in enumerate(variants.items()):
        runs = [metrics["lines"] for metrics in by_seed.values()]
        for method in runs[0] if i == 0 else ["composer"]:
            label = method
            if variant and method == "composer":
                label = f"composer, {variant}"
            points += _mean_line(label, [run[method] for run in runs])
    return points


def _mean_line(
    method: str, lines: Sequence[Sequence[Mapping[str, Any]]]
) -> list[Point]:
    """The mean point by point, or at equal costs if lengths differ."""
    if len({len(line) for line in lines}) > 1:
        return _mean_at_costs(method, lines)
    return [
        Point(
            method,
            *(
                float(np.mean([point[field] for point in points]))
                for field in ("gamma", "cost", "accuracy")
            ),
        )
        for points in zip(*lines, strict=True)
    ]


def _mean_at_costs(
    method: str, lines: Sequence[Sequence[Mapping[str, Any]]]
) -> list[Point]:
    """The mean from where all lines have begun to where the last one ends."""
    start = max(min(point["cost"] for point in line) for line in lines)
    end = max(point["cost"] for line in lines for point in line)
    costs = np.linspace(start, end, _NUM_MEANS)
    accuracies = np.mean(
        [
            evaluation.interpolated_accuracy(
                [Point(**point) for point in line], costs
            )
            for line in lines
        ],
        axis=0,
    )
    return [
        Point(method, cost, cost, accuracy)
        for cost, accuracy in zip(
            costs.tolist(), accuracies.tolist(), strict=True
        )
    ]
