"""Training speed against plain Keras on the same modules, side by side.

python benchmarks/training_speed.py [--rounds=7] [--output=FILE.json]

Keras trains the dense equivalent: every module on every example, without a
controller; the mean of their logits is the output. And what is active: one
module alone. The first table is of Wide-MNIST's two modules, by batch size and
with XLA or without, where the claim is the ratio of the fastest setting of
each; the next are of m equal, wide modules, of each routing and of estimators;
the last tells where the time of a step goes. All speeds are medians of rounds
in which every model of a table has its turn, relative to one of them.
"""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags

import composer_tf as ct
from composer_tf import datasets, models
from composer_tf.exporters.verification import interleaved_seconds
from composer_tf.static_networks import counterparts
from composer_tf.workdir import write_json

_ROUNDS = flags.DEFINE_integer("rounds", 7, "Rounds that are timed.")
_OUTPUT = flags.DEFINE_string("output", None, "JSON file to write.")

_BATCH_SIZES = (32, 128, 512)
_NUM_MODULES = (2, 4, 8, 16, 32, 64)
_NUM_WIDE = 16
_UNITS = 512
_NUM_STEPS = 20
_BATCH_SIZE = 128
_ROUTINGS = ("dense", "partition", "scatter")
_SHAPE = (28, 56, 1)

Speeds = dict[str, float]
Call = Callable[[], object]


def wide(num_modules: int, **options: Any) -> ct.Composer:
    """Equal modules of one wide layer each; `options` are the Composer's."""
    layers = keras.layers
    modules = [
        keras.Sequential(
            [layers.Flatten(), layers.Dense(_UNITS, "relu"), layers.Dense(20)]
        )
        for _ in range(num_modules)
    ]
    return ct.Composer(
        stem=layers.Rescaling(1.0 / 255.0),
        metalayers=[ct.Metalayer(modules)],
        controller=ct.RNNController(units=16),
        preferences=[ct.GlimpsePreference(ct.Uniform(-4.0, 6.0))],
        seed=0,
        **options,
    )


def dense_equivalent(composer: ct.Composer) -> keras.Model:
    """Plain Keras: the same stem and modules, all trained on all examples."""
    image = keras.Input(_SHAPE, dtype="uint8")
    assert composer.stem is not None
    features = composer.stem(image)
    logits = [module(features) for module in composer.routed_layers[0].modules]
    return keras.Model(image, keras.layers.Average()(logits))


def active_equivalent(composer: ct.Composer) -> keras.Model:
    """Plain Keras: what runs for an example, the dearest module alone."""
    composer.build((None, *_SHAPE))
    dearest = composer.cost_table.dearest
    return counterparts.path_network(composer, dearest)


def training(model: Any, data: tf.data.Dataset, jit_compile: bool) -> Call:
    """A function that trains for an epoch; its first call compiles it."""
    model.compile(
        optimizer="adam",
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        steps_per_execution=len(data),
        jit_compile=jit_compile or "auto",  # Keras: no XLA on CPUs.
    )
    return lambda: model.fit(data, shuffle=False, verbose=0)


def relative_speeds(calls: Mapping[str, Call], unit: str) -> Speeds:
    """Medians of calls per second in turns, relative to those of `unit`."""
    seconds = interleaved_seconds(calls, _ROUNDS.value, round_seconds=0.0)
    return {name: seconds[unit] / taken for name, taken in seconds.items()}


def random_data(batch_size: int = _BATCH_SIZE) -> tf.data.Dataset:
    """Images and labels that are in memory."""
    random = np.random.default_rng(0)
    size = _NUM_STEPS * batch_size
    images = random.integers(0, 256, [size, *_SHAPE], np.uint8)
    labels = random.integers(0, 20, size)
    return datasets.batches(images, labels, batch_size)


def wide_mnist(batch_size: int) -> Speeds:
    """Speeds of Wide-MNIST on the digits data, over Keras' fastest setting."""
    (data,) = datasets.load(
        "wide_mnist/digits", batch_size, splits=("train",), passes=10
    )
    calls = {}
    for setting, jit_compile in (("xla", True), ("graph", False)):
        for name, make in (
            ("composer", lambda composer: composer),
            ("dense keras", dense_equivalent),
            ("active keras", active_equivalent),
        ):
            model = make(models.WideMnist().build(seed=0))
            calls[f"{name}, {setting}"] = training(model, data, jit_compile)
    speeds = relative_speeds(calls, "dense keras, xla")
    best = max(speeds["dense keras, xla"], speeds["dense keras, graph"])
    speeds = {name: speed / best for name, speed in speeds.items()}
    fastest = max(speeds["composer, xla"], speeds["composer, graph"])
    return {**speeds, "composer / dense keras, fastest of each": fastest}


def by_modules(num_modules: int) -> Speeds:
    """Speeds with m wide modules, over the dense equivalent."""
    data = random_data()
    calls = {
        name: training(make(wide(num_modules)), data, jit_compile=False)
        for name, make in (
            ("composer", lambda composer: composer),
            ("dense keras", dense_equivalent),
            ("active keras", active_equivalent),
        )
    }
    return relative_speeds(calls, "dense keras")


def by_routing() -> Speeds:
    """Speeds of each routing, over computing all modules and selecting."""
    data = random_data()
    calls = {
        routing: training(wide(_NUM_WIDE, routing=routing), data, False)
        for routing in _ROUTINGS
    }
    calls["dense, xla"] = training(
        wide(_NUM_WIDE, routing="dense"), data, jit_compile=True
    )
    return relative_speeds(calls, "dense")


def by_estimator() -> Speeds:
    """Speeds with K paths for each example, over one."""
    data = random_data()
    estimators: dict[str, Any] = {
        "1 sample": "reinforce",
        "2 samples": ct.LeaveOneOut(2),
        "4 samples": ct.LeaveOneOut(4),
        "all 4 paths": "exact",
    }
    calls = {
        name: training(wide(4, estimator=estimator), data, False)
        for name, estimator in estimators.items()
    }
    return relative_speeds(calls, "1 sample")


def shares() -> dict[str, float]:
    """Shares of a step of Wide-MNIST: input pipeline, and active modules."""
    (data,) = datasets.load(
        "wide_mnist/digits", _BATCH_SIZE, splits=("train",), passes=10
    )

    @tf.function(autograph=False)
    def read() -> Any:
        return data.reduce(0, lambda count, _: count + 1)

    build = models.WideMnist().build
    network = active_equivalent(build(seed=0))
    calls = {
        "step": training(build(seed=0), data, jit_compile=False),
        "input pipeline": read,
        "network of the dearest path": training(network, data, False),
    }
    speeds = relative_speeds(calls, "step")
    return {name: 1.0 / speed for name, speed in speeds.items()}


def main(argv: list[str]) -> None:
    """Times, prints the tables and writes the JSON."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}.")
    sections: dict[str, Callable[[], dict[str, float]]] = {
        **{
            f"Wide-MNIST, batch {size}": lambda size=size: wide_mnist(size)
            for size in _BATCH_SIZES
        },
        **{
            f"{m} wide modules": lambda m=m: by_modules(m) for m in _NUM_MODULES
        },
        f"routing of {_NUM_WIDE} wide modules": by_routing,
        "paths per example, 4 wide modules": by_estimator,
        "time of a step of Wide-MNIST": shares,
    }
    report: dict[str, Any] = {"rounds": _ROUNDS.value}
    for title, measure in sections.items():
        report[title] = measure()
        print(title)
        for name, value in report[title].items():
            print(f"  {name:<42}{value:6.2f}", flush=True)
        keras.backend.clear_session()
    if _OUTPUT.value:
        write_json(report, pathlib.Path(_OUTPUT.value))


if __name__ == "__main__":
    app.run(main)
