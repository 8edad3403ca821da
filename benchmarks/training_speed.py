"""Training speed against plain Keras on the same modules, side by side.

python benchmarks/training_speed.py [--rounds=7] [--output=FILE.json]

Keras trains the dense equivalent: every module on every example, without a
controller; the mean of their logits is the output. And what is active: one
module alone. The first tables are of Wide-MNIST's two modules, by batch size,
the next of equal, wide modules, by their number and by batch size. Without XLA
the Composer has it for its update of many weights only. In both the claim is
the ratio of the fastest settings of Composer and dense Keras. Then come each
routing and estimators; the last table tells where the time of a step goes. All
numbers are medians, with quartiles, of the ratios within a round, in which
every model of a table has its turn.
"""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags
from harness import Spread, print_table, ratio, shown
from pictures import draw

import composer_tf as ct
from composer_tf import datasets, models
from composer_tf.files import write_json
from composer_tf.timing import interleaved_rounds

_ROUNDS = flags.DEFINE_integer("rounds", 7, "Rounds that are timed.")
_OUTPUT = flags.DEFINE_string(
    "output", None, "JSON file to write, with a picture beside it."
)

_BATCH_SIZE = 128
_BATCH_SIZES = (32, _BATCH_SIZE, 512)
_NUM_MODULES = (2, 4, 8, 16, 32, 64)
_NUM_WIDE = 16
_UNITS = 512
_NUM_STEPS = 20
_ROUTINGS = ("dense", "partition", "scatter", "branch")
_SHAPE = (28, 56, 1)

_STEP = "time of a step of Wide-MNIST"
_PIPELINE = "input pipeline, beside the step"
_MODULES = "routed modules and their update"
_CONTROLLER = "controller and its gradient"

Speeds = dict[str, Spread]
Rounds = Mapping[str, np.ndarray]  # Seconds of each round, by name.
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
    layers = composer.layers_along(composer.cost_table.dearest)
    return keras.Sequential([keras.Input(_SHAPE, dtype="uint8"), *layers])


def training(model: Any, data: tf.data.Dataset, jit_compile: bool) -> Call:
    """A function that trains for an epoch; its first call compiles it."""
    model.compile(
        optimizer="adam",
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        steps_per_execution=len(data),
        jit_compile=jit_compile or "auto",  # Keras: no XLA on CPUs.
    )
    return lambda: model.fit(data, shuffle=False, verbose=0)


def timed(calls: Mapping[str, Call]) -> Rounds:
    """Seconds of one call of each, in every round."""
    return interleaved_rounds(calls, _ROUNDS.value, round_seconds=0.0)


def relative_speeds(seconds: Rounds, unit: str) -> Speeds:
    """Calls per second, relative to those of `unit`."""
    return {
        name: ratio(seconds[unit], taken) for name, taken in seconds.items()
    }


def fastest(seconds: Rounds, *names: str) -> str:
    """The name with the smallest median."""
    return min(names, key=lambda name: np.median(seconds[name]))


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
    seconds = timed(calls)
    dense = fastest(seconds, "dense keras, xla", "dense keras, graph")
    speeds = relative_speeds(seconds, dense)
    composer = fastest(seconds, "composer, xla", "composer, graph")
    return {
        **speeds,
        "composer / dense keras, fastest of each": speeds[composer],
    }


def wide_modules(num_modules: int, batch_size: int) -> Speeds:
    """Speeds with m wide modules, over the dense equivalent."""
    data = random_data(batch_size)
    calls = {
        name: training(make(wide(num_modules)), data, jit_compile)
        for name, make, jit_compile in (
            ("composer", lambda composer: composer, False),
            ("composer with XLA", lambda composer: composer, True),
            ("dense keras", dense_equivalent, False),
            ("dense keras with XLA", dense_equivalent, True),
            ("active keras", active_equivalent, False),
        )
    }
    seconds = timed(calls)
    composer, dense = (
        fastest(seconds, name, f"{name} with XLA")
        for name in ("composer", "dense keras")
    )
    return {
        **relative_speeds(seconds, "dense keras"),
        "composer / dense keras, faster of each": ratio(
            seconds[dense], seconds[composer]
        ),
    }


def by_routing(make: Callable[[str], ct.Composer]) -> Speeds:
    """Speeds of each routing, over computing all modules and selecting.

    Args:
        make: Function that makes a Composer with a routing.
    """
    data = random_data()
    calls = {
        routing: training(make(routing), data, jit_compile=False)
        for routing in _ROUTINGS
    }
    calls["dense, xla"] = training(make("dense"), data, jit_compile=True)
    return relative_speeds(timed(calls), "dense")


def small(routing: str) -> ct.Composer:
    """Wide-MNIST's Composer, whose two modules are small."""
    config = models.WideMnist().build(seed=0).get_config()
    return ct.Composer.from_config({**config, "routing": routing})


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
    return relative_speeds(timed(calls), "1 sample")


class GivenChoices(keras.Model):
    """A Composer of one metalayer without its controller.

    Its rows take the modules in turns, by the Composer's routing.
    """

    def __init__(self, composer: ct.Composer) -> None:
        super().__init__(autocast=False)
        assert composer.stem is not None
        self.stem = composer.stem
        (self.metalayer,) = composer.routed_layers

    def call(self, inputs: Any, training: bool | None = None) -> tf.Tensor:
        choices = tf.range(tf.shape(inputs)[0]) % self.metalayer.num_modules
        return self.metalayer(self.stem(inputs), choices, training=training)


def shares() -> Speeds:
    """Shares of a step of Wide-MNIST, and the dearest path's network."""
    (data,) = datasets.load(
        "wide_mnist/digits", _BATCH_SIZE, splits=("train",), passes=10
    )

    @tf.function(autograph=False)
    def read() -> Any:
        return data.reduce(0, lambda count, _: count + 1)

    build = models.WideMnist().build
    networks = {
        "step": build(seed=0),
        "choices given": GivenChoices(build(seed=0)),
        "network of the dearest path": active_equivalent(build(seed=0)),
    }
    calls: dict[str, Call] = {
        name: training(model, data, jit_compile=False)
        for name, model in networks.items()
    }
    return shares_of_step(timed({**calls, _PIPELINE: read}))


def shares_of_step(seconds: Rounds) -> Speeds:
    """Two shares that make up the step, and what else takes alone.

    That of the modules includes what Keras does in any `fit`. The pipeline runs
    beside the step, so its time is part of neither.

    Args:
        seconds: Seconds of a step, of one whose choices are given, of the input
            pipeline, and of the network of the dearest path.
    """
    step, given = seconds["step"], seconds["choices given"]
    alone = "network of the dearest path"
    return {
        _MODULES: ratio(given, step),
        _CONTROLLER: ratio(step - given, step),
        _PIPELINE: ratio(seconds[_PIPELINE], step),
        alone: ratio(seconds[alone], step),
    }


def wide_sizes() -> list[tuple[int, int]]:
    """Numbers of wide modules and batch sizes that are measured."""
    by_modules = [(m, _BATCH_SIZE) for m in _NUM_MODULES]
    by_batch = [(_NUM_WIDE, size) for size in _BATCH_SIZES]
    return list(dict.fromkeys(by_modules + by_batch))


def largest_share(shares: Speeds) -> str:
    """A sentence about what takes most of a step."""
    parts = (_MODULES, _CONTROLLER)
    name = max(parts, key=lambda part: shares[part]["median"])
    return f"The largest share of a step: {name}, {shown(shares[name])}."


def main(argv: list[str]) -> None:
    """Times, prints the tables and writes the JSON."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}.")
    sections: dict[str, Callable[[], Speeds]] = {
        **{
            f"Wide-MNIST, batch {size}": lambda size=size: wide_mnist(size)
            for size in _BATCH_SIZES
        },
        **{
            f"{m} wide modules, batch {size}": (
                lambda m=m, size=size: wide_modules(m, size)
            )
            for m, size in wide_sizes()
        },
        "routing of Wide-MNIST's modules": lambda: by_routing(small),
        f"routing of {_NUM_WIDE} wide modules": lambda: by_routing(
            lambda routing: wide(_NUM_WIDE, routing=routing)
        ),
        "paths per example, 4 wide modules": by_estimator,
        _STEP: shares,
    }
    report: dict[str, Speeds] = {}
    for title, measure in sections.items():
        report[title] = measure()
        print_table(title, report[title])
        keras.backend.clear_session()
    print(largest_share(report[_STEP]))
    if _OUTPUT.value:
        output = pathlib.Path(_OUTPUT.value)
        write_json({"rounds": _ROUNDS.value, **report}, output)
        draw(report, output.with_suffix(".png"))


if __name__ == "__main__":
    app.run(main)
