"""Turns a saved model into a verified artifact and its report."""

import importlib
import os
import pathlib
import re
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.lite.python.convert_phase import ConverterError

from composer_tf import exporters, validation
from composer_tf.composer import Composer
from composer_tf.deployment import acceptance, examples
from composer_tf.deployment.errors import DeploymentError
from composer_tf.deployment.examples import Examples
from composer_tf.exporters.artifacts import size_in_bytes
from composer_tf.files import atomic_path, write_json

_NUM_CALIBRATION_EXAMPLES = 500
_NUM_EXAMPLES = 256
_NO_CAUSE = r"\s|Graph execution error|Detected at node|Node: |<stack traces"
LIMITS = acceptance.Limits()


def deploy(
    model: str | os.PathLike | Composer,
    output: str | os.PathLike,
    format: str,
    data: str | Mapping[str, np.ndarray] = "",
    verify: bool = True,
    overwrite: bool = False,
    modules: Sequence[str] = (),
    input_dtypes: Mapping[str, str] | str | None = None,
    max_accuracy_loss: float = LIMITS.accuracy_loss,
    min_choice_agreement: float = LIMITS.choice_agreement,
    max_abs_error: float | None = LIMITS.abs_error,
    **options: Any,
) -> dict[str, Any]:
    """Exports a model, and verifies the artifact.

    It writes `OUTPUT.report.json` beside the artifact and, if that is a file,
    `OUTPUT.json`. If the process is killed at the very end, those of a replaced
    artifact may remain beside the new one.

    Args:
        model: Composer, or the `.keras` file of one.
        output: File or folder to write.
        format: `"tf_saved_model"`, `"tflite"` (or `"litert"`) or `"onnx"`.
        data: Source of examples: a name of `composer_tf.datasets`, or an `.npz`
            file with an array for each input, and `labels` if known, integers
            `[N]` or `[N, 1]`; or such arrays by name. Needed for
            `quantization="int8"`, which is calibrated on one half of their rows
            and verified on the other. Without it, the verification runs on
            random inputs.
        verify: Whether to compare the artifact with the model, and to time it.
        overwrite: Whether an existing artifact, and what was written beside it,
            may be replaced.
        modules: Python modules to import first, which register the model's
            custom classes.
        input_dtypes: Types by input name, or the type of the only input. They
            default to those of the stem's `keras.Input`s, otherwise to float32.
        max_accuracy_loss: Largest drop in accuracy on data with labels, a mean
            over gammas and budgets. Where the cheapest path can only guess,
            int8 may change all its guesses at once. Defaults to 0.005.
        min_choice_agreement: Smallest fraction of choices on which a quantized
            artifact must agree with the model. At gammas between two modules,
            many choices are close. Defaults to 0.99.
        max_abs_error: Largest difference from the model in an output, times its
            largest value where that is above 1; for `probabilities`, times half
            the largest logit. Defaults to 1e-5, to 1e-3 for
            `quantization="float16"`, and otherwise to no limit.
        **options: Options of the format's exporter.

    Returns:
        Report with `format`, `bytes` of the artifact and `bytes_of_weights` of
        the model, and, if verified: `verified_on`, which is `data` or `"random
        inputs"`, and `num_examples` of it; `max_abs_error_by_output`;
        `max_abs_error` of all outputs but `logits` or `outputs`, which have any
        scale; `max_relative_error` of those, or of `probabilities` if there are
        none, relative to the largest value; `choice_agreement`,
        `latency_ratio_cheapest`, `latency_ratio_full`; and of data with labels
        `accuracy_model` and `accuracy_artifact`.

    Raises:
        DeploymentError: If a file is missing or not a Composer, the output
            exists, the data does not fit, the artifact does not run, or the
            verification fails.
        DataUnavailableError: If `data` names a data set that is neither here
            nor obtainable.
        ValueError: If an option does not fit the model.
        TypeError: If an option is of the wrong type.
        ImportError: If a package is missing; it names the extra.
    """
    target = pathlib.Path(output)
    format = exporters.canonical_format(format)
    exporters.check_target(target, format)
    for place in _places(target, format):
        if place.exists() and not overwrite:
            raise DeploymentError(f"{place} exists; `overwrite` replaces it.")
    for module in modules:
        importlib.import_module(module)
    composer = model if isinstance(model, Composer) else _load(model)
    routed = composer.routed_model(input_dtypes, format)
    if options.get("quantization") == "int8":
        options["calibration_data"] = _calibration_data(data, routed)
    if data and options.get("warmup_requests"):
        options["warmup_inputs"] = _examples(data, routed).inputs
    judged_on = _examples(data, routed) if verify else None
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix="partial-", dir=target.parent
    ) as scratch:
        folder = pathlib.Path(scratch)
        artifact = folder / target.name
        try:
            exporters.export(routed, artifact, format, **options)
        except (ConverterError, tf.errors.OpError) as error:
            raise DeploymentError(
                f"The model cannot be converted to {format!r}: {error}"
            ) from error
        except TypeError as error:
            if not input_dtypes:
                raise
            raise DeploymentError(
                f"The model does not run on `input_dtypes` {input_dtypes!r}, "
                f"unless its stem casts them: {validation.keras_cause(error)}"
            ) from error
        report = {
            "format": format,
            "bytes": size_in_bytes(artifact),
            "bytes_of_weights": sum(_size(v) for v in routed.variables),
        }
        if judged_on is not None:
            limits = acceptance.Limits(
                max_accuracy_loss, min_choice_agreement, max_abs_error
            )
            report |= _verified(
                routed, artifact, format, options, judged_on, limits
            )
        write_json(report, folder / f"{target.name}.report.json")
        for place in _places(target, format):
            with atomic_path(place) as partial:
                os.rename(folder / place.name, partial)
    return report


def _size(variable: tf.Variable) -> int:
    """Size of a variable's values in bytes."""
    return variable.shape.num_elements() * variable.dtype.size


def _places(target: pathlib.Path, format: str) -> list[pathlib.Path]:
    """All that is written: the artifact, and the files beside it."""
    # A SavedModel has its description inside.
    suffixes = (
        [".report.json"]
        if format == "tf_saved_model"
        else [".json", ".report.json"]
    )
    beside = [target.with_name(target.name + suffix) for suffix in suffixes]
    return [target, *beside]


def _load(path: str | os.PathLike) -> Composer:
    if pathlib.Path(path).is_dir():
        raise DeploymentError(f"{path} is a folder, not a .keras file.")
    if not pathlib.Path(path).is_file():
        raise DeploymentError(f"There is no file {path}.")
    try:
        with warnings.catch_warnings():  # No artifact needs its optimizer.
            warnings.filterwarnings("ignore", "Skipping variable loading")
            model = keras.saving.load_model(path, compile=True)
    except Exception as error:  # From Keras, zip, h5 or JSON.
        raise DeploymentError(_not_loaded(path, error)) from error
    if not isinstance(model, Composer):
        raise DeploymentError(
            f"{path} holds a {type(model).__name__}, not a Composer."
        )
    return model


def _not_loaded(path: str | os.PathLike, error: Exception) -> str:
    """What is wrong with a file, without all that Keras read from it."""
    own = re.search(r"Could not locate (class|function) '(\w+)'", str(error))
    if own:
        return (
            f"{path} has a {own[1]} {own[2]!r} of its own: `modules` must name "
            "the Python module that defines and registers it."
        )
    return (
        f"{path} is no Keras model, or is damaged, or has classes of its own, "
        f"which Python `modules` register: {validation.keras_cause(error)}"
    )


def _examples(
    data: str | Mapping[str, np.ndarray], model: exporters.RoutedModel
) -> Examples:
    if data:
        return examples.read(data, model, "test", _NUM_EXAMPLES)
    return examples.made_up(model, _NUM_EXAMPLES)


def _calibration_data(
    data: str | Mapping[str, np.ndarray], model: exporters.RoutedModel
) -> list[dict[str, np.ndarray]]:
    if not data:
        raise DeploymentError(
            "`quantization='int8'` needs `data` to calibrate on, such as "
            "'wide_mnist/digits' or an .npz file."
        )
    found = examples.read(data, model, "train", _NUM_CALIBRATION_EXAMPLES)
    return list(found.one_by_one())


def _verified(
    model: exporters.RoutedModel,
    artifact: pathlib.Path,
    format: str,
    options: Mapping[str, Any],
    judged_on: Examples,
    limits: acceptance.Limits,
) -> dict[str, Any]:
    """Facts for the report; raises if the artifact is not right."""
    try:
        facts, failures = acceptance.verify(
            model, artifact, format, options, judged_on, limits
        )
    except (ValueError, ImportError):
        raise
    except Exception as error:  # From three runtimes, each with its own kinds.
        cause = _cause(error).rstrip(".")
        hint = (
            "It was verified on random inputs; `data` gives real ones, and "
            "`input_dtypes` suit token ids."
        )
        raise DeploymentError(
            f"The artifact does not run and was not kept: {cause}."
            + judged_on.are_random * f" {hint}"
        ) from error
    if failures:
        hint = (
            "The inputs were random, at scales up to 255; `data` verifies on "
            "real ones."
        )
        raise DeploymentError(
            "The artifact failed its verification and was not kept: "
            f"{'; '.join(failures)}." + judged_on.are_random * f" {hint}"
        )
    return facts


def _cause(error: Exception) -> str:
    """The line with the cause; TensorFlow prints a node's origin above it."""
    message = str(error)
    if isinstance(error, tf.errors.OpError):
        several = re.search(r"^ *\(0\) (.+)", message, re.MULTILINE)
        if several:
            return several[1].strip()
        for line in message.splitlines():
            if line and not re.match(_NO_CAUSE, line):
                return line.strip()
    return message.strip().partition("\n")[0]
