"""Functions that the benchmarks of artifacts share."""

import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from typing import Any

import numpy as np

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
    """Writes an artifact and loads it in the runtime of its format."""
    return open_artifact(export(model, format, folder, **options), format)


_MEASURE_MEMORY = """
import os, sys
import numpy as np
from composer_tf.exporters.artifacts import open_artifact

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

format, feed_path, warm_up, *paths = sys.argv[1:]
feeds = dict(np.load(feed_path))
warm = open_artifact(warm_up, format).caller(feeds)
warm()  # Now the runtime has what it needs for itself.
before = resident()
callers = [open_artifact(path, format).caller(feeds) for path in paths]
for call in callers:
    call()
print(resident() - before)
"""


def resident_bytes(
    paths: list[pathlib.Path],
    warm_up: pathlib.Path,
    format: str,
    feed: Mapping[str, np.ndarray],
) -> int:
    """Extra resident memory for these artifacts after a warm-up run, in bytes.

    Args:
        paths: Paths of the artifacts; each is loaded and run.
        warm_up: Path of the artifact that runs first and stays loaded.
        format: Format of all artifacts.
        feed: Inputs for each artifact, by name.
    """
    with tempfile.NamedTemporaryFile(suffix=".npz") as file:
        arrays: dict[str, Any] = dict(feed)
        np.savez(file.name, **arrays)
        done = subprocess.run(
            [
                *(sys.executable, "-c", _MEASURE_MEMORY),
                *(format, file.name, str(warm_up), *map(str, paths)),
            ],
            check=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
    return int(done.stdout)
