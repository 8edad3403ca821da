"""Numbers, table and pictures of a run's trained model."""

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from composer_tf import evaluation
from composer_tf.composer import Composer
from composer_tf.config import EvaluationConfig
from composer_tf.evaluation import Decisions, Point
from composer_tf.files import atomic_path
from composer_tf.training import pictures

TABLE_COSTS = (0.25, 0.3, 0.4, 0.5, 0.55, 0.6, 0.75, 1.0)
KNEE = 0.57
# Beyond this cost the last network, or exit, ran on almost every example.
_CASCADE_END = 0.95
_NUM_HEATMAPS = 5


class Alone(NamedTuple):
    """One path's network, trained without the Composer.

    Attributes:
        path: Modules c_1, ..., c_n.
        cost: Cost of stem, fixed steps and modules, a fraction of full cost.
        probabilities: float32 `[N, classes]` on the test split.
    """

    path: tuple[int, ...]
    cost: float
    probabilities: np.ndarray

    def accuracy(self, labels: np.ndarray) -> float:
        """Share of the test split that the network gets right."""
        return float(np.mean(self.probabilities.argmax(-1) == labels))


def path_name(path: Sequence[int]) -> str:
    """The name of a path, such as `0-2-1`."""
    return "-".join(map(str, path))


class Exits(NamedTuple):
    """The network with early exits.

    Attributes:
        costs: Cost of all that has run by each exit, fractions of full cost.
        probabilities: float32 `[N, exits, classes]` on the test split.
    """

    costs: Sequence[float]
    probabilities: np.ndarray


def measure(
    model: Composer,
    test: tf.data.Dataset,
    alone: Sequence[Alone],
    exits: Exits | None,
    settings: EvaluationConfig,
    label_names: Sequence[str],
    folder: pathlib.Path,
    seed: int,
) -> dict[str, Any]:
    """Measures a model on the test split and draws the pictures.

    Args:
        model: Trained Composer.
        test: Batches of (images, labels), in an order that does not change.
        alone: Single-path networks to compare it with, possibly none.
        exits: Network with early exits to compare it with, or `None`.
        settings: Settings that say what to measure.
        label_names: Names of the classes.
        folder: Folder that receives `tradeoff.csv`, `tradeoff.png`,
            `routing.png`, `entropy.png` and `examples.png`.
        seed: Seed of the random mixture and of the bootstrap.

    Returns:
        Content of `metrics.json`. All numbers that can be compared between
        runs are under `summary`.
    """
    name = settings.preference
    recorder = evaluation.Recorder(model, test)
    default = recorder.at()
    gammas, decided = [], []
    if name in model.preferences.names:
        gammas = evaluation.gamma_grid(model, name, settings.num_gammas)
        decided = [recorder.at({name: gamma}) for gamma in gammas]
    steered = list(zip(gammas, decided, strict=True))
    lines = {
        "composer": [
            evaluation.point("composer", gamma, decisions)
            for gamma, decisions in steered or [(0.0, default)]
        ],
        **_baselines(model, test, settings, seed),
        **_of_networks(alone, default.labels),
    }
    if exits is not None:
        lines["early_exit"] = evaluation.early_exit(
            exits.probabilities, default.labels, exits.costs
        )
    rows = np.linspace(0, len(steered) - 1, min(_NUM_HEATMAPS, len(steered)))
    shown = [steered[round(row)] for row in rows]
    specialisation = [
        _specialisation(gamma, decisions, settings.label_groups, seed)
        for gamma, decisions in [*steered, (None, default)]
    ]
    pictures.draw_lines(lines, steered, name, folder)
    pictures.draw_routing(
        model, shown or [(None, default)], label_names, folder
    )
    pictures.draw_examples(model, test, default, folder)
    with atomic_path(folder / "tradeoff.csv") as path:
        evaluation.write_csv([p for line in lines.values() for p in line], path)
    entropy = [float(np.mean(decisions.entropy)) for decisions in decided]
    return {
        "costs": model.cost_table._asdict(),
        "parameters": _in_parameters(model, decided),
        "lines": {
            method: [p._asdict() for p in line]
            for method, line in lines.items()
        },
        "entropy": entropy,
        "specialisation": specialisation,
        "summary": {
            **_summary(lines, entropy, default, specialisation),
            **_summary_of_networks(alone, default.labels),
        },
    }


def _in_parameters(
    model: Composer, decided: Sequence[Decisions]
) -> dict[str, Any]:
    """Parameters of all parts, and what the curve costs in that unit."""
    table = model.count_costs("parameters")
    costs = [table.of_paths(decisions.choices) for decisions in decided]
    curve = [float(np.mean(cost)) for cost in costs]
    return {**table._asdict(), "composer": curve}


def _baselines(
    model: Composer,
    test: tf.data.Dataset,
    settings: EvaluationConfig,
    seed: int,
) -> dict[str, list[Point]]:
    """Baselines of the same modules; two of them need every path to be run."""
    shares = np.linspace(0.0, 1.0, settings.num_mixtures).tolist()
    lines = {
        "random_mixture": evaluation.evaluate_random_mixture(
            model, test, shares, seed
        )
    }
    if math.prod(model.num_modules) <= settings.max_paths:
        outcomes = evaluation.evaluate_paths(model, test, settings.max_paths)
        lines["input_independent"] = evaluation.input_independent(outcomes)
        lines["oracle"] = evaluation.oracle(outcomes)
    return lines


def _of_networks(
    alone: Sequence[Alone], labels: np.ndarray
) -> dict[str, list[Point]]:
    """Points of the networks, and the cascade of the cheapest and dearest."""
    if not alone:
        return {}
    by_cost = sorted(alone, key=lambda network: network.cost)
    points = [
        Point(
            "alone",
            network.cost,
            network.cost,
            network.accuracy(labels),
        )
        for network in by_cost
    ]
    cheap, dear = by_cost[0], by_cost[-1]
    if cheap.cost == dear.cost:
        return {"alone": points}
    line = evaluation.cascade(
        cheap.probabilities, dear.probabilities, labels, cheap.cost, dear.cost
    )
    return {"alone": points, "cascade": line}


def _specialisation(
    gamma: float | None,
    decisions: Decisions,
    groups: Sequence[Sequence[int]],
    seed: int,
) -> dict[str, Any]:
    """Measures of every metalayer at one gamma (`None`: the default)."""
    labels = decisions.labels
    group_of = {label: i for i, group in enumerate(groups) for label in group}
    steps = []
    for choices, probs in zip(
        decisions.choices.T, decisions.probabilities, strict=True
    ):
        step: dict[str, Any] = {
            "mutual_information": evaluation.mutual_information(
                choices, labels, seed=seed
            )._asdict(),
            "usage": evaluation.usage(choices, probs.shape[-1]).tolist(),
            "main_module": {
                str(label): share
                for label, share in evaluation.main_module_shares(
                    choices, labels
                ).items()
            },
        }
        if groups:
            grouped = np.array([group_of.get(x, -1) for x in labels.tolist()])
            step["group_information"] = evaluation.mutual_information(
                choices, grouped, seed=seed
            )._asdict()
        steps.append(step)
    return {
        "gamma": gamma,
        "metalayers": steps,
        "paths": evaluation.path_table(decisions.choices)[:16],
    }


def _summary(
    lines: Mapping[str, Sequence[Point]],
    entropy: Sequence[float],
    default: Decisions,
    specialisation: Sequence[Mapping[str, Any]],
) -> dict[str, float | None]:
    """All numbers that can be compared between runs of different seeds."""
    composer = lines["composer"]
    first = specialisation[-1]["metalayers"][0]
    main_shares = [share for _, share in first["main_module"].values()]
    summary: dict[str, float | None] = {
        "default/accuracy": float(np.mean(default.correct)),
        "default/cost": float(np.mean(default.cost)),
        "default/entropy": float(np.mean(default.entropy)),
        "default/mutual_information": first["mutual_information"]["value"],
        "default/main_module_share": float(np.mean(main_shares)),
    }
    for kind in ("mutual_information", "group_information"):
        if kind in first:
            summary[f"highest/{kind}"] = max(
                at["metalayers"][0][kind]["value"] for at in specialisation
            )
    if len(composer) < 2:
        return summary
    for end, i in (("lowest_gamma", 0), ("highest_gamma", -1)):
        summary[f"{end}/cost"] = composer[i].cost
        summary[f"{end}/accuracy"] = composer[i].accuracy
        summary[f"{end}/entropy"] = entropy[i]
    summary[f"composer/best_accuracy_up_to@{KNEE:g}"] = (
        evaluation.accuracy_at_cost(composer, KNEE)
    )
    for method, line in lines.items():
        accuracies = evaluation.interpolated_accuracy(line, TABLE_COSTS)
        for cost, accuracy in zip(TABLE_COSTS, accuracies, strict=True):
            if method != "alone":
                summary[f"{method}/accuracy@{cost:g}"] = _or_none(accuracy)
    return summary | _margins(lines)


def _summary_of_networks(
    alone: Sequence[Alone], labels: np.ndarray
) -> dict[str, float | None]:
    """Numbers of each network, named by path, as costs may be equal."""
    numbers: dict[str, float | None] = {}
    for network in alone:
        name = f"alone/{path_name(network.path)}"
        numbers[f"{name}/cost"] = network.cost
        numbers[f"{name}/accuracy"] = network.accuracy(labels)
    return numbers


def _margins(
    lines: Mapping[str, Sequence[Point]],
) -> dict[str, float | None]:
    """Normalized areas, and how far the curve is above the others."""
    composer = lines["composer"]
    margins: dict[str, float | None] = {}
    grid = np.linspace(composer[-1].cost, composer[0].cost, 201)
    if "oracle" in lines and composer[0].cost > composer[-1].cost:
        for method, line in lines.items():
            if method not in ("random_mixture", "oracle", "alone"):
                area = evaluation.normalized_area(
                    line, lines["random_mixture"], lines["oracle"]
                )
                margins[f"{method}/normalized_area"] = _or_none(area)
    for method, end in (
        ("input_independent", 1.0),
        ("cascade", _CASCADE_END),
        ("early_exit", _CASCADE_END),
    ):
        if method in lines:
            at = grid[grid <= end]
            gaps = evaluation.interpolated_accuracy(
                composer, at
            ) - evaluation.interpolated_accuracy(lines[method], at)
            gaps = gaps[np.isfinite(gaps)]
            for kind, reduce in (("least", np.min), ("mean", np.mean)):
                margins[f"margin_over_{method}/{kind}"] = (
                    float(reduce(gaps)) if len(gaps) else None
                )
    return margins


def _or_none(value: float) -> float | None:
    """The value for JSON, which has no NaN."""
    return None if np.isnan(value) else float(value)
