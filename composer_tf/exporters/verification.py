"""Comparison of an artifact with its model, and timing in turns."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from composer_tf import validation
from composer_tf.exporters.artifacts import Artifact, Feed, Outputs, on_cpu
from composer_tf.exporters.exposure import Exposure, SteerBy
from composer_tf.exporters.routed_model import RoutedModel
from composer_tf.exporters.signatures import OVERRIDE, signature
from composer_tf.policy import sample_paths

_NUM_GAMMAS = 9
_NUM_FORCED = 4  # Examples on each forced path.
_TIE = 1e-5  # Choices whose probabilities are closer than this may differ.
_ANSWERS = ("logits", "outputs", "probabilities")
_OF_ANY_SCALE = _ANSWERS[:2]  # A model has one, or neither.


class Parity(NamedTuple):
    """How an artifact's outputs compare with the model's.

    Attributes:
        errors: Largest absolute difference of each output, over the rows that
            took the same path.
        largest: Largest absolute value of each output of the model.
        choice_agreement: Share of rows with the same choices, without ties.
        accuracies: Accuracies of the model and of the artifact, means over all
            gammas and budgets; `None` without labels.
    """

    errors: dict[str, float]
    largest: dict[str, float]
    choice_agreement: float
    accuracies: tuple[float, float] | None

    @property
    def max_abs_error(self) -> float:
        """Largest error but of `logits` or `outputs`, which have any scale."""
        errors = [e for n, e in self.errors.items() if n not in _OF_ANY_SCALE]
        return float(np.max(errors))  # It keeps NaN; max() may not.

    @property
    def answer(self) -> str:
        """Name of the output that tells most about the model's answer."""
        return next(name for name in _ANSWERS if name in self.errors)

    @property
    def relative_error(self) -> float:
        """Error of the `answer`, relative to its largest value."""
        return self.errors[self.answer] / (self.largest[self.answer] or 1.0)


def compare(
    model: RoutedModel,
    exposure: Exposure,
    artifact: Artifact,
    forced: Artifact,
    inputs: Feed,
    labels: np.ndarray | None = None,
    has_default: bool = True,
    another: Artifact | None = None,
    steer_by: Sequence[SteerBy] = ("gamma",),
) -> Parity:
    """Runs an artifact and its model over gammas and forced paths.

    These are values along the support of all gammas together, then random ones,
    and all paths, or a sample if there are many. It runs both over budgets too;
    there the model gets the gamma of each.

    Args:
        model: Model that was exported.
        exposure: Exposure of its gammas.
        artifact: Artifact to verify.
        forced: The same artifact, exported `with_override`.
        inputs: `[B, ...]` by name.
        labels: Integers `[B]`, for a classifier's accuracy.
        has_default: Whether the artifact can be run without gamma.
        another: Second signature of the artifact that takes gamma, such as the
            one for batches, or `None`.
        steer_by: Inputs that steer the artifact; the first steers `forced`.

    Raises:
        ValueError: If there are labels, but no probabilities `[B, C]`, or
            some label is none of the C classes.
    """
    reference = signature(model, exposure, "partition", with_override=True)
    rows = len(next(iter(inputs.values())))
    some = {name: value[:_NUM_FORCED] for name, value in inputs.items()}
    asked = np.full([rows, model.num_metalayers], -1, np.int32)
    tally = _Tally()
    hits = []
    for gamma, steering in (
        pair for by in steer_by for pair in _steerings(exposure, rows, by)
    ):
        expected = _run(reference, {**inputs, **gamma, OVERRIDE: asked})
        actual = artifact.run({**inputs, **steering})
        tally.add(expected, actual)
        if another is not None and steering.keys() == gamma.keys():
            tally.add(expected, another.run({**inputs, **gamma}))
        if labels is not None:
            hits.append([_accuracy(o, labels) for o in (expected, actual)])
    if exposure.free and has_default:
        default = np.repeat(exposure.default, rows, axis=0)
        feed = {**inputs, "gamma": default, OVERRIDE: asked}
        tally.add(_run(reference, feed), artifact.run(inputs))
    few = len(asked[:_NUM_FORCED])
    gamma, steering = next(_steerings(exposure, few, steer_by[0]))
    for path in sample_paths([len(costs) for costs in model.module_costs]):
        told = {**some, OVERRIDE: np.tile(np.array(path, np.int32), [few, 1])}
        expected = _run(reference, {**told, **gamma})
        tally.add(expected, forced.run({**told, **steering}), forced=True)
    means = np.mean(hits, axis=0) if hits else None
    return tally.parity(None if means is None else (means[0], means[1]))


def _steerings(
    exposure: Exposure, rows: int, steer_by: SteerBy
) -> Iterator[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]:
    """Inputs that steer the model, which takes gamma, and the artifact.

    Values are the same for all rows, along the supports; then mixed.
    """
    if not exposure.free:
        yield {}, {}
        return
    tables = [
        np.repeat(exposure.at_share(share, steer_by), rows, axis=0)
        for share in np.linspace(0.0, 1.0, _NUM_GAMMAS)
    ]
    random = np.random.default_rng(0)
    mixed = [
        exposure.at_share(random.random(len(exposure.free)), steer_by)
        for _ in range(rows)
    ]
    if mixed:
        tables.append(np.concatenate(mixed))
    for table in tables:
        gamma = table
        if steer_by == "budget":
            columns = exposure.gamma_of(tf.constant(table)).numpy()
            gamma = columns.reshape([rows, *exposure.default.shape[1:]])
        yield {"gamma": gamma}, {steer_by: table}


def _run(function: Callable[..., dict], feed: Feed) -> Outputs:
    with on_cpu():
        tensors = {name: tf.constant(value) for name, value in feed.items()}
        return {k: v.numpy() for k, v in function(**tensors).items()}


def _accuracy(outputs: Outputs, labels: np.ndarray) -> float:
    probabilities = outputs.get("probabilities", np.zeros([0]))
    if probabilities.ndim != 2 or probabilities.shape[1] < 2:
        shapes = {name: value.shape for name, value in outputs.items()}
        raise ValueError(
            "`labels` need a classifier with probabilities [batch, classes], "
            f"got outputs {shapes}; leave them out."
        )
    validation.check_labels(labels, probabilities.shape[1])
    return float(np.mean(probabilities.argmax(axis=-1) == labels))


def _tied(outputs: Outputs) -> np.ndarray:
    """Rows whose two likeliest modules float32 cannot tell apart."""
    ordered = np.sort(outputs["module_probabilities"], axis=-1)
    if ordered.shape[-1] == 1:
        return np.zeros(len(ordered), bool)
    return np.any(ordered[..., -1] - ordered[..., -2] < _TIE, axis=1)


class _Tally:
    """Accumulates comparisons of pairs of outputs."""

    def __init__(self) -> None:
        self._errors: dict[str, float] = {}
        self._largest: dict[str, float] = {}
        self._agreements: list[np.ndarray] = []

    def add(
        self, expected: Outputs, actual: Outputs, forced: bool = False
    ) -> None:
        same = np.all(expected["choices"] == actual["choices"], axis=1)
        if not forced:
            self._agreements.append(same[same | ~_tied(expected)])
        elif not same.all():
            self._agreements.append(np.zeros(len(same)))  # Forced.
        for name, value in expected.items():
            if name == "choices":
                continue
            error = np.abs(value[same] - actual[name][same]).max(initial=0.0)
            largest = np.abs(value).max(initial=0.0)
            # Not max(), which drops NaN.
            self._errors[name] = np.maximum(error, self._errors.get(name, 0.0))
            self._largest[name] = np.maximum(
                largest, self._largest.get(name, 0.0)
            )

    def parity(self, accuracies: tuple[float, float] | None) -> Parity:
        return Parity(
            {name: float(error) for name, error in self._errors.items()},
            {name: float(value) for name, value in self._largest.items()},
            float(np.concatenate(self._agreements).mean()),
            accuracies,
        )
