"""Measures of how modules specialize in different kinds of examples.

Measures take choices, int `[N]` of one metalayer or `[N, n]` of all, and most
take labels, int `[N]`. A `Recorder` gives both for any Composer and labeled
data.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import sklearn.metrics

from composer_tf.composer import Composer
from composer_tf.evaluation.decisions import (
    LabelledData,
    Recorder,
)


class Estimate(NamedTuple):
    """A number and the bounds of its 95% bootstrap interval."""

    value: float
    low: float
    high: float


def mutual_information(
    choices: np.ndarray,
    labels: np.ndarray,
    num_resamples: int = 200,
    seed: int = 0,
) -> Estimate:
    """Mutual information of module and label, in nats (appendix B.2).

    It is 0 if the label says nothing about the module, and at most the entropy
    of either. This is the plug-in estimate, which is too high by about
    (m - 1)(classes - 1) / 2N.

    Args:
        choices: int `[N]`.
        labels: int `[N]`.
        num_resamples: Number of bootstrap samples; 0 for no interval (NaN).
        seed: Seed of the bootstrap.

    Raises:
        ValueError: If the shapes differ or there is no example.

    Example:
        >>> labels = np.array([0, 0, 1, 1])
        >>> round(mutual_information(labels, labels).value, 3)
        0.693
    """
    choices, labels = np.asarray(choices), np.asarray(labels)
    if choices.shape != labels.shape or choices.ndim != 1 or not len(choices):
        raise ValueError(
            "`choices` and `labels` must be [N] alike, got shapes "
            f"{choices.shape} and {labels.shape}."
        )
    table = contingency(choices, labels)
    value = _information(table)
    if not num_resamples:
        return Estimate(value, np.nan, np.nan)
    resamples = np.random.default_rng(seed).multinomial(
        len(choices), table.ravel() / len(choices), num_resamples
    )
    values = [_information(r.reshape(table.shape)) for r in resamples]
    low, high = np.percentile(values, [2.5, 97.5])
    return Estimate(value, float(low), float(high))


def contingency(choices: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How often each label went to each module, int `[labels, modules]`.

    Only labels and modules that occur have a row or column.

    Example:
        >>> contingency(np.array([0, 2, 2]), np.array([1, 1, 3])).tolist()
        [[1, 1], [0, 1]]
    """
    _, columns = np.unique(choices, return_inverse=True)
    _, rows = np.unique(labels, return_inverse=True)
    table = np.zeros([rows.max() + 1, columns.max() + 1], np.int64)
    np.add.at(table, (rows, columns), 1)
    return table


def usage(choices: np.ndarray, num_modules: int) -> np.ndarray:
    """Share of the examples sent to each module, float64 `[m]`.

    Example:
        >>> usage(np.array([0, 2, 2, 2]), 3).tolist()
        [0.25, 0.0, 0.75]
    """
    counts = np.bincount(choices, minlength=num_modules)
    return counts / counts.sum()


def main_module_shares(
    choices: np.ndarray, labels: np.ndarray
) -> dict[int, tuple[int, float]]:
    """The module that each label goes to most, and its share of the label.

    Returns:
        Mapping from label to (module, share of the label's examples).

    Example:
        >>> main_module_shares(np.array([0, 1, 1, 1]), np.array([7, 7, 7, 8]))
        {7: (1, 0.6666666666666666), 8: (1, 1.0)}
    """
    shares = {}
    for label in np.unique(labels):
        counts = np.bincount(choices[labels == label])
        module = int(np.argmax(counts))
        shares[int(label)] = (module, float(counts[module] / counts.sum()))
    return shares


def path_table(choices: np.ndarray) -> list[tuple[tuple[int, ...], float]]:
    """The paths that are taken, and their shares, most used first.

    Args:
        choices: int `[N, n]`.

    Example:
        >>> path_table(np.array([[0, 1], [1, 1], [0, 1], [0, 1]]))
        [((0, 1), 0.75), ((1, 1), 0.25)]
    """
    paths, counts = np.unique(choices, axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return [
        (tuple(int(c) for c in paths[i]), float(counts[i] / counts.sum()))
        for i in order
    ]


def mean_by_label(
    values: np.ndarray, labels: np.ndarray, num_classes: int
) -> np.ndarray:
    """Mean of `values` `[N, m]` over the examples of each label.

    Returns:
        float64 `[num_classes, m]`; NaN where a label does not occur.

    Raises:
        ValueError: If a label is not in `[0, num_classes)`.
    """
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(
            f"Labels must be in [0, {num_classes}), got {labels.min()} to "
            f"{labels.max()}."
        )
    sums = np.zeros([num_classes, values.shape[-1]])
    np.add.at(sums, labels, values)
    counts = np.bincount(labels, minlength=num_classes)
    with np.errstate(invalid="ignore"):
        return sums / counts[:, np.newaxis]


def module_probabilities(
    model: Composer,
    data: LabelledData,
    gammas: Sequence[float],
    num_classes: int,
    preference: str | None = None,
    metalayer: int = 0,
) -> np.ndarray:
    """The heatmaps of Figure 2: probability of each module by label.

    Args:
        model: Trained Composer.
        data: Batches of (inputs, integer labels in `[0, num_classes)`), or
            one such pair of arrays.
        gammas: G values, one per heatmap.
        num_classes: Number of labels, the rows of a heatmap.
        preference: Name of the preference that the gammas set. Defaults to
            that of `calibrate`. The others keep their defaults.
        metalayer: Index of the metalayer, 0 for the first.

    Returns:
        float64 `[G, num_classes, m]`, averaged over the examples of each
        label; NaN in the rows of labels that do not occur.

    Raises:
        ValueError: If a label is out of range.
    """
    name = model.preferences.swept(preference).name
    recorder = Recorder(model, data)
    heatmaps = []
    for gamma in gammas:
        decisions = recorder.at({name: gamma})
        heatmaps.append(
            mean_by_label(
                decisions.probabilities[metalayer],
                decisions.labels,
                num_classes,
            )
        )
    return np.stack(heatmaps)


def _information(table: np.ndarray) -> float:
    value = sklearn.metrics.mutual_info_score(None, None, contingency=table)
    return max(0.0, float(value))
