"""Training speed against plain Keras on the same modules, side by side.

python benchmarks/training_speed.py [--rounds=7] [--output=FILE.json]

Both train the two modules of Wide-MNIST on the digits data. Keras trains them
densely, every module on every example, without a controller: the mean of their
logits is the output. Each runs in every setting below, in interleaved rounds;
the claim is the ratio of the medians of the fastest setting of each.
"""

import json
import pathlib
import statistics
import time
from typing import Any

import keras
from absl import app, flags

from composer_tf import datasets, models

_ROUNDS = flags.DEFINE_integer("rounds", 7, "Rounds that are timed.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 128, "Examples per step.")
_OUTPUT = flags.DEFINE_string("output", None, "JSON file to write.")

_SETTINGS: dict[str, Any] = {
    "xla": {"jit_compile": True},
    "graph": {"jit_compile": False},
}
_PASSES = 10


def composer() -> keras.Model:
    """The Composer of the paper's Figure 2."""
    return models.WideMnist().build(seed=0)


def dense_equivalent() -> keras.Model:
    """The same stem and modules, all trained on all examples."""
    source = models.WideMnist().build(seed=0)
    image = keras.Input((28, 56, 1), dtype="uint8")
    assert source.stem is not None
    features = source.stem(image)
    logits = [module(features) for module in source.choosing[0].modules]
    return keras.Model(image, keras.layers.Average()(logits))


def main(argv: list[str]) -> None:
    """Times, prints a table and writes the JSON."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}.")
    (data,) = datasets.load(
        "wide_mnist/digits",
        batch_size=_BATCH_SIZE.value,
        splits=("train",),
        passes=_PASSES,
    )
    contestants: dict[tuple[str, str], Any] = {}
    for name, build in (("composer", composer), ("keras", dense_equivalent)):
        for setting, options in _SETTINGS.items():
            model: Any = build()
            model.compile(
                optimizer="adam",
                loss=keras.losses.SparseCategoricalCrossentropy(
                    from_logits=True
                ),
                steps_per_execution=len(data),
                **options,
            )
            model.fit(data, verbose=0)  # Compiles.
            contestants[name, setting] = model
    rates = {key: [] for key in contestants}
    for _ in range(_ROUNDS.value):
        for key, model in contestants.items():
            start = time.perf_counter()
            model.fit(data, verbose=0)
            rates[key].append(len(data) / (time.perf_counter() - start))
    medians = {key: statistics.median(rate) for key, rate in rates.items()}
    best = {
        name: max(rate for (n, _), rate in medians.items() if n == name)
        for name in ("composer", "keras")
    }
    print(f"{'model':<10}{'setting':<8}{'relative speed':>15}")
    for (name, setting), rate in medians.items():
        print(f"{name:<10}{setting:<8}{rate / best['keras']:>15.2f}")
    ratio = best["composer"] / best["keras"]
    print(f"composer / keras, fastest setting of each: {ratio:.2f}")
    if _OUTPUT.value:
        result = {
            "ratio": ratio,
            "relative_speed": {
                " ".join(key): rate / best["keras"]
                for key, rate in medians.items()
            },
            "batch_size": _BATCH_SIZE.value,
            "rounds": _ROUNDS.value,
        }
        pathlib.Path(_OUTPUT.value).write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    app.run(main)
