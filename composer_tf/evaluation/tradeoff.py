"""Accuracy against cost: of one model along gamma, and of random mixing."""

import csv
import os
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from composer_tf.composer import Composer


class Point(NamedTuple):
    """One row of a trade-off table.

    Attributes:
        method: `"composer"` or `"random_mixture"`.
        gamma: The preference, or for a mixture the share of examples that take
            the dearest module.
        cost: Mean cost per example, a fraction of the full path's, controller
            and stem included.
        accuracy: Share of examples whose likeliest class is right.
    """

    method: str
    gamma: float
    cost: float
    accuracy: float


def evaluate_tradeoff(
    model: Composer,
    data: tf.data.Dataset,
    gammas: Sequence[float] | None = None,
    preference: str | None = None,
) -> list[Point]:
    """The curve of Figure 2: one trained model at a range of gammas.

    Args:
        model: A trained classifier.
        data: Batches of (inputs, integer labels).
        gammas: Values to try. Defaults to 17, evenly over the support.
        preference: Which preference they are of. Defaults to the first
            steerable one. The others keep their defaults.

    Returns:
        One point per gamma, in the given order.

    Raises:
        ValueError: If the model has no such steerable preference.

    Example:
        >>> import keras, tensorflow as tf, composer_tf as ct
        >>> model = ct.Composer(
        ...     [ct.Metalayer([keras.layers.Dense(3), keras.layers.Dense(3)])],
        ...     preferences=[ct.GlimpsePreference(ct.Uniform(-1.0, 1.0))])
        >>> data = tf.data.Dataset.from_tensors((tf.ones([4, 2]), tf.ones([4])))
        >>> points = evaluate_tradeoff(model, data, gammas=[0.0, 1.0])
        >>> [point.gamma for point in points]
        [0.0, 1.0]
    """
    name = steerable_name(model, preference)
    if gammas is None:
        gammas = gamma_grid(model, name, 17)
    measure = _Measure(model, data)
    return [
        Point("composer", float(gamma), *measure.steered(name, gamma))
        for gamma in gammas
    ]


def evaluate_random_mixture(
    model: Composer,
    data: tf.data.Dataset,
    shares: Sequence[float] | None = None,
    seed: int = 0,
) -> list[Point]:
    """The paper's baseline: choosing at random between the same modules.

    At every metalayer an example takes the dearest module with probability
    `share`, and otherwise the cheapest.

    Args:
        model: A trained classifier.
        data: Batches of (inputs, integer labels).
        shares: Probabilities in [0, 1]. Defaults to 11, evenly from 0 to 1.
        seed: Of the choices.

    Returns:
        One point per share, with the share as its gamma.

    Raises:
        ValueError: If a share is not in [0, 1].
    """
    grid = np.linspace(0.0, 1.0, 11).tolist() if shares is None else shares
    for share in grid:
        if not 0.0 <= share <= 1.0:
            raise ValueError(f"`shares` must be in [0, 1], got {share}.")
    measure = _Measure(model, data)
    return [
        Point("random_mixture", share, *measure.mixture(share, seed))
        for share in grid
    ]


def accuracy_at_cost(points: Sequence[Point], cost: float) -> float | None:
    """Best accuracy of points that cost at most `cost`; `None` if none does.

    Example:
        >>> points = [Point("composer", 6.0, 0.2, 0.5),
        ...           Point("composer", 0.0, 0.6, 0.9)]
        >>> accuracy_at_cost(points, 0.5)
        0.5
    """
    affordable = [p.accuracy for p in points if p.cost <= cost]
    return max(affordable, default=None)


def gamma_grid(model: Composer, preference: str, size: int) -> list[float]:
    """`size` gammas, evenly over the support of a preference."""
    name = steerable_name(model, preference)
    index = model.preferences.names.index(name)
    low, high = model.preferences.steerable[index].gamma.support
    return np.linspace(low, high, size).tolist()


def steerable_name(model: Composer, preference: str | None) -> str:
    """The preference, or the model's first; `ValueError` if it has none."""
    name = preference or next(iter(model.preferences.names), None)
    if name not in model.preferences.names:
        raise ValueError(
            f"`preference` must be a steerable one of the model, "
            f"{model.preferences.names}, got {name!r}."
        )
    return name


def write_csv(points: Sequence[Point], path: str | os.PathLike) -> None:
    """Writes points as `method,gamma,cost,accuracy`."""
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(Point._fields)
        writer.writerows(points)


class _Measure:
    """Mean cost and accuracy of a model over a data set, compiled once."""

    def __init__(self, model: Composer, data: tf.data.Dataset) -> None:
        self._model = model
        self._data = data
        if not model.built:
            model(next(iter(data))[0])
        table = model.cost_table.modules
        self._cheapest = np.array([np.argmin(c) for c in table], np.int32)
        self._dearest = np.array([np.argmax(c) for c in table], np.int32)
        self._run = tf.function(
            self._batch, autograph=False, reduce_retracing=True
        )

    def steered(self, name: str, gamma: float) -> tuple[float, float]:
        """Cost and accuracy when one preference's gamma is set."""
        gammas = {name: tf.constant(gamma, tf.float32)}
        return self._mean(
            self._run(inputs, labels, gammas, None)
            for inputs, labels in self._data
        )

    def mixture(self, share: float, seed: int) -> tuple[float, float]:
        """Cost and accuracy when chance chooses the modules."""
        generator = np.random.default_rng(seed)

        def choices(size: int) -> tf.Tensor:
            dear = generator.random([size, len(self._dearest)]) < share
            return tf.constant(np.where(dear, self._dearest, self._cheapest))

        return self._mean(
            self._run(inputs, labels, None, choices(len(labels)))
            for inputs, labels in self._data
        )

    @staticmethod
    def _mean(batches: Iterable[tuple[tf.Tensor, tf.Tensor]]):
        costs, hits = zip(*batches, strict=True)
        return float(np.mean(np.concatenate(costs))), float(
            np.mean(np.concatenate(hits))
        )

    def _batch(self, inputs, labels, gamma, choices):
        composition = self._model(
            inputs,
            gamma=gamma,
            choices=choices,
            decision="mode",
            training=False,
            return_composition=True,
        )
        classes = composition.outputs.shape[-1]
        if composition.outputs.shape.rank != 2 or classes < 2:
            raise ValueError(
                "A trade-off of accuracy needs outputs [batch, classes] of two "
                f"classes or more, got {composition.outputs.shape}."
            )
        predictions = tf.argmax(composition.outputs, axis=-1)
        hits = predictions == tf.cast(tf.reshape(labels, [-1]), tf.int64)
        cost = composition.policy.path_cost + self._model.overhead
        return cost, tf.cast(hits, tf.float32)
