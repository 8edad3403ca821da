"""Accuracy against measured time: a Composer and its alternatives.

python benchmarks/accuracy_latency.py --run=DIR [--output=FOLDER]

DIR is a finished run of `python -m composer_tf` whose config trains the
cheapest and the dearest path alone. Real test images go through the Composer's
artifact, at gammas of roughly evenly spaced costs, and through the artifacts of
single paths' networks, all in turns. Accuracies are the run's, over its whole
test split. The alternatives are static networks, one file each, between which
the application switches, and the cascade of the cheapest and the dearest. If
the run trained a network with early exits, each of its stages is a file too,
and each stage passes on the mean number of rows that are not sure yet. Time is
relative to the dearest network's of the same round: median and quartiles, and
the 95th percentile over single batches. Where a batch goes through several
files, that is of the 95th percentile of rows that reach a file, as if rows were
independent. Memory is the peak while files are loaded and run.
"""

import dataclasses
import pathlib
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags, logging
from harness import FILES, export_and_open, peak_bytes, ratio, shown
from matplotlib.figure import Figure

import composer_tf as ct
from composer_tf import datasets, evaluation
from composer_tf.exporters.artifacts import Artifact, size_in_bytes
from composer_tf.exporters.verification import interleaved_rounds
from composer_tf.static_networks import counterparts
from composer_tf.static_networks.early_exit_network import EarlyExitNetwork
from composer_tf.workdir import read_json, write_json

_RUN = flags.DEFINE_string("run", None, "Folder of a finished run.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder for JSON and picture.")
_ROUNDS = flags.DEFINE_integer("rounds", 15, "Turns of each artifact.")
_NUM_GAMMAS = flags.DEFINE_integer(
    "gammas", 9, "Points of the Composer, at most."
)

_BATCHES = {"tflite": (32, 1), "tf_saved_model": (4, 32), "onnx": (4, 32)}

Point = dict[str, Any]


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
    """One format: the files, and the time of a batch in each.

    Args:
        run: Folder of the run.
        format: One of `exporters.FORMATS`.
        folder: Folder to write the files to.
    """

    def __init__(
        self, run: pathlib.Path, format: str, folder: pathlib.Path
    ) -> None:
        self._metrics = read_json(run / "metrics.json")
        config = read_json(run / "config.json")
        self._preference = config["evaluation"]["preference"]
        model: Any = keras.models.load_model(run / "model.keras")
        assert isinstance(model, ct.Composer)
        self._whole = model.routed_model()
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
        count, self.rows = _BATCHES[format]
        # How many rows of a batch may be left for the next network.
        self._sizes = sorted({1, max(1, self.rows // 2), self.rows})
        self._images, _ = datasets.load_arrays(
            config["data"]["name"], "test", config["data"]["data_dir"] or None
        )
        chosen = np.random.default_rng(0).permutation(len(self._images))
        ((self._input, spec),) = self._whole.inputs.items()
        self._batches = (
            self._images[chosen[: count * self.rows]]
            .reshape([count, self.rows, *self._images.shape[1:]])
            .astype(spec.dtype.as_numpy_dtype)
        )

    def measure(self) -> dict[str, Any]:
        """Measures the points of each method, and the sizes of the files."""
        steered = self._steered()
        callers = self._callers(steered)
        seconds = interleaved_rounds(callers, _ROUNDS.value)
        unit = seconds[f"{self._dearest} {self.rows}"]
        ratios = {name: ratio(each, unit) for name, each in seconds.items()}
        times = {name: each["median"] for name, each in ratios.items()}
        unit_of_batch = float(np.median(unit)) / len(self._batches)
        slow = {
            name: each.percentile(95) / unit_of_batch
            for name, each in callers.items()
        }

        def timed(name: str) -> Point:
            return {
                "time": times[name],
                "quartiles": ratios[name]["quartiles"],
                "95th percentile": slow[name],
            }

        return {
            "rows": self.rows,
            "composer": [
                {**point, **timed(f"composer {i}")}
                for i, point in enumerate(steered)
            ],
            "alone": [
                {**self._static(name), **timed(f"{name} {self.rows}")}
                for name in self._alone
            ],
            "cascade": self._cascade(times, slow),
            "early_exit": self._early_exit(times, slow),
            "bytes": {
                name: size_in_bytes(self._folder / name)
                for name in ("composer", *self._alone)
            },
            "peak_bytes": self._peak_bytes(),
        }

    def _callers(self, steered: Sequence[Point]) -> dict[str, Batches]:
        """The Composer at each gamma, and each file on each number of rows."""
        routed = self._export(self._whole, "composer")
        callers = {
            f"composer {i}": self._run(routed, self._batches, point["gamma"])
            for i, point in enumerate(steered)
        }
        for name, path in self._alone.items():
            artifact = self._export(self._whole.alone(path), name)
            for rows in self._sizes:
                batches = self._batches[:, :rows]
                callers[f"{name} {rows}"] = self._run(artifact, batches)
        return callers | self._stage_callers()

    def _peak_bytes(self) -> dict[str, int]:
        """Memory of the Composer, and of two networks to switch between."""
        choices = {
            "composer": ["composer"],
            "cheapest and dearest network": [self._cheapest, self._dearest],
        }
        feed = {self._input: self._batches[0]}

        def place(name: str) -> pathlib.Path:
            return self._folder / name / FILES[self._format]

        return {
            choice: peak_bytes(
                list(map(place, names)),
                place(self._dearest),
                self._format,
                feed,
            )
            for choice, names in choices.items()
        }

    def _steered(self) -> list[Point]:
        """Points of the Composer's curve with roughly evenly spaced costs."""
        line = self._metrics["lines"]["composer"]
        costs = np.array([point["cost"] for point in line])
        wanted = np.linspace(costs.min(), costs.max(), _NUM_GAMMAS.value)
        nearest = {int(np.argmin(np.abs(costs - cost))) for cost in wanted}
        return [line[i] for i in sorted(nearest)]

    def _static(self, name: str) -> Point:
        """Cost and accuracy of a network that was trained alone."""
        numbers = self._metrics["summary"]
        return {
            field: numbers[f"alone/{name}/{field}"]
            for field in ("cost", "accuracy")
        }

    def _cascade(
        self, times: dict[str, float], slow: dict[str, float]
    ) -> list[Point]:
        """The cheap network on all rows, the dear one on those it is unsure of.

        A batch leaves the dear network the mean number of such rows.
        """
        line = self._metrics["lines"]["cascade"]
        cheap, dear = line[0]["cost"], line[-1]["cost"] - line[0]["cost"]
        points = []
        for point in line:
            unsure = float(np.clip((point["cost"] - cheap) / dear, 0.0, 1.0))
            shares = {self._cheapest: 1.0, self._dearest: unsure}
            points.append({**point, **self._in_turn(shares, times, slow)})
        return points

    def _in_turn(
        self,
        shares: dict[str, float],
        times: dict[str, float],
        slow: dict[str, float],
    ) -> Point:
        """Time of a batch that goes through several files.

        The 95th percentile is an upper bound: the sum over files of that of the
        time, on the 95th percentile of the rows that reach the file.

        Args:
            shares: Share of a batch's rows that reaches each file, on average.
            times: Median time of each file on each number of rows.
            slow: The 95th percentiles.
        """
        random = np.random.default_rng(0)
        most = {
            name: float(
                np.percentile(random.binomial(self.rows, share, 10_000), 95)
            )
            for name, share in shares.items()
        }
        return {
            "time": sum(
                self._time(name, share, times) for name, share in shares.items()
            ),
            "95th percentile": sum(
                self._time(name, rows / self.rows, slow)
                for name, rows in most.items()
            ),
        }

    def _time(self, name: str, share: float, times: dict[str, float]) -> float:
        """Time of a file on a share of a batch; 0 for a share of 0."""
        measured = [0.0, *(times[f"{name} {rows}"] for rows in self._sizes)]
        at = [0, *self._sizes]
        return float(np.interp(share * self.rows, at, measured))

    def _stage_callers(self) -> dict[str, Any]:
        """Callers of each stage between exits, on the activations it takes."""
        if self._exits is None:
            return {}
        callers, batches = {}, self._batches
        for i, stage in enumerate(self._exits.stages):
            spec = tf.TensorSpec([None, *batches.shape[2:]], batches.dtype)
            model = dataclasses.replace(
                self._whole.alone(()),
                forward=_forward(stage, self._input),
                inputs={self._input: spec},
                variables=[v.value for v in stage.variables],
            )
            artifact = self._export(model, f"exit_{i}")
            for rows in self._sizes:
                callers[f"exit_{i} {rows}"] = self._run(
                    artifact, batches[:, :rows]
                )
            batches = np.stack([stage(batch)[0] for batch in batches])
        return callers

    def _early_exit(
        self, times: dict[str, float], slow: dict[str, float]
    ) -> list[Point]:
        """Points with each stage timed on the rows not sure before it."""
        if self._exits is None:
            return []
        logits = self._exits.predict(self._images, batch_size=1000, verbose=0)
        confidence = tf.nn.softmax(logits).numpy().max(axis=-1)
        points = []
        for point in self._metrics["lines"]["early_exit"]:
            taken = evaluation.exits_taken(confidence, point["gamma"])
            shares = {
                f"exit_{i}": float(np.mean(taken >= i))
                for i in range(confidence.shape[1])
            }
            points.append({**point, **self._in_turn(shares, times, slow)})
        return points

    def _run(
        self,
        artifact: Artifact,
        batches: np.ndarray,
        gamma: float | None = None,
    ) -> Batches:
        """Runs the batches in order."""
        feeds: list[dict[str, np.ndarray]] = []
        for batch in batches:
            feed = {self._input: batch}
            if gamma is not None:
                columns = np.array(self._defaults)
                columns[self._names.index(self._preference)] = gamma
                rows = np.repeat(columns[np.newaxis], len(batch), axis=0)
                feed["gamma"] = rows[:, 0] if rows.shape[1] == 1 else rows
            feeds.append(feed)
        return Batches(artifact.callers(feeds))

    def _export(self, model: Any, name: str) -> Artifact:
        return export_and_open(model, self._format, self._folder / name)


def _forward(stage: keras.layers.Layer, name: str) -> Any:
    def forward(inputs, gamma, choices, routing):
        activations, logits = stage(inputs[name], training=False)
        return {"activations": activations, "logits": logits}

    return forward


def plot(results: dict[str, Any], path: pathlib.Path) -> None:
    """Draws accuracy against time for each format."""
    figure = Figure(figsize=(4 * len(results), 3.5), layout="constrained")
    all_axes = np.atleast_1d(figure.subplots(1, len(results), sharey=True))
    for axes, (format, result) in zip(all_axes, results.items(), strict=True):
        for method, style in (
            ("composer", "o-"),
            ("cascade", "--"),
            ("early_exit", "-."),
            ("alone", "s"),
        ):
            points = sorted(result[method], key=lambda point: point["time"])
            axes.plot(
                [point["time"] for point in points],
                [point["accuracy"] for point in points],
                style,
                label=method,
            )
        axes.set(
            title=f"{format}, batch {result['rows']}",
            xlabel="time over that of the dearest network",
        )
    all_axes[0].set(ylabel="accuracy")
    all_axes[0].legend()
    figure.savefig(path, dpi=150)


def main(argv: list[str]) -> None:
    """Measures, prints and writes."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}.")
    logging.set_verbosity(logging.ERROR)
    results = {}
    with tempfile.TemporaryDirectory() as name:
        for format in FILES:
            place = pathlib.Path(name) / format
            result = Measurement(pathlib.Path(_RUN.value or ""), format, place)
            results[format] = result.measure()
            print(f"\n{format}, batch {results[format]['rows']}")
            for method in ("composer", "alone"):
                for point in results[format][method]:
                    time_of_all = shown(
                        {
                            "median": point["time"],
                            "quartiles": point["quartiles"],
                        }
                    )
                    print(
                        f"{method:<10}time {time_of_all:<20}"
                        f"95th percentile {point['95th percentile']:5.2f}  "
                        f"accuracy {point['accuracy']:.4f}",
                        flush=True,
                    )
    if _OUTPUT.value:
        output = pathlib.Path(_OUTPUT.value)
        output.mkdir(parents=True, exist_ok=True)
        write_json(results, output / "accuracy_latency.json")
        plot(results, output / "accuracy_latency.png")


if __name__ == "__main__":
    flags.mark_flag_as_required("run")
    app.run(main)
