"""Decides whether an artifact may replace its model, and times it."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from composer_tf import costs, exporters
from composer_tf.deployment.examples import Examples
from composer_tf.exporters import verification
from composer_tf.exporters.artifacts import (
    Artifact,
    LiteRTArtifact,
    SavedModelArtifact,
    open_artifact,
)
from composer_tf.exporters.exposure import Exposure, SteerBy, expose
from composer_tf.exporters.signatures import MAIN, OVERRIDE
from composer_tf.timing import interleaved_seconds

_MAX_RELATIVE_ERROR = 0.25  # With any quantization.
# For outputs up to 1, by quantization; larger ones in proportion.
_TOLERANCES = {"none": 1e-5, "float16": 1e-3}


class Limits(NamedTuple):
    """Limits for an artifact; one that is not quantized makes equal choices.

    Attributes:
        accuracy_loss: Largest drop in accuracy, a mean over gammas and budgets.
        choice_agreement: Smallest fraction of choices on which a quantized
            artifact must agree.
        abs_error: Largest difference in outputs up to 1; in larger ones it is
            in proportion. Defaults to 1e-5, 1e-3 for float16, and no limit for
            other quantizations.
    """

    accuracy_loss: float = 0.005
    choice_agreement: float = 0.99
    abs_error: float | None = None


def verify(
    model: exporters.RoutedModel,
    path: pathlib.Path,
    format: str,
    options: Mapping[str, Any],
    examples: Examples,
    limits: Limits,
) -> tuple[dict[str, Any], list[str]]:
    """Compares an artifact with its model, and times it if it is right.

    Args:
        model: Model that was exported.
        path: Path of the artifact. More are written beside it if needed.
        format: Format of the artifact.
        options: Options that it was exported with.
        examples: Examples to run on.
        limits: Limits for the artifact.

    Returns:
        Facts for the report, and a list of failures, empty if the artifact is
        right.
    """
    twin = path.with_name(f"forced-{path.name}")
    exporters.export(model, twin, format, **options, with_override=True)
    exposure = expose(
        model.gammas,
        options.get("fix"),
        options.get("default_gamma"),
        model.calibration,
    )
    steer_by: list[SteerBy] = [options.get("steer_by", "gamma")]
    if format != "onnx" and not options.get("micro") and exposure.calibration:
        steer_by.append("budget")
    forced = open_artifact(twin, format)
    another = None
    if options.get("batch_size"):
        another = LiteRTArtifact(path, batched=True)
    elif format == "tf_saved_model" and not exposure.free:
        another = SavedModelArtifact(path, MAIN)  # Instead of `default_gamma`.
    parity = verification.compare(
        model,
        exposure,
        open_artifact(path, format),
        forced,
        examples.inputs,
        examples.labels,
        has_default=not options.get("micro"),
        another=another,
        steer_by=steer_by,
    )
    facts: dict[str, Any] = {
        "verified_on": examples.source,
        "num_examples": len(next(iter(examples.inputs.values()))),
    }
    facts |= _facts(parity)
    quantization = str(options.get("quantization", "none"))
    wrong = failures(parity, quantization, limits)
    if wrong:
        return facts, wrong
    for name, chosen in (
        ("cheapest", costs.cheapest_path(model.module_costs)),
        ("full", costs.dearest_path(model.module_costs)),
    ):
        beside = path.with_name(f"{name}-{path.name}")
        alone = _alone(model, chosen, beside, format, options)
        facts[f"latency_ratio_{name}"] = _latency_ratio(
            forced, alone, chosen, exposure, examples.inputs, steer_by[0]
        )
    return facts, []


def failures(
    parity: verification.Parity, quantization: str, limits: Limits
) -> list[str]:
    """Describes how an artifact differs too much from its model.

    Args:
        parity: Comparison of the two.
        quantization: Quantization of the artifact, `"none"` if it has none.
        limits: Limits for the artifact.
    """
    found = []
    tolerance = limits.abs_error
    if tolerance is None:
        tolerance = _TOLERANCES.get(quantization, np.inf)
    for name, error in parity.errors.items():
        scale = parity.largest[name]
        if name == "probabilities":
            # Half as much as logits may differ: the rounding of large logits
            # alone can move them by more than the tolerance.
            scale = parity.largest.get("logits", 0.0) / 2
        allowed = tolerance * max(1.0, scale)
        if not error <= allowed:
            found.append(
                f"{name} differ by {error:.3g}, more than {allowed:.3g}"
            )
    if not parity.relative_error <= _MAX_RELATIVE_ERROR:
        found.append(
            f"{parity.answer} differ by {parity.relative_error:.0%} of the "
            "largest"
        )
    least = 1.0 if quantization == "none" else limits.choice_agreement
    if not parity.choice_agreement >= least:
        found.append(
            f"choices agree on {parity.choice_agreement:.2%}, less than "
            f"{least:.2%}"
        )
    before, after = parity.accuracies or (0.0, 0.0)
    if before - after > limits.accuracy_loss:
        found.append(
            f"accuracy falls by {before - after:.2%}, more than "
            f"{limits.accuracy_loss:.2%}"
        )
    return found


def _facts(parity: verification.Parity) -> dict[str, Any]:
    """Facts about a comparison, for the report."""
    facts: dict[str, Any] = {
        "max_abs_error": parity.max_abs_error,
        "max_abs_error_by_output": parity.errors,
        "max_relative_error": parity.relative_error,
        "choice_agreement": parity.choice_agreement,
    }
    if parity.accuracies is not None:
        before, after = map(float, parity.accuracies)
        facts |= {"accuracy_model": before, "accuracy_artifact": after}
    return facts


def _alone(
    model: exporters.RoutedModel,
    chosen: Sequence[int],
    path: pathlib.Path,
    format: str,
    options: Mapping[str, Any],
) -> Artifact:
    """An artifact of only the modules of one path, quantized alike."""
    kept = ("quantization", "calibration_data")
    plain = {key: options[key] for key in kept if key in options}
    exporters.export(model.alone(chosen), path, format, **plain)
    return open_artifact(path, format)


def _latency_ratio(
    forced: Artifact,
    alone: Artifact,
    path: Sequence[int],
    exposure: Exposure,
    inputs: Mapping[str, np.ndarray],
    steer_by: SteerBy,
) -> float:
    """Time of a forced path over that of a file with only its modules."""
    rows = min(forced.batch_size, len(next(iter(inputs.values()))))
    feed = {name: value[:rows] for name, value in inputs.items()}
    steered = {**feed, OVERRIDE: np.tile(np.array(path, np.int32), [rows, 1])}
    if exposure.free:
        default = exposure.default_of(steer_by)
        steered[steer_by] = np.repeat(default, rows, axis=0)
    seconds = interleaved_seconds(
        {"forced": forced.caller(steered), "alone": alone.caller(feed)}
    )
    return seconds["forced"] / seconds["alone"]
