"""Which module the controller gives to which class."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from composer_tf.composer import Composer
from composer_tf.evaluation.tradeoff import steerable_name


def module_probabilities(
    model: Composer,
    data: tf.data.Dataset,
    gammas: Sequence[float],
    num_classes: int,
    preference: str | None = None,
    metalayer: int = 0,
) -> np.ndarray:
    """The heatmaps of Figure 2: probability of each module per label.

    Args:
        model: A trained Composer.
        data: Batches of (inputs, integer labels in `[0, num_classes)`).
        gammas: G values, a heatmap each.
        num_classes: Rows of a heatmap.
        preference: Which preference the gammas are of. Defaults to the first
            steerable one. The others keep their defaults.
        metalayer: Which metalayer, 0 for the first.

    Returns:
        float64 `[G, num_classes, m]`, averaged over the examples of each
        label; NaN in the rows of labels that do not occur.

    Raises:
        ValueError: If a label is out of range.
    """
    name = steerable_name(model, preference)

    @tf.function(autograph=False, reduce_retracing=True)
    def probabilities(inputs, gamma):
        composition = model(
            inputs,
            gamma={name: gamma},
            training=False,
            decision="mode",
            return_composition=True,
        )
        return composition.policy.probabilities[metalayer]  # [B, m]

    num_modules = model.num_modules[metalayer]
    sums = np.zeros([len(gammas), num_classes, num_modules])
    counts = np.zeros([num_classes])
    for inputs, labels in data:
        labels = np.asarray(labels).reshape(-1)
        if labels.min() < 0 or labels.max() >= num_classes:
            raise ValueError(
                f"Labels must be in [0, {num_classes}), got {labels.min()} to "
                f"{labels.max()}."
            )
        np.add.at(counts, labels, 1)
        for i, gamma in enumerate(gammas):
            probs = probabilities(inputs, tf.constant(gamma, tf.float32))
            np.add.at(sums[i], labels, probs.numpy())
    with np.errstate(invalid="ignore"):
        return sums / counts[:, np.newaxis]
