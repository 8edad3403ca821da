"""What the benchmarks of artifacts share."""

import pathlib
from typing import Any

from composer_tf import exporters
from composer_tf.exporters.artifacts import Artifact, open_artifact

FILES = {"tflite": "m.tflite", "tf_saved_model": "m", "onnx": "m.onnx"}


def export(
    model: Any, format: str, folder: pathlib.Path, **options: Any
) -> pathlib.Path:
    """Writes an artifact of a `RoutedModel` into a new folder."""
    folder.mkdir(parents=True)
    path = folder / FILES[format]
    exporters.export(model, path, format, **options)
    return path


def export_and_open(
    model: Any, format: str, folder: pathlib.Path, **options: Any
) -> Artifact:
    """The same, loaded in the runtime of its format."""
    return open_artifact(export(model, format, folder, **options), format)
