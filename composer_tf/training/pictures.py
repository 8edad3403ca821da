"""The pictures of a run, each written atomically."""

import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from composer_tf import evaluation
from composer_tf.composer import Composer
from composer_tf.evaluation import Decisions, Point
from composer_tf.files import atomic_path

_NUM_EXAMPLES = 2000


def draw_lines(
    lines: Mapping[str, Sequence[Point]],
    steered: Sequence[tuple[float, Decisions]],
    preference: str,
    folder: pathlib.Path,
) -> None:
    """Draws accuracy against cost, and the policy's entropy against gamma."""
    with atomic_path(folder / "tradeoff.png") as path:
        evaluation.plot_tradeoff(
            [p for line in lines.values() for p in line], path
        )
    if steered:
        gammas, decided = zip(*steered, strict=True)
        entropies = [float(np.mean(d.entropy)) for d in decided]
        with atomic_path(folder / "entropy.png") as path:
            evaluation.plot_entropy(gammas, entropies, preference, path)


def draw_routing(
    model: Composer,
    shown: Sequence[tuple[float | None, Decisions]],
    label_names: Sequence[str],
    folder: pathlib.Path,
) -> None:
    """Draws heatmaps of the first metalayer: label by module, one per gamma.

    A gamma of `None` stands for a model that is not steered.
    """
    gammas, decided = zip(*shown, strict=True)
    heatmaps = np.stack(
        [
            evaluation.mean_by_label(
                d.probabilities[0], d.labels, len(label_names)
            )
            for d in decided
        ]
    )
    with atomic_path(folder / "routing.png") as path:
        evaluation.plot_routing(
            heatmaps, gammas, _module_names(model), label_names, path
        )


def draw_examples(
    model: Composer,
    test: tf.data.Dataset,
    decisions: Decisions,
    folder: pathlib.Path,
) -> None:
    """Draws test images, one row per module of the first metalayer."""
    images, _ = next(iter(test.unbatch().batch(_NUM_EXAMPLES)))
    images = images.numpy()
    chosen = decisions.choices[: len(images), 0]
    with atomic_path(folder / "examples.png") as path:
        evaluation.plot_examples(images, chosen, _module_names(model), path)


def _module_names(model: Composer) -> list[str]:
    return [module.name for module in model.routed_layers[0].modules]
