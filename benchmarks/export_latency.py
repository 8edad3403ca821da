"""Cost of choosing in an artifact; unchosen modules must not run.

python benchmarks/export_latency.py [--output=DIR]

Artifacts of Composers, Wide-MNIST's and a convolutional one whose modules
differ 20-fold in cost, are timed as shipped, at the gammas that lead to the
cheapest and to the dearest path, in turns with files that hold only the modules
of that path, and with files that also hold a controller. One example of the
convolutional one is timed on larger images too, where modules have more to do.
Batches mix rows of both paths; there the reference is each path's file on its
own rows. LiteRT's files take a fixed number of rows, so each part of a batch
has a file there. Ratios to a file that computes all modules stand beside what
they would be if time were multiply-accumulates. Then the number of modules
grows; all are equal, and one is chosen.

All ratios are of times within a round: medians, with quartiles.
"""

import dataclasses
import functools
import pathlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from absl import app, flags, logging
from harness import (
    RUNTIMES,
    Spread,
    export_and_open,
    format_of,
    print_table,
    ratio,
)
from matplotlib.figure import Figure

import composer_tf as ct
from composer_tf import models
from composer_tf.exporters import RoutedModel
from composer_tf.exporters.artifacts import Artifact
from composer_tf.exporters.samples import random_inputs
from composer_tf.exporters.signatures import OVERRIDE
from composer_tf.files import write_json
from composer_tf.timing import interleaved_rounds

_OUTPUT = flags.DEFINE_string("output", None, "Folder for JSON and plot.")
_ROUNDS = flags.DEFINE_integer("rounds", 30, "Turns of each artifact.")
_RUNTIME = flags.DEFINE_multi_enum(
    "runtime", RUNTIMES, RUNTIMES, "Runtimes to measure."
)

_SPLITS = {"all cheap": 0.0, "90/10": 0.1, "even": 0.5, "all dear": 1.0}
_NUM_MODULES = (2, 4, 8, 16, 32, 64)
_CALLERS = 7
_BY_MACS = "by multiply-accumulates"

L = keras.layers
Build = Callable[[Sequence[int] | None], ct.Composer]
Ratios = dict[str, Spread | float]  # Those of times, and exact ones.


def wide_mnist(path: Sequence[int] | None) -> ct.Composer:
    """The Composer of Figure 2, or one with only one of its modules."""
    whole = models.WideMnist(costs="macs").build(seed=0)
    _prepare(whole, (None, 28, 56, 1))
    return whole if path is None else _only(whole, path)


def convolutional(path: Sequence[int] | None, pixels: int = 32) -> ct.Composer:
    """Two metalayers whose two modules differ at least 20-fold."""

    def metalayer(filters: int) -> ct.Metalayer:
        cheap = L.SeparableConv2D(filters, 3, padding="same")
        wide = [
            L.Conv2D(4 * filters, 3, padding="same", activation="relu"),
            L.Conv2D(filters, 3, padding="same"),
        ]
        return ct.Metalayer([cheap, keras.Sequential(wide)])

    whole = ct.Composer(
        stem=L.Conv2D(32, 3, padding="same", activation="relu"),
        metalayers=[
            metalayer(32),
            L.MaxPooling2D(),
            metalayer(64),
            L.GlobalAveragePooling2D(),
            L.Dense(10),
        ],
        controller=ct.RNNController(16, grid=2),
        preferences=[ct.GlimpsePreference(ct.Uniform(-4.0, 6.0))],
        costs="macs",
    )
    _prepare(whole, (None, pixels, pixels, 3))
    return whole if path is None else _only(whole, path)


_COMPOSERS: Mapping[str, tuple[Build, Sequence[int]]] = {  # And batch sizes.
    "wide_mnist": (wide_mnist, (32, 256)),
    "convolutional": (convolutional, (32, 256)),
    "larger images": (functools.partial(convolutional, pixels=64), ()),
}


def equal(num_modules: int) -> ct.Composer:
    """One metalayer of equal modules of two convolutions."""
    modules = [
        keras.Sequential(
            [
                L.Conv2D(64, 3, padding="same", activation="relu"),
                L.Conv2D(64, 3, padding="same"),
            ]
        )
        for _ in range(num_modules)
    ]
    model = ct.Composer(
        metalayers=[
            ct.Metalayer(modules),
            L.GlobalAveragePooling2D(),
            L.Dense(10),
        ],
        controller=ct.RNNController(16, grid=1),
        preferences=[ct.GlimpsePreference(ct.Uniform(-4.0, 6.0))],
    )
    _prepare(model, (None, 16, 16, 64))
    return model


def _prepare(model: ct.Composer, input_shape: Sequence[int | None]) -> None:
    """Builds it for export, with no trained weight that is 0 or 1.

    Those that are, before training, runtimes leave out.
    """
    model.build(input_shape)
    model.compile()
    rng = np.random.default_rng(0)
    for variable in model.trainable_variables:
        noise = rng.uniform(0.01, 0.02, variable.shape)
        variable.assign_add(noise * rng.choice([-1, 1], variable.shape))


def _only(whole: ct.Composer, path: Sequence[int]) -> ct.Composer:
    """A Composer that asks its controller but has one module to choose."""
    config = whole.get_config()
    left = iter(path)
    for step in config["metalayers"]:
        if step["class_name"] == "Metalayer":
            modules = step["config"]["modules"]
            step["config"]["modules"] = [modules[next(left)]]
    config["controller"].pop("build_config")  # It was for all modules.
    model = ct.Composer.from_config(config)
    _prepare(model, whole.build_shape)
    return model


def computing_all(model: RoutedModel) -> RoutedModel:
    """The same outputs, by running every module on every row and selecting."""

    def forward(inputs, gamma, choices, routing):
        return model.forward(inputs, gamma, choices, "dense")

    return dataclasses.replace(model, forward=forward)


def part_of_all(composer: ct.Composer, path: Sequence[int]) -> float:
    """Cost of a path over that of running all modules.

    Args:
        composer: Built Composer.
        path: Modules c_1, ..., c_n.
    """
    table = composer.cost_table
    chosen = [row[c] for row, c in zip(table.modules, path, strict=True)]
    shared = table.fixed + table.controller
    return (shared + sum(chosen)) / (shared + sum(map(sum, table.modules)))


class Contestants:
    """Artifacts of one Composer in one runtime."""

    def __init__(self, build: Build, runtime: str, folder: pathlib.Path):
        self._runtime = runtime
        self._folder = folder
        composer = build(None)
        format = format_of(runtime)
        whole = composer.routed_model(format=format)
        self.model = whole
        self.paths = {
            "cheap": composer.cost_table.cheapest,
            "dear": composer.cost_table.dearest,
        }
        self._models = {"routed": whole, "dense": computing_all(whole)}
        for name, path in self.paths.items():
            self._models[f"{name} alone"] = whole.alone(path)
            controlled = build(path).routed_model(format=format)
            self._models[f"{name} controlled"] = controlled
        self._parts = {
            name: part_of_all(composer, path)
            for name, path in self.paths.items()
        }
        self._artifacts: dict[pathlib.Path, Artifact] = {}

    def artifact(self, name: str, rows: int = 1) -> Artifact:
        """The artifact of a model, for batches of so many rows."""
        place, options = self._folder / name, {}
        if self._runtime == "tflite" and rows > 1:
            place, options = place / str(rows), {"batch_size": rows}
        if place not in self._artifacts:
            self._artifacts[place] = export_and_open(
                self._models[name], self._runtime, place, **options
            )
        return self._artifacts[place]

    def feed(self, rows: int, share: float | None) -> dict[str, np.ndarray]:
        """Inputs, with a gamma for each row if the share of dear is given.

        A controller that is not trained yet follows prices: the lowest gamma
        takes the dearest path, the highest the cheapest.
        """
        feed = random_inputs(self.model, rows, np.random.default_rng(0))
        if share is None:
            return feed
        (gamma,) = self.model.gammas
        dear = np.arange(rows) < round(rows * share)
        feed["gamma"] = np.where(dear, gamma.low, gamma.high).astype(np.float32)
        wanted = np.where(
            dear[:, np.newaxis], self.paths["dear"], self.paths["cheap"]
        )
        choices = self.artifact("routed", rows).run(feed)["choices"]
        np.testing.assert_array_equal(choices, wanted)
        return feed

    def single(self) -> Ratios:
        """Batch of one: time of each path over that of only its modules.

        Rounds of several callers. In LiteRT each loads its file anew: where in
        memory the weights of a small module lie is luck, and counts.
        """
        measured = [
            interleaved_rounds(self._single_callers(), _ROUNDS.value)
            for _ in range(_CALLERS)
        ]
        seconds = {
            name: np.concatenate([rounds[name] for rounds in measured])
            for name in measured[0]
        }
        ratios: Ratios = {}
        for name, part in self._parts.items():
            for what, other in (
                ("its modules", "alone"),
                ("its modules and controller", "controlled"),
                ("all modules", "dense"),
            ):
                ratios[f"{name} / {what}"] = ratio(
                    seconds[f"{name} routed"], seconds[f"{name} {other}"]
                )
            ratios[f"{name} / all modules, {_BY_MACS}"] = part
        ratios["dear alone / cheap alone"] = ratio(
            seconds["dear alone"], seconds["cheap alone"]
        )
        return ratios

    def _single_callers(self) -> dict[str, Callable[[], Any]]:
        plain = self.feed(1, None)
        default = {**plain, "gamma": np.zeros([1], np.float32)}
        callers = {}
        for name, share in (("cheap", 0.0), ("dear", 1.0)):
            steered = self.feed(1, share)
            for what, model, feed in (
                ("routed", "routed", steered),
                ("dense", "dense", steered),
                ("alone", f"{name} alone", plain),
                ("controlled", f"{name} controlled", default),
            ):
                callers[f"{name} {what}"] = self.artifact(model).caller(feed)
        return callers

    def batched(self, rows: int) -> Ratios:
        """Mixed batches: time over that of each path's modules on own rows."""
        ratios: Ratios = {}
        for split, share in _SPLITS.items():
            dear = round(rows * share)
            parts = {"cheap": rows - dear, "dear": dear}
            feed = self.feed(rows, share)
            callers = {
                name: self.artifact(name, rows).caller(feed)
                for name in ("routed", "dense")
            } | {
                name: self.artifact(f"{name} alone", count).caller(
                    self.feed(count, None)
                )
                for name, count in parts.items()
                if count
            }
            seconds = interleaved_rounds(callers, _ROUNDS.value)
            routed, dense = seconds.pop("routed"), seconds.pop("dense")
            alone = np.sum(list(seconds.values()), axis=0)
            ratios[split] = ratio(routed, alone)
            ratios[f"{split}, / all modules"] = ratio(routed, dense)
            ratios[f"{split}, / all modules, {_BY_MACS}"] = sum(
                self._parts[name] * count / rows
                for name, count in parts.items()
            )
        return ratios


def scaling(runtime: str, folder: pathlib.Path) -> dict[int, Spread]:
    """Time of m equal modules, one chosen, over that of two."""
    callers = {}
    rows = 1 if runtime == "tflite" else 32
    for m in _NUM_MODULES:
        model = equal(m).routed_model(format=format_of(runtime))
        artifact = export_and_open(
            model, runtime, folder / f"m{m}", with_override=True
        )
        feed = random_inputs(model, rows, np.random.default_rng(0))
        feed["gamma"] = np.zeros([rows], np.float32)
        feed[OVERRIDE] = np.full([rows, 1], m - 1, np.int32)
        callers[str(m)] = artifact.caller(feed)
    seconds = interleaved_rounds(callers, _ROUNDS.value)
    return {m: ratio(seconds[str(m)], seconds["2"]) for m in _NUM_MODULES}


def plot(curves: dict[str, dict[int, Spread]], path: pathlib.Path) -> None:
    """Draws the growth of time with the number of modules."""
    figure = Figure(figsize=(5, 3.5), layout="constrained")
    axes = figure.subplots()
    for runtime, ratios in curves.items():
        medians = [value["median"] for value in ratios.values()]
        axes.plot(list(ratios), medians, "o-", label=runtime)
    dense = [m / 2 for m in _NUM_MODULES]
    axes.plot(_NUM_MODULES, dense, "k--", label="all modules run")
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="modules, one chosen",
        ylabel="time over that of 2 modules",
        xticks=_NUM_MODULES,
        xticklabels=_NUM_MODULES,
        yticks=dense,
        yticklabels=[f"{m:g}" for m in dense],
    )
    axes.minorticks_off()
    axes.legend()
    figure.savefig(path, dpi=150)


def main(argv: list[str]) -> None:
    """Measures, prints and writes."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}.")
    logging.set_verbosity(logging.ERROR)
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        for name, (build, batch_sizes) in _COMPOSERS.items():
            for runtime in _RUNTIME.value:
                place = folder / name / runtime
                contestants = Contestants(build, runtime, place)
                measured: dict[str, Ratios] = {"batch 1": contestants.single()}
                for rows in batch_sizes:
                    measured[f"batch {rows}"] = contestants.batched(rows)
                for batch, ratios in measured.items():
                    print_table(f"{name}, {runtime}, {batch}", ratios)
                results[f"{name}, {runtime}"] = measured
        curves = {r: scaling(r, folder / "equal" / r) for r in _RUNTIME.value}
    for runtime, ratios in curves.items():
        named = {f"{m} modules": value for m, value in ratios.items()}
        print_table(f"equal modules, {runtime}", named)
    results["equal modules"] = curves
    if _OUTPUT.value:
        output = pathlib.Path(_OUTPUT.value)
        output.mkdir(parents=True, exist_ok=True)
        write_json(results, output / "export_latency.json")
        plot(curves, output / "export_scaling.png")


if __name__ == "__main__":
    app.run(main)
