"""LiteRT (TensorFlow Lite): phones, browsers, boards and microcontrollers."""

import os
import pathlib
import tempfile
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, get_args

import tensorflow as tf
from tensorflow.lite.python.convert_phase import ConverterError

from composer_tf import validation
from composer_tf.exporters import litert_calibration as calibration
from composer_tf.exporters import litert_surgery as surgery
from composer_tf.exporters.description import describe
from composer_tf.exporters.exposure import (
    STEER_BY,
    Exposure,
    Gammas,
    SteerBy,
    expose,
)
from composer_tf.exporters.litert_micro import for_micro
from composer_tf.exporters.routed_model import RoutedModel
from composer_tf.exporters.saved_model import write_saved_model
from composer_tf.exporters.signatures import (
    BATCH,
    BUDGET,
    DEFAULT_GAMMA,
    MAIN,
    OVERRIDE,
    signature,
)
from composer_tf.exporters.tables import check_tables
from composer_tf.exporters.targets import prepare_target
from composer_tf.files import atomic_path, write_json

Quantization = Literal["none", "float16", "dynamic", "int8"]
QUANTIZATIONS = get_args(Quantization)

_TABLES = ((tf.string, tf.int64), (tf.int64, tf.string))  # Keys and values.


def export_litert(
    model: RoutedModel,
    path: str | os.PathLike,
    quantization: Quantization = "none",
    batch_size: int | None = None,
    micro: bool = False,
    calibration_data: Iterable[calibration.Example] | None = None,
    fix: Gammas | None = None,
    default_gamma: Gammas | None = None,
    steer_by: SteerBy = "gamma",
    with_override: bool = False,
) -> dict[str, Any]:
    """Writes a file of builtin operators only, and its description beside it.

    The signature `serving_default`, which is the first, takes one example and
    `gamma`, and runs only the chosen modules, by real `IF` operators.
    `default_gamma` takes no gamma; `budget`, for a calibrated model, takes
    `budget`; `batch`, on request, takes a static number of examples, each with
    its own gamma.

    Args:
        model: Model to export.
        path: File to write. The description goes to `path` + `.json`.
        quantization: `"none"`; `"float16"` or `"dynamic"` for the weights;
            `"int8"` for weights and activations. Defaults to `"none"`.
        batch_size: Number of examples that the signature `batch` takes; `None`
            for no such signature.
        micro: Whether the file is for TensorFlow Lite Micro: one signature, of
            operators that it has only.
        calibration_data: Examples for `"int8"` only, each a mapping from input
            name to an array `[1, ...]`. They run at gammas over the whole
            support, and on forced paths through every module, so that none is
            left without a range.
        fix: Values of gammas to fix, so that they are no inputs, by name; or a
            number if there is only one gamma.
        default_gamma: Defaults to use in place of the model's, in the same
            form.
        steer_by: Input that steers, `"gamma"` (default), or `"budget"` with
            `micro` and a calibrated model.
        with_override: Whether to keep an input `override`, int32 `[batch, n]`:
            modules to take, -1 to ask the controller.

    Returns:
        Description of the artifact.

    Raises:
        ValueError: If an argument does not fit the model or another argument,
            the model has lookup tables that LiteRT lacks or, with `micro`,
            operators that Micro lacks, or the path is a folder.
        ConverterError: If the model needs operators that LiteRT lacks (an
            error of TensorFlow).
    """
    target = prepare_target(path, "tflite")
    _check_options(quantization, batch_size, micro, steer_by)
    examples = calibration.checked_examples(
        model, quantization, calibration_data
    )
    exposure = expose(model.gammas, fix, default_gamma, model.calibration)
    # Calibration forces paths; then a constant replaces the input.
    calibrated = quantization == "int8" and model.num_metalayers > 0
    forced = with_override or calibrated
    signatures = _signatures(
        model, exposure, batch_size, micro, steer_by, forced
    )
    runtime = "TensorFlow Lite Micro" if micro else "LiteRT"
    check_tables(model, signatures, runtime, () if micro else _TABLES)
    if quantization == "int8":
        calibration.check_loops(signatures)
    content = _convert(model, exposure, signatures, quantization, examples)
    if forced and not with_override:
        content = surgery.with_constant_input(content, OVERRIDE, -1)
    if micro:
        content = for_micro(content)
    content = surgery.with_signature_first(content, MAIN)
    description = describe(
        model,
        exposure,
        "tflite",
        signatures,
        with_override,
        quantization=quantization,
        batch_size=batch_size,
        micro=micro,
        steer_by=steer_by,
    )
    with atomic_path(target) as partial:
        partial.write_bytes(content)
    write_json(description, target.with_name(target.name + ".json"))
    return description


def _check_options(
    quantization: str,
    batch_size: int | None,
    micro: bool,
    steer_by: str,
) -> None:
    validation.check_choice("quantization", quantization, QUANTIZATIONS)
    validation.check_choice("steer_by", steer_by, STEER_BY)
    if steer_by != "gamma" and not micro:
        raise ValueError(
            f"`steer_by={steer_by!r}` needs `micro`: without it the file has "
            "signatures for both."
        )
    if batch_size is not None and batch_size < 1:
        raise ValueError(
            f"`batch_size` must be at least 1, or None, got {batch_size}."
        )
    if micro and quantization in ("float16", "dynamic"):
        raise ValueError(
            "`micro` allows `quantization` 'none' or 'int8', got "
            f"{quantization!r}, which TensorFlow Lite Micro cannot load."
        )
    if micro and batch_size:
        raise ValueError("`micro` allows no `batch_size`: one signature only.")


def _signatures(
    model: RoutedModel,
    exposure: Exposure,
    batch_size: int | None,
    micro: bool,
    steer_by: SteerBy,
    forced: bool,
) -> dict[str, Any]:
    """Signatures by name; all have an input `override` if `forced`."""

    def make(batch_size: int, steer_by: SteerBy | None) -> Any:
        return signature(
            model,
            exposure,
            "branch" if batch_size == 1 else "static_scatter",
            batch_size=batch_size,
            steer_by=steer_by,
            with_override=forced,
        )

    signatures = {MAIN: make(1, steer_by)}
    if not micro and exposure.free:
        signatures[DEFAULT_GAMMA] = make(1, None)
    if not micro and exposure.calibration is not None:
        signatures[BUDGET] = make(1, "budget")
    if batch_size:
        signatures[BATCH] = make(batch_size, "gamma")
    return signatures


def _convert(
    model: RoutedModel,
    exposure: Exposure,
    signatures: Mapping[str, Any],
    quantization: str,
    examples: Sequence[calibration.Example],
) -> bytes:
    """The file's content, quantized."""
    with tempfile.TemporaryDirectory() as folder:
        write_saved_model(model, signatures, pathlib.Path(folder))
        converter = tf.lite.TFLiteConverter.from_saved_model(
            folder, signature_keys=list(signatures)
        )
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        if quantization in ("dynamic", "int8"):
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if quantization == "int8":
            converter.representative_dataset = lambda: calibration.feeds(
                model, exposure, examples, signatures
            )
            converter._experimental_calibrate_only = True
        with warnings.catch_warnings():
            # The converter uses an interpreter that warns of its deprecation.
            warnings.filterwarnings("ignore", category=UserWarning)
            content = _converted(converter)
    if quantization == "int8":
        return surgery.quantized(content)
    if quantization == "float16":
        return surgery.with_float16_weights(content)
    return content


def _converted(converter: Any) -> bytes:
    """The converter's file; if it fails, the error says why and what helps."""
    try:
        return converter.convert()
    except ConverterError as error:
        if "TensorList" not in str(error):
            lacking = {e.operator.name for e in error.errors} - {""}
            if not lacking:
                raise
            raise ConverterError(
                f"LiteRT lacks {', '.join(sorted(lacking))}, which layers of "
                "the model need: do their part before the model."
            ) from error
        raise ConverterError(
            "TensorFlow cannot convert loops over lists of tensors here, as of "
            "recurrent layers in a module: make them with `unroll=True`."
        ) from error
