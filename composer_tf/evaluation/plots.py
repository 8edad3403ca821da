"""The pictures of the paper's Figures 2, 3 and 6."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from composer_tf.evaluation.points import Point

_LABELS = {
    "composer": "Composer",
    "random_mixture": "Random mixture",
    "input_independent": "Best input-independent mixture",
    "alone": "Trained alone",
    "cascade": "Confidence cascade",
    "early_exit": "Early exits",
    "oracle": "Oracle",
}
_STYLES = {
    "composer": "o-",
    "random_mixture": "s--",
    "alone": "k*",
    "cascade": "-.",
    "early_exit": "^-",
    "oracle": ":",
}


def plot_tradeoff(points: Sequence[Point], path: str | os.PathLike) -> None:
    """Draws accuracy against cost, a line per method (Figure 2, left).

    Args:
        points: Points of any number of methods.
        path: PNG file to write.
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
    gammas: Sequence[float | None],
    module_names: Sequence[str],
    label_names: Sequence[str],
    path: str | os.PathLike,
) -> None:
    """Draws the probability of each module per label (Figure 2, right).

    Args:
        probabilities: `[G, num_classes, m]`, one heatmap per gamma.
        gammas: G values, one per heatmap; `None` leaves out the title.
        module_names: m names, one per column.
        label_names: Names of the rows. The first row is drawn at the bottom,
            where the paper has the left digits.
        path: PNG file to write.
    """
    width = max(1.6, 0.4 * len(module_names) + 0.4)
    figure = _figure(width * len(gammas) + 1.6, 0.22 * len(label_names) + 1.8)
    all_axes = figure.subplots(1, len(gammas), sharey=True, squeeze=False)[0]
    image: Any = None
    for axes, heatmap, gamma in zip(
        all_axes, probabilities, gammas, strict=True
    ):
        image = axes.imshow(
            heatmap, vmin=0, vmax=1, origin="lower", aspect="auto"
        )
        if gamma is not None:
            axes.set_title(f"gamma = {gamma:g}", fontsize=9)
        axes.set_xticks(
            range(len(module_names)), module_names, fontsize=8, rotation=45
        )
    all_axes[0].set_yticks(range(len(label_names)), label_names, fontsize=7)
    figure.colorbar(image, ax=all_axes.tolist(), label="probability")
    _save(figure, path)


def plot_entropy(
    gammas: Sequence[float],
    entropies: Sequence[float],
    name: str,
    path: str | os.PathLike,
) -> None:
    """Draws the policy's entropy against a preference (Figure 6).

    Args:
        gammas: Values of the preference.
        entropies: Mean entropy of the policy at each gamma, in nats.
        name: Name of the preference, for the axis label.
        path: PNG file to write.
    """
    figure = _figure(5.0, 3.2)
    axes = figure.subplots()
    axes.plot(gammas, entropies, "o-", markersize=4)
    axes.set_xlabel(f"{name} preference (gamma)")
    axes.set_ylabel("Entropy of the policy (nats)")
    axes.set_ylim(bottom=0.0)
    axes.grid(alpha=0.3)
    _save(figure, path)


def plot_examples(
    images: np.ndarray,
    choices: np.ndarray,
    module_names: Sequence[str],
    path: str | os.PathLike,
    width: int = 48,
) -> None:
    """Draws images, one row per module that they were sent to (Figure 3).

    Args:
        images: uint8 `[N, H, W, C]`.
        choices: int `[N]`, the module of each image.
        module_names: m names, one per row of images, the first at the top.
        path: PNG file to write.
        width: Most images in a row.
    """
    height, image_width, channels = images.shape[1:]
    rows = np.full(
        [len(module_names) * height, width * image_width, channels], 255
    )
    for module in range(len(module_names)):
        chosen = images[choices == module][:width]
        for i, image in enumerate(chosen):
            left = i * image_width
            top = module * height
            rows[top : top + height, left : left + image_width] = image
    figure = _figure(12.0, 12.0 * rows.shape[0] / rows.shape[1] + 0.4)
    axes = figure.subplots()
    axes.imshow(rows.squeeze(), cmap="gray", vmin=0, vmax=255)
    axes.set_yticks(
        [(i + 0.5) * height for i in range(len(module_names))], module_names
    )
    axes.set_xticks([])
    _save(figure, path)


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Figure, path: str | os.PathLike) -> None:
    # Without the library version in it, the file is reproducible.
    figure.savefig(path, dpi=150, format="png", metadata={"Software": None})
