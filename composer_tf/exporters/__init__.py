"""Artifacts of a routed model, in every format one contract.

An artifact takes the model's inputs and `gamma`, and modules that are not
chosen do not run. Exporters know a forward function and nothing of training.
"""

import os
import pathlib
from typing import Any

from composer_tf import validation
from composer_tf.exporters.litert import export_litert as export_litert
from composer_tf.exporters.onnx import export_onnx as export_onnx
from composer_tf.exporters.routed_model import GammaInput as GammaInput
from composer_tf.exporters.routed_model import RoutedModel as RoutedModel
from composer_tf.exporters.saved_model import (
    export_saved_model as export_saved_model,
)
from composer_tf.exporters.signatures import check_names as check_names

FORMATS = {
    "tf_saved_model": export_saved_model,
    "tflite": export_litert,
    "onnx": export_onnx,
}


_SUFFIXES = {".tflite": "tflite", ".onnx": "onnx", ".keras": "keras"}


def canonical_format(format: str) -> str:
    """Returns the canonical name of an export format.

    Args:
        format: Of `FORMATS`, or `"litert"`, as Keras calls `"tflite"`.

    Raises:
        ValueError: If it is another.
    """
    format = {"litert": "tflite"}.get(format, format)
    validation.check_choice("format", format, tuple(FORMATS))
    return format


def check_suffix(path: str | os.PathLike, format: str) -> None:
    """Raises `ValueError` if the suffix of a path is that of another format."""
    suffix = pathlib.Path(path).suffix
    meant = _SUFFIXES.get(suffix, format)
    if meant == format:
        return
    way = "model.save" if meant == "keras" else f"format={meant!r}"
    raise ValueError(
        f"The path must suit format {format!r}, got {os.fspath(path)!r}, whose "
        f"suffix is for {way}."
    )


def export(
    model: RoutedModel,
    path: str | os.PathLike,
    format: str = "tf_saved_model",
    **options: Any,
) -> dict[str, Any]:
    """Writes an artifact; see the function of each format for its options.

    Args:
        model: To export.
        path: File or folder to write.
        format: Of `FORMATS`; `"litert"`, as Keras has it, is `"tflite"`.
        **options: Of the format's function.

    Returns:
        The artifact's description.

    Raises:
        ValueError: If the format is unknown, or the path's suffix is that of
            another one.
    """
    format = canonical_format(format)
    check_suffix(path, format)
    pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
    return FORMATS[format](model, path, **options)
