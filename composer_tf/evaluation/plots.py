"""The pictures of the paper's Figure 2."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from composer_tf.evaluation.tradeoff import Point

_LABELS = {"composer": "Composer", "random_mixture": "Random mixture"}
_STYLES = {"composer": "o-", "random_mixture": "s--"}


def plot_tradeoff(points: Sequence[Point], path: str | os.PathLike) -> None:
    """Draws accuracy against cost, a line per method (Figure 2, left).

    Args:
        points: Of any number of methods.
        path: Of the PNG.
    """
    figure = _figure(5.5, 4.0)
    axes = figure.subplots()
    for method in dict.fromkeys(point.method for point in points):
        line = sorted(
            (point.cost, point.accuracy)
            for point in points
            if point.method == method
        )
        costs, accuracies = zip(*line, strict=True)
        axes.plot(
            costs,
            accuracies,
            _STYLES.get(method, ".-"),
            markersize=4,
            label=_LABELS.get(method, method),
        )
    axes.set_xlabel("Cost per example (fraction of the full model)")
    axes.set_ylabel("Accuracy")
    axes.set_title("One trained model, steered by gamma")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    _save(figure, path)


def plot_routing(
    probabilities: np.ndarray,
    gammas: Sequence[float],
    module_names: Sequence[str],
    label_names: Sequence[str],
    path: str | os.PathLike,
) -> None:
    """Draws the probability of each module per label (Figure 2, right).

    Args:
        probabilities: `[G, num_classes, m]`.
        gammas: G values, a heatmap each.
        module_names: m names, the columns.
        label_names: The rows; the first is drawn at the bottom, as the paper
            has left digits at the bottom.
        path: Of the PNG.
    """
    figure = _figure(1.6 * len(gammas) + 1.6, 0.22 * len(label_names) + 1.4)
    all_axes = figure.subplots(1, len(gammas), sharey=True, squeeze=False)[0]
    image: Any = None
    for axes, heatmap, gamma in zip(
        all_axes, probabilities, gammas, strict=True
    ):
        image = axes.imshow(
            heatmap, vmin=0, vmax=1, origin="lower", aspect="auto"
        )
        axes.set_title(f"gamma = {gamma:g}", fontsize=9)
        axes.set_xticks(range(len(module_names)), module_names, fontsize=8)
    all_axes[0].set_yticks(range(len(label_names)), label_names, fontsize=7)
    figure.colorbar(image, ax=all_axes.tolist(), label="probability")
    _save(figure, path)


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Figure, path: str | os.PathLike) -> None:
    # Without the version of the library in it the file is reproducible.
    figure.savefig(path, dpi=150, format="png", metadata={"Software": None})
