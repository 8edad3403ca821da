"""Artifacts run as users run them, each in its own runtime."""

import abc
import contextlib
import functools
import importlib
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from composer_tf.exporters.exposure import STEER_BY
from composer_tf.exporters.signatures import (
    BATCH,
    BUDGET,
    DEFAULT_GAMMA,
    FORCED,
    MAIN,
    OVERRIDE,
)

Feed = Mapping[str, np.ndarray]
Outputs = dict[str, np.ndarray]


class Artifact(abc.ABC):
    """A loaded file or folder of an exporter.

    Attributes:
        batch_size: Number of examples that it is made to take at once.
    """

    batch_size: int

    def caller(self, feed: Feed) -> Callable[[], Any]:
        """A function without arguments that runs the artifact, to be timed.

        Args:
            feed: Arrays `[B, ...]` by input name. Without `gamma` and `budget`
                the default is used.
        """
        (call,) = self.callers([feed])
        return call

    @abc.abstractmethod
    def callers(self, feeds: Sequence[Feed]) -> list[Callable[[], Any]]:
        """Same as `caller`, one function per feed, to be called in any order.

        Args:
            feeds: Feeds with the same inputs, of the same shapes.
        """

    @abc.abstractmethod
    def run(self, feed: Feed) -> Outputs:
        """Runs the artifact; outputs `[B, ...]` by name."""


class SavedModelArtifact(Artifact):
    """A SavedModel in TensorFlow.

    Args:
        path: Folder of the SavedModel.
        signature: Name of the signature to run. Defaults to the one for the
            inputs that are fed: `default_gamma` without gamma and budget.
    """

    batch_size = 32

    def __init__(
        self, path: str | os.PathLike, signature: str | None = None
    ) -> None:
        self._loaded: Any = tf.saved_model.load(str(path))
        self._signature = signature

    def callers(self, feeds: Sequence[Feed]) -> list[Callable[[], Any]]:
        def call(tensors: dict[str, tf.Tensor]) -> None:
            # A GPU still computes until one is asked for.
            next(iter(signature(**tensors).values())).numpy()

        signature = self._signature_for(feeds[0])
        return [functools.partial(call, _tensors(feed)) for feed in feeds]

    def run(self, feed: Feed) -> Outputs:
        with on_cpu():
            outputs = self._signature_for(feed)(**_tensors(feed))
            return {name: value.numpy() for name, value in outputs.items()}

    def _signature_for(self, feed: Feed) -> Callable[..., Any]:
        name = self._signature or self._name(feed)
        return self._loaded.signatures[name]

    @staticmethod
    def _name(feed: Feed) -> str:
        """Name of the signature for these inputs."""
        if OVERRIDE in feed:
            return FORCED
        if "gamma" in feed:
            return MAIN
        return BUDGET if "budget" in feed else DEFAULT_GAMMA


class LiteRTArtifact(Artifact):
    """A TFLite file in LiteRT, on one thread.

    Args:
        path: File to load.
        batched: Whether to run the signature `batch`, for a static number of
            examples, instead of those for one example.
    """

    def __init__(self, path: str | os.PathLike, batched: bool = False) -> None:
        litert = importlib.import_module("ai_edge_litert.interpreter")
        self._open = lambda: litert.Interpreter(str(path), num_threads=1)
        interpreter = self._open()
        self._unused: Any = interpreter  # For the first that runs.
        self._signatures = interpreter.get_signature_list()
        self._batched = batched
        self.batch_size = 1
        if batched:
            runner = interpreter.get_signature_runner(BATCH)
            first = next(iter(runner.get_input_details().values()))
            self.batch_size = int(first["shape"][0])

    def callers(self, feeds: Sequence[Feed]) -> list[Callable[[], Any]]:
        # A Python runner allocates again at each call; other languages set the
        # inputs of one interpreter and invoke it. All feeds share one, as in an
        # application: the weights of another would not be in the cache.
        runner = self._runner(feeds[0])
        runner(**feeds[0])
        wrapper, subgraph = runner._interpreter_wrapper, runner._subgraph_index
        if len(feeds) == 1:
            return [functools.partial(wrapper.Invoke, subgraph)]

        def call(feed: Feed) -> None:
            for name, value in feed.items():
                wrapper.SetTensor(runner._inputs[name], value, subgraph)
            wrapper.Invoke(subgraph)

        return [functools.partial(call, feed) for feed in feeds]

    def run(self, feed: Feed) -> Outputs:
        rows = len(next(iter(feed.values())))
        runner = self._runner(feed)
        starts = range(0, rows, self.batch_size)
        outputs = [
            runner(**{k: self._batch(v, start) for k, v in feed.items()})
            for start in starts
        ]
        return {
            name: np.concatenate([batch[name] for batch in outputs])[:rows]
            for name in outputs[0]
        }

    def _batch(self, values: np.ndarray, start: int) -> np.ndarray:
        """`batch_size` rows from `start` on; the last row fills the end."""
        rows = np.arange(start, start + self.batch_size)
        return values[np.minimum(rows, len(values) - 1)]

    def _runner(self, feed: Feed) -> Any:
        """The runner of the signature with exactly these inputs."""
        interpreter, self._unused = self._unused or self._open(), None
        if self._batched:
            return interpreter.get_signature_runner(BATCH)
        name = next(
            name
            for name, tensors in self._signatures.items()
            if set(tensors["inputs"]) == set(feed) and name != BATCH
        )
        return interpreter.get_signature_runner(name)


class OnnxArtifact(Artifact):
    """An ONNX file in ONNX Runtime."""

    batch_size = 32

    def __init__(self, path: str | os.PathLike) -> None:
        onnxruntime = importlib.import_module("onnxruntime")
        options = onnxruntime.SessionOptions()
        # Threads spin while a call lasts, as they do by default, but not after
        # it, when they would take cores from what runs next.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        self._session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        self._names = [output.name for output in self._session.get_outputs()]
        steering = [i for i in self._session.get_inputs() if i.name in STEER_BY]
        self._columns = {i.name: i.shape[1:] for i in steering}

    def callers(self, feeds: Sequence[Feed]) -> list[Callable[[], Any]]:
        return [
            functools.partial(self._session.run, None, self._complete(feed))
            for feed in feeds
        ]

    def _complete(self, feed: Feed) -> dict[str, np.ndarray]:
        """The feed, with NaN, for the default, if nothing in it steers."""
        default = {
            name: np.full([1, *columns], np.nan, np.float32)
            for name, columns in self._columns.items()
        }
        return default | dict(feed)

    def run(self, feed: Feed) -> Outputs:
        return dict(zip(self._names, self.caller(feed)(), strict=True))


_CLASSES: dict[str, Callable[[Any], Artifact]] = {
    "tf_saved_model": SavedModelArtifact,
    "tflite": LiteRTArtifact,
    "onnx": OnnxArtifact,
}


def on_cpu() -> contextlib.AbstractContextManager:
    """A scope for results to compare; a GPU multiplies less exactly."""
    return tf.device("/CPU:0")


def _tensors(feed: Feed) -> dict[str, tf.Tensor]:
    return {name: tf.constant(value) for name, value in feed.items()}


def open_artifact(path: str | os.PathLike, format: str) -> Artifact:
    """Loads an artifact in the runtime of its format.

    Raises:
        ImportError: If the runtime is missing; the error names the extra.
    """
    try:
        return _CLASSES[format](path)
    except ModuleNotFoundError as error:
        raise ImportError(
            f"To run format {format!r} needs {error.name}: "
            "`pip install '.[export]'` in a clone."
        ) from error


def size_in_bytes(path: str | os.PathLike) -> int:
    """Size of a file, or of all files in a folder."""
    path = pathlib.Path(path)
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
