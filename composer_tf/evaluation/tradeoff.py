"""Accuracy against cost of one model as gamma varies."""

from collections.abc import Sequence

import numpy as np

from composer_tf.composer import Composer
from composer_tf.evaluation.decisions import (
    Decisions,
    LabelledData,
    Recorder,
)
from composer_tf.evaluation.points import Point


def evaluate_tradeoff(
    model: Composer,
    data: LabelledData,
    gammas: Sequence[float] | None = None,
    preference: str | None = None,
) -> list[Point]:
    """The curve of Figure 2: one trained model at a range of gammas.

    Args:
        model: Trained classifier.
        data: Batches of (inputs, integer labels), or one such pair of arrays.
        gammas: Values to try. Defaults to 17 from `gamma_grid`.
        preference: Name of the preference that they set. Defaults to that of
            `calibrate`. The others keep their defaults.

    Returns:
        One point per gamma, in the given order.

    Raises:
        ValueError: If the model has no such steerable preference.

    Example:
        >>> import keras, tensorflow as tf, composer_tf as ct
        >>> model = ct.Composer(
        ...     [ct.Metalayer([keras.layers.Dense(3), keras.layers.Dense(3)])],
        ...     preferences=[ct.GlimpsePreference(ct.Uniform(-1.0, 1.0))])
        >>> data = tf.data.Dataset.from_tensors((tf.ones([4, 2]), [1] * 4))
        >>> points = evaluate_tradeoff(model, data, gammas=[0.0, 1.0])
        >>> [point.gamma for point in points]
        [0.0, 1.0]
    """
    name = model.preferences.swept(preference).name
    if gammas is None:
        gammas = gamma_grid(model, name, 17)
    recorder = Recorder(model, data)
    return [
        point("composer", gamma, recorder.at({name: gamma})) for gamma in gammas
    ]


def point(method: str, setting: float, decisions: Decisions) -> Point:
    """The mean cost and accuracy of decisions, as a point."""
    return Point(
        method,
        float(setting),
        float(np.mean(decisions.cost)),
        float(np.mean(decisions.correct)),
    )


def gamma_grid(model: Composer, preference: str, size: int) -> list[float]:
    """`size` gammas over the support of a preference, evenly spaced.

    Those of `Uniform` are evenly spaced themselves; those of `LogUniform`, in
    their logarithm.
    """
    return list(model.preferences.swept(preference).gamma.sweep(size))
