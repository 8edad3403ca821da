"""Times of a Composer and of its alternatives on the same batches of images."""

import dataclasses
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from chains import FileTimes, Point, cascade, early_exit
from harness import FILES, export, open_for, peak_bytes, ratio

import composer_tf as ct
from composer_tf import datasets, evaluation
from composer_tf.exporters import RoutedModel
from composer_tf.exporters.artifacts import Artifact, size_in_bytes
from composer_tf.static_networks import counterparts
from composer_tf.static_networks.early_exit_network import EarlyExitNetwork
from composer_tf.timing import interleaved_rounds
from composer_tf.workdir import read_json

NUM_BATCHES = {1: 32, 32: 4, 256: 1}  # By rows of a batch.
_POOL = 1024  # Test images to choose the batches from.


class Batches:
    """Runs batches in order, and keeps the seconds of each.

    Args:
        callers: Functions that run one batch each.
    """

    def __init__(self, callers: Sequence[Callable[[], object]]) -> None:
        self._callers = callers
        self._seconds: list[float] = []

    def __call__(self) -> None:
        for call in self._callers:
            start = time.perf_counter()
            call()
            self._seconds.append(time.perf_counter() - start)

    def percentile(self, percent: float) -> float:
        """Percentile of a batch's seconds, without two runs to warm up."""
        return float(
            np.percentile(self._seconds[2 * len(self._callers) :], percent)
        )


class Measurement:
    """One format and number of rows: the files, and a batch's time in each.

    Args:
        run: Folder of the run.
        format: One of `exporters.FORMATS`.
        rows: Rows of a batch.
        folder: Folder to write the files to, or where they are.
        rounds: Number of turns of each file.
        num_gammas: Most points of the Composer.
    """

    def __init__(
        self,
        run: pathlib.Path,
        format: str,
        rows: int,
        folder: pathlib.Path,
        rounds: int,
        num_gammas: int,
    ) -> None:
        self._metrics = read_json(run / "metrics.json")
        config = read_json(run / "config.json")
        self._preference = config["evaluation"]["preference"]
        model: Any = keras.models.load_model(run / "model.keras")
        assert isinstance(model, ct.Composer)
        self._whole = model.routed_model(format=format)
        self._names = model.preferences.names
        self._defaults = model.preferences.default.numpy()
        self._format, self._folder = format, folder
        paths = [
            tuple(map(int, path.name.split("-")))
            for path in (run / "alone").iterdir()
        ]
        paths.sort(key=lambda path: counterparts.cost_of_path(model, path))
        self._alone = {"-".join(map(str, path)): path for path in paths}
        self._cheapest = "-".join(map(str, model.cost_table.cheapest))
        self._dearest = "-".join(map(str, model.cost_table.dearest))
        self._exits: Any = None
        if config["evaluation"]["early_exit"]:
            saved = run / "early_exit" / "model.keras"
            self._exits = keras.models.load_model(saved)
            assert isinstance(self._exits, EarlyExitNetwork)
        self.rows, self._rounds = rows, rounds
        # How many rows of a batch may be left for the next network.
        self._sizes = sorted({1, max(1, rows // 2), rows})
        self._images, _ = datasets.load_arrays(
            config["data"]["name"], "test", config["data"]["data_dir"] or None
        )
        line = self._metrics["lines"]["composer"]
        self._steered = evenly_spaced(line, num_gammas)
        count = NUM_BATCHES[rows]
        pool = np.random.default_rng(0).permutation(self._images)[:_POOL]
        chosen = typical(
            self._costs(model, pool),
            np.array([point["cost"] for point in self._steered]),
            count * rows,
        )
        ((self._input, spec),) = self._whole.inputs.items()
        self._batches = (
            pool[chosen]
            .reshape([count, rows, *pool.shape[1:]])
            .astype(spec.dtype.as_numpy_dtype)
        )
        # The files that a method needs, and the inputs of each.
        self._files: dict[str, dict[str, np.ndarray]] = {
            "composer": {"composer": self._batches},
            "cascade": dict.fromkeys(
                (self._cheapest, self._dearest), self._batches
            ),
            **{name: {name: self._batches} for name in self._alone},
        }

    def _costs(self, model: ct.Composer, images: np.ndarray) -> np.ndarray:
        """Cost of each image at the gamma of each point, float32 `[G, N]`."""
        labels = np.zeros(len(images), np.int64)  # Not used.
        recorder = evaluation.Recorder(model, (images, labels))
        return np.stack(
            [
                recorder.at({self._preference: point["gamma"]}).cost
                for point in self._steered
            ]
        )

    def measure(self) -> dict[str, Any]:
        """Measures the points of each method, and the sizes of its files."""
        callers = self._callers(self._steered)
        seconds = interleaved_rounds(callers, self._rounds)
        unit = seconds[f"{self._dearest} {self.rows}"]
        ratios = {name: ratio(each, unit) for name, each in seconds.items()}
        medians = {name: each["median"] for name, each in ratios.items()}
        unit_of_batch = float(np.median(unit)) / len(self._batches)
        slow = {
            name: each.percentile(95) / unit_of_batch
            for name, each in callers.items()
        }

        times = FileTimes(self._sizes, medians, slow)
        lines = self._metrics["lines"]

        def timed(name: str) -> Point:
            return {
                "time": medians[name],
                "quartiles": ratios[name]["quartiles"],
                "95th percentile": slow[name],
            }

        return {
            "composer": [
                {**point, **timed(f"composer {i}")}
                for i, point in enumerate(self._steered)
            ],
            "alone": [
                {**self._static(name), **timed(f"{name} {self.rows}")}
                for name in self._alone
            ],
            "cascade": cascade(
                lines["cascade"], self._cheapest, self._dearest, times
            ),
            "early_exit": []
            if self._exits is None
            else early_exit(lines["early_exit"], self._confidence(), times),
            "bytes": {
                method: sum(size_in_bytes(self._place(name)) for name in files)
                for method, files in self._files.items()
            },
            "peak_bytes": {
                method: self._peak_bytes(files)
                for method, files in self._files.items()
            },
        }

    def _callers(self, steered: Sequence[Point]) -> dict[str, Batches]:
        """The Composer at each gamma, and each file on each number of rows."""
        routed = self._artifact(self._whole, "composer", self.rows)
        callers = {
            f"composer {i}": self._run(routed, self._batches, point["gamma"])
            for i, point in enumerate(steered)
        }
        for name, path in self._alone.items():
            callers |= self._by_rows(self._whole.alone(path), name)
        return callers | self._stage_callers()

    def _by_rows(
        self, model: RoutedModel, name: str, batches: np.ndarray | None = None
    ) -> dict[str, Batches]:
        """Callers of a file on each number of rows that may reach it."""
        batches = self._batches if batches is None else batches
        return {
            f"{name} {rows}": self._run(
                self._artifact(model, name, rows), batches[:, :rows]
            )
            for rows in self._sizes
        }

    def _artifact(self, model: RoutedModel, name: str, rows: int) -> Artifact:
        """The file of a model, which is written unless it is there."""
        place = self._place(name, rows)
        if not place.exists():
            fixed = self._format == "tflite" and rows > 1
            options = {"batch_size": rows} if fixed else {}
            export(model, self._format, place.parent, **options)
        return open_for(rows, place, self._format)

    def _place(self, name: str, rows: int | None = None) -> pathlib.Path:
        folder = self._folder / name
        if self._format == "tflite":  # Each number of rows is a file.
            folder /= str(rows or self.rows)
        return folder / FILES[self._format]

    def _peak_bytes(self, files: Mapping[str, np.ndarray]) -> int:
        """Memory of a method's files, after the dearest network has run."""

        def fed(name: str, batches: np.ndarray) -> Any:
            gamma = 0.0 if name == "composer" else None
            return self._place(name), self._feed(batches[0], gamma)

        warm_up = fed(self._dearest, self._batches)
        artifacts = [fed(name, batches) for name, batches in files.items()]
        return peak_bytes(artifacts, warm_up, self._format)

    def _static(self, name: str) -> Point:
        """Cost and accuracy of a network that was trained alone."""
        numbers = self._metrics["summary"]
        return {
            field: numbers[f"alone/{name}/{field}"]
            for field in ("cost", "accuracy")
        }

    def _stage_callers(self) -> dict[str, Batches]:
        """Callers of each stage between exits, on the activations it takes."""
        if self._exits is None:
            return {}
        callers, batches = {}, self._batches
        stages = self._files["early_exit"] = {}
        for i, stage in enumerate(self._exits.stages):
            spec = tf.TensorSpec([None, *batches.shape[2:]], batches.dtype)
            model = dataclasses.replace(
                self._whole.alone(()),
                forward=_forward(stage, self._input),
                inputs={self._input: spec},
                variables=[v.value for v in stage.variables],
            )
            stages[f"exit_{i}"] = batches
            callers |= self._by_rows(model, f"exit_{i}", batches)
            batches = np.stack([stage(batch)[0] for batch in batches])
        return callers

    def _confidence(self) -> np.ndarray:
        """Confidence of each exit on each test image, float32 `[N, exits]`."""
        logits = self._exits.predict(self._images, batch_size=1000, verbose=0)
        return tf.nn.softmax(logits).numpy().max(axis=-1)

    def _run(
        self,
        artifact: Artifact,
        batches: np.ndarray,
        gamma: float | None = None,
    ) -> Batches:
        """Runs the batches in order."""
        return Batches(
            artifact.callers([self._feed(batch, gamma) for batch in batches])
        )

    def _feed(
        self, batch: np.ndarray, gamma: float | None
    ) -> dict[str, np.ndarray]:
        """A batch, and for all rows the gamma that is varied, if any."""
        feed = {self._input: batch}
        if gamma is not None:
            columns = np.array(self._defaults)
            columns[self._names.index(self._preference)] = gamma
            rows = np.repeat(columns[np.newaxis], len(batch), axis=0)
            feed["gamma"] = rows[:, 0] if rows.shape[1] == 1 else rows
        return feed


def evenly_spaced(line: Sequence[Point], most: int) -> list[Point]:
    """At most so many points of a curve, of roughly evenly spaced costs."""
    costs = np.array([point["cost"] for point in line])
    wanted = np.linspace(costs.min(), costs.max(), most)
    nearest = {int(np.argmin(np.abs(costs - cost))) for cost in wanted}
    return [line[i] for i in sorted(nearest)]


def typical(
    costs: np.ndarray, wanted: np.ndarray, size: int, draws: int = 1000
) -> np.ndarray:
    """Examples that stand for a whole data set: of its mean cost at each gamma.

    The best of many random draws. In one draw of 32 the share of the dear
    module is off by 0.09, and so are a Composer's times.

    Args:
        costs: float `[G, N]`, of each example at each gamma.
        wanted: float `[G]`, mean cost of the whole data set.
        size: Number of examples.
        draws: Number of draws.

    Returns:
        int `[size]`, indices of examples, in random order.
    """
    random = np.random.default_rng(0)
    return min(
        (random.permutation(costs.shape[1])[:size] for _ in range(draws)),
        key=lambda some: np.abs(costs[:, some].mean(axis=1) - wanted).max(),
    )


def _forward(stage: keras.layers.Layer, name: str) -> Any:
    def forward(inputs, gamma, choices, routing):
        activations, logits = stage(inputs[name], training=False)
        return {"activations": activations, "logits": logits}

    return forward
