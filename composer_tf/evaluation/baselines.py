"""Baselines that a Composer has to beat, and an oracle that it cannot.

=================== =====================================================
random mixture      chance picks the module (the paper's baseline)
input-independent   the best mixture of whole paths that ignores the input
cascade             a cheap network, then a costly one if it is unsure
early exit          a network that may answer before its last layer
oracle              picks the cheapest path that is right, if any is
=================== =====================================================
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from composer_tf import validation
from composer_tf.composer import Composer
from composer_tf.evaluation.decisions import LabelledData, Recorder
from composer_tf.evaluation.points import Point
from composer_tf.evaluation.tradeoff import point
from composer_tf.policy import all_paths

_NUM_POINTS = 101


class PathOutcomes(NamedTuple):
    """Results of each of P paths on each of N examples.

    Attributes:
        paths: int32 `[P, n]`.
        costs: float64 `[P]`, fractions of full cost, overhead included.
        correct: bool `[P, N]`, whether the likeliest class is the label.
    """

    paths: np.ndarray
    costs: np.ndarray
    correct: np.ndarray


def evaluate_random_mixture(
    model: Composer,
    data: LabelledData,
    shares: Sequence[float] | None = None,
    seed: int = 0,
) -> list[Point]:
    """The paper's baseline: choosing at random between the same modules.

    At every metalayer an example takes the dearest module with probability
    `share`, and the cheapest one otherwise.

    Args:
        model: Trained classifier.
        data: Batches of (inputs, integer labels), or one such pair of arrays.
        shares: Probabilities in [0, 1]. Defaults to 11, evenly spaced.
        seed: Seed of the random choices, the same for every share.

    Returns:
        One point per share, with the share as its gamma. Costs are those of
        the Composer that holds the modules, its controller included.

    Raises:
        ValueError: If a share is not in [0, 1].
    """
    grid = np.linspace(0.0, 1.0, 11).tolist() if shares is None else shares
    for share in grid:
        if not 0.0 <= share <= 1.0:
            raise ValueError(f"`shares` must be in [0, 1], got {share}.")
    recorder = Recorder(model, data)
    cheapest = np.array(model.cost_table.cheapest, np.int32)
    dearest = np.array(model.cost_table.dearest, np.int32)

    def measure(share: float) -> Point:
        generator = np.random.default_rng(seed)
        decisions = recorder.forced(
            lambda size: np.where(
                generator.random([size, len(dearest)]) < share,
                dearest,
                cheapest,
            )
        )
        return point("random_mixture", share, decisions)

    return [measure(share) for share in grid]


def evaluate_paths(
    model: Composer, data: LabelledData, max_paths: int = 256
) -> PathOutcomes:
    """Runs every path on every example.

    Args:
        model: Trained classifier.
        data: Batches of (inputs, integer labels), or one such pair of arrays.
        max_paths: Most paths that the model may have. Defaults to 256.

    Raises:
        ValueError: If the model has more paths.
    """
    recorder = Recorder(model, data)
    paths = np.array(all_paths(model.num_modules, max_paths), np.int32)
    outcomes = [
        recorder.forced(lambda size, path=path: np.tile(path, [size, 1]))
        for path in paths
    ]
    return PathOutcomes(
        paths,
        np.array([np.mean(o.cost, dtype=np.float64) for o in outcomes]),
        np.stack([o.correct for o in outcomes]),
    )


def input_independent(outcomes: PathOutcomes) -> list[Point]:
    """The best mixtures of whole paths that ignore the input.

    Args:
        outcomes: Result of `evaluate_paths`.

    Returns:
        Corners of the upper concave hull of the paths' points, from the
        cheapest path to the most accurate one.

    Example:
        >>> outcomes = PathOutcomes(
        ...     np.array([[0], [1], [2]]), np.array([0.2, 0.5, 1.0]),
        ...     np.array([[1, 0, 0, 0], [1, 0, 0, 0], [1, 1, 1, 0]], bool))
        >>> [(p.cost, p.accuracy) for p in input_independent(outcomes)]
        [(0.2, 0.25), (1.0, 0.75)]
    """
    accuracies = outcomes.correct.mean(axis=1)
    cheapest = np.lexsort([-accuracies, outcomes.costs])[0]
    best = np.lexsort([outcomes.costs, -accuracies])[0]
    corners = [cheapest]
    while corners[-1] != best:
        here = corners[-1]
        right = np.flatnonzero(outcomes.costs > outcomes.costs[here])
        slopes = (accuracies[right] - accuracies[here]) / (
            outcomes.costs[right] - outcomes.costs[here]
        )
        # Of equal slopes, the farthest point: the others are no corners.
        corners.append(right[np.lexsort([-outcomes.costs[right], -slopes])[0]])
    return [
        Point("input_independent", cost, cost, float(accuracies[i]))
        for i in corners
        for cost in [float(outcomes.costs[i])]
    ]


def oracle(outcomes: PathOutcomes) -> list[Point]:
    """The best per-example choice of paths, given the labels.

    Every example starts on the cheapest path. Where that path is wrong, the
    example can move to the cheapest path that is right, at extra cost; the
    moves with the least extra cost are made first.

    Args:
        outcomes: Result of `evaluate_paths`.

    Returns:
        At most 101 points, from the cheapest path for every example to a right
        path for every example that has one.

    Example:
        >>> outcomes = PathOutcomes(
        ...     np.array([[0], [1]]), np.array([0.2, 1.0]),
        ...     np.array([[True, False], [False, True]]))
        >>> [(round(p.cost, 2), p.accuracy) for p in oracle(outcomes)]
        [(0.2, 0.5), (0.6, 1.0)]
    """
    cheapest = np.argmin(outcomes.costs)
    price = np.where(outcomes.correct, outcomes.costs[:, np.newaxis], np.inf)
    extra = np.min(price, axis=0) - outcomes.costs[cheapest]  # [N]
    extra = np.where(outcomes.correct[cheapest], 0.0, extra)
    bought = np.sort(extra[(extra > 0) & np.isfinite(extra)])
    spent = np.concatenate([[0.0], np.cumsum(bought)]) / len(extra)
    right = np.mean(extra == 0) + np.arange(len(spent)) / len(extra)
    rows = np.unique(np.linspace(0, len(spent) - 1, _NUM_POINTS).astype(int))
    costs = outcomes.costs[cheapest] + spent
    return [
        Point("oracle", float(costs[i]), float(costs[i]), float(right[i]))
        for i in rows
    ]


def cascade(
    cheap_probabilities: np.ndarray,
    dear_probabilities: np.ndarray,
    labels: np.ndarray,
    cheap_cost: float,
    dear_cost: float,
) -> list[Point]:
    """A cheap network first, then a costly one where confidence is low.

    Args:
        cheap_probabilities: float `[N, classes]`, from the cheap network.
        dear_probabilities: float `[N, classes]`, from the costly one.
        labels: int `[N]`.
        cheap_cost: Cost of the cheap network, which every example pays.
        dear_cost: Cost of the costly network, paid on top where it runs.

    Returns:
        At most 101 points over the whole range of thresholds, from the cheap
        network alone to both networks for every example.

    Raises:
        ValueError: If the probabilities differ in shape, or the labels are not
            one integer for each example.

    Example:
        >>> cheap = np.array([[0.9, 0.1], [0.6, 0.4]])
        >>> dear = np.array([[1.0, 0.0], [0.0, 1.0]])
        >>> line = cascade(cheap, dear, np.array([0, 1]), 0.25, 1.0)
        >>> [(p.cost, p.accuracy) for p in line]
        [(0.25, 0.5), (0.75, 1.0), (1.25, 1.0)]
    """
    shapes = np.shape(cheap_probabilities), np.shape(dear_probabilities)
    if shapes[0] != shapes[1]:
        raise ValueError(
            "`cheap_probabilities` and `dear_probabilities` must be "
            f"[N, classes] alike, got shapes {shapes[0]} and {shapes[1]}."
        )
    confidence = np.max(cheap_probabilities, axis=-1)  # [N]
    order = np.argsort(confidence, kind="stable")  # Least sure first.
    labels = validation.label_vector(labels, len(order))[order]
    cheap = np.argmax(cheap_probabilities, axis=-1)[order] == labels
    dear = np.argmax(dear_probabilities, axis=-1)[order] == labels
    size = len(labels)
    gains = np.cumsum(np.concatenate([[0], dear.astype(int) - cheap]))
    confidence = np.append(confidence[order], 1.0)
    passed_on = np.unique(
        np.linspace(0, size, min(size + 1, _NUM_POINTS)).astype(int)
    )
    return [
        Point(
            "cascade",
            float(confidence[count]),
            cheap_cost + dear_cost * float(count) / size,
            float((cheap.sum() + gains[count]) / size),
        )
        for count in passed_on
    ]


def early_exit(
    probabilities: np.ndarray, labels: np.ndarray, costs: Sequence[float]
) -> list[Point]:
    """A network that each example leaves at the first confident exit.

    Args:
        probabilities: float `[N, exits, classes]`, from each exit.
        labels: int `[N]`.
        costs: Cost of all that has run by each exit, one number per exit.

    Returns:
        At most 101 points over the whole range of thresholds, from the first
        exit for every example to the last exit for every example.

    Raises:
        ValueError: If the labels are not one integer for each example.

    Example:
        >>> probabilities = np.array(
        ...     [[[0.9, 0.1], [1.0, 0.0]], [[0.6, 0.4], [0.0, 1.0]]])
        >>> line = early_exit(probabilities, np.array([0, 1]), [0.5, 1.0])
        >>> [(p.gamma, p.cost, p.accuracy) for p in line]
        [(0.0, 0.5, 0.5), (0.6, 0.75, 1.0), (0.9, 1.0, 1.0)]
    """
    confidence = np.max(probabilities, axis=-1)  # [N, exits]
    labels = validation.label_vector(labels, len(confidence))
    correct = np.argmax(probabilities, axis=-1) == labels[:, np.newaxis]
    thresholds = np.unique(np.append(0.0, confidence[:, :-1]))
    rows = np.unique(
        np.linspace(0, len(thresholds) - 1, _NUM_POINTS).astype(int)
    )
    points = []
    for threshold in thresholds[rows]:
        taken = exits_taken(confidence, threshold)
        cost = np.mean(np.asarray(costs)[taken])
        accuracy = np.mean(correct[np.arange(len(taken)), taken])
        points.append(
            Point("early_exit", float(threshold), float(cost), float(accuracy))
        )
    return points


def exits_taken(confidence: np.ndarray, threshold: float) -> np.ndarray:
    """The first exit `[N]` whose confidence `[N, exits]` exceeds a threshold.

    An example that is confident nowhere takes the last exit.

    Example:
        >>> exits_taken(np.array([[0.9, 0.9, 0.9], [0.5, 0.6, 0.7]]), 0.8)
        array([0, 2])
    """
    leaves = confidence > threshold
    leaves[:, -1] = True
    return np.argmax(leaves, axis=1)
