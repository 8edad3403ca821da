"""Artifacts of a routed model, with one contract in every format.

An artifact takes the model's inputs and `gamma`, and modules that are not
chosen do not run. Exporters know a forward function and nothing about training.
"""

import os
from typing import Any

from composer_tf import validation
from composer_tf.exporters.litert import export_litert as export_litert
from composer_tf.exporters.onnx import export_onnx as export_onnx
from composer_tf.exporters.routed_model import GammaInput as GammaInput
from composer_tf.exporters.routed_model import RoutedModel as RoutedModel
from composer_tf.exporters.routed_model import Table as Table
from composer_tf.exporters.saved_model import (
    export_saved_model as export_saved_model,
)
from composer_tf.exporters.signatures import check_names as check_names
from composer_tf.exporters.targets import check_target as check_target

FORMATS = {
    "tf_saved_model": export_saved_model,
    "tflite": export_litert,
    "onnx": export_onnx,
}


def canonical_format(format: str) -> str:
    """Returns the canonical name of an export format.

    Args:
        format: Name in `FORMATS`, or `"litert"`, Keras's name for `"tflite"`.

    Raises:
        ValueError: If the format is another one.
    """
    format = {"litert": "tflite"}.get(format, format)
    validation.check_choice("format", format, tuple(FORMATS))
    return format


def export(
    model: RoutedModel,
    path: str | os.PathLike,
    format: str = "tf_saved_model",
    **options: Any,
) -> dict[str, Any]:
    """Writes an artifact; see the function of each format for its options.

    Args:
        model: Model to export.
        path: File or folder to write.
        format: Name in `FORMATS`, or `"litert"`, Keras's name for `"tflite"`.
        **options: Options of the format's function.

    Returns:
        Description of the artifact.

    Raises:
        ValueError: If the format is unknown, or an artifact of it does not
            belong at the path.
    """
    return FORMATS[canonical_format(format)](model, path, **options)
