"""What the benchmarks share: ratios with their spread, and artifacts."""

import functools
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict

import numpy as np
import tensorflow as tf

from composer_tf import exporters
from composer_tf.exporters.artifacts import (
    Artifact,
    Feed,
    LiteRTArtifact,
    Outputs,
    SavedModelArtifact,
    open_artifact,
)

FILES = {"tflite": "m.tflite", "tf_saved_model": "m", "onnx": "m.onnx"}
SESSION = "session"
# That of each format, and that of TensorFlow Serving.
RUNTIMES = ("tf_saved_model", SESSION, "tflite", "onnx")


def format_of(runtime: str) -> str:
    """The format of the artifacts of one of `RUNTIMES`."""
    return "tf_saved_model" if runtime == SESSION else runtime


class Spread(TypedDict):
    """What the rounds of a measurement say about a number.

    Attributes:
        median: Median over the rounds.
        quartiles: First and third quartile.
    """

    median: float
    quartiles: list[float]


def spread(values: Sequence[float] | np.ndarray) -> Spread:
    """Median and quartiles of one value per round."""
    low, median, high = np.percentile(values, (25, 50, 75)).tolist()
    return {"median": median, "quartiles": [low, high]}


def ratio(over: np.ndarray, under: np.ndarray) -> Spread:
    """Median and quartiles of the ratios within a round.

    Args:
        over: float64 `[rounds]`, the numerators.
        under: float64 `[rounds]`, the denominators.
    """
    return spread(over / under)


def shown(value: Spread | float) -> str:
    """A number with its quartiles, if it has any: `1.18 (1.15-1.22)`."""
    if not isinstance(value, dict):
        return f"{value:.2f}"
    low, high = value["quartiles"]
    return f"{value['median']:.2f} ({low:.2f}-{high:.2f})"


def print_table(title: str, rows: Mapping[str, Spread | float]) -> None:
    """Prints a title, and a line with each number below it."""
    print(title)
    for name, value in rows.items():
        print(f"  {name:<50} {shown(value)}", flush=True)


class SessionArtifact(SavedModelArtifact):
    """A SavedModel in a session, which is how TensorFlow Serving runs it.

    `tf.saved_model.load` gives functions that Python calls with every weight
    as an argument; a session holds the weights itself.
    """

    def __init__(self, path: pathlib.Path) -> None:
        graph = tf.Graph()
        self._session = tf.compat.v1.Session(graph=graph)
        with graph.as_default():
            loaded = tf.compat.v1.saved_model.load(
                self._session, ["serve"], str(path)
            )
        self._signatures = loaded.signature_def

    def callers(self, feeds: Sequence[Feed]) -> list[Callable[[], Any]]:
        signature = self._signatures[self._name(feeds[0])]
        outputs = {key: out.name for key, out in signature.outputs.items()}
        inputs = [signature.inputs[name].name for name in feeds[0]]
        call = self._session.make_callable(outputs, inputs)
        return [functools.partial(call, *feed.values()) for feed in feeds]

    def run(self, feed: Feed) -> Outputs:
        return self.caller(feed)()


def export(
    model: Any, format: str, folder: pathlib.Path, **options: Any
) -> pathlib.Path:
    """Writes an artifact of a `RoutedModel` into a new folder."""
    folder.mkdir(parents=True)
    path = folder / FILES[format]
    exporters.export(model, path, format, **options)
    return path


def export_and_open(
    model: Any, runtime: str, folder: pathlib.Path, **options: Any
) -> Artifact:
    """Writes an artifact and loads it in one of `RUNTIMES`.

    In LiteRT the option `batch_size` gives it the signature for batches.
    """
    if runtime == SESSION:
        return SessionArtifact(
            export(model, "tf_saved_model", folder, **options)
        )
    path = export(model, runtime, folder, **options)
    return open_for(options.get("batch_size", 1), path, runtime)


def open_for(rows: int, path: pathlib.Path | str, format: str) -> Artifact:
    """Loads an artifact for batches of so many rows, which LiteRT fixes."""
    if format == "tflite" and rows > 1:
        return LiteRTArtifact(path, batched=True)
    return open_artifact(path, format)


def memory(field: str) -> int:
    """Bytes in a field of this process's status: `VmRSS`, or its peak `VmHWM`.

    The peak that `getrusage` tells may be that of the process that started it.
    """
    status = pathlib.Path("/proc/self/status").read_text()
    (line,) = (s for s in status.splitlines() if s.startswith(f"{field}:"))
    return 1024 * int(line.split()[1])


def _measure_memory(format: str, folder: str, *paths: str) -> int:
    """Growth of this process to its peak; the first path is the warm-up.

    Args:
        format: Same as in `peak_bytes`.
        folder: Folder with the feed of each path, `0.npz` and so on.
        *paths: Paths of the artifacts.
    """
    feeds = [
        dict(np.load(pathlib.Path(folder) / f"{i}.npz"))
        for i in range(len(paths))
    ]

    def opened(path: str, feed: Feed) -> Callable[[], Any]:
        rows = len(next(iter(feed.values())))
        return open_for(rows, path, format).caller(feed)

    warm = opened(paths[0], feeds[0])
    warm()  # Now the runtime has what it needs for itself.
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # Resets the peak.
    before = memory("VmRSS")
    callers = list(map(opened, paths[1:], feeds[1:]))
    for call in callers:
        call()
    return memory("VmHWM") - before


def peak_bytes(
    artifacts: Sequence[tuple[pathlib.Path, Feed]],
    warm_up: tuple[pathlib.Path, Feed],
    format: str,
) -> int:
    """Extra peak resident memory of these artifacts after a warm-up, in bytes.

    Measured in a process of its own: from before the first is loaded to the
    peak while they are loaded and run.

    Args:
        artifacts: Path and inputs of each artifact, which is loaded and run.
        warm_up: Those of the artifact that runs first and stays loaded.
        format: Format of all artifacts.
    """
    every = [warm_up, *artifacts]
    with tempfile.TemporaryDirectory() as folder:
        for i, (_, feed) in enumerate(every):
            arrays: dict[str, Any] = dict(feed)
            np.savez(pathlib.Path(folder) / f"{i}.npz", **arrays)
        paths = [str(path) for path, _ in every]
        done = subprocess.run(
            [sys.executable, __file__, format, folder, *paths],
            check=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
    return int(done.stdout)


if __name__ == "__main__":
    print(_measure_memory(*sys.argv[1:]))
