"""Growth of time and memory with each dimension of a Composer.

python benchmarks/growth.py [--rounds=3] [--output=FILE.json]

The number of modules m, of metalayers n, the batch and the modules' width grow
one at a time. Each measurement is a process of its own, in turns. It gives the
time of a training step and of a prediction, and the growth in peak resident
memory by building, training and predicting. All are relative to the smallest
of the same round; the exponent is the slope of a straight line through the
logarithms. Medians over the rounds, with quartiles.
"""

import json
import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from absl import app, flags
from harness import memory, print_table, ratio, spread
from pictures import draw

from composer_tf.files import write_json

_ROUNDS = flags.DEFINE_integer("rounds", 3, "Turns of each measurement.")
_OUTPUT = flags.DEFINE_string(
    "output", None, "JSON file to write, with a picture beside it."
)
_ONE = flags.DEFINE_list("one", None, "Measure m,n,batch,width and print it.")

_FEATURES = 256
_NUM_STEPS = 20
_QUANTITIES = ("training step", "prediction", "peak memory")


class Size(NamedTuple):
    """Modules m, metalayers n, rows of a batch, units of a module."""

    modules: int = 4
    metalayers: int = 2
    batch: int = 128
    width: int = 256


_GROWTH = {
    "modules": (2, 4, 8, 16, 32),
    "metalayers": (1, 2, 4, 8),
    "batch": (32, 128, 512, 2048),
    "width": (64, 256, 1024, 4096),
}


def measure(size: Size) -> dict[str, float]:
    """Times and memory of one Composer, in this process."""
    import keras

    import composer_tf as ct

    def module() -> keras.Model:
        dense = keras.layers.Dense
        return keras.Sequential([dense(size.width, "relu"), dense(_FEATURES)])

    def seconds(call) -> float:
        call()
        taken = []
        for _ in range(3):
            start = time.perf_counter()
            call()
            taken.append(time.perf_counter() - start)
        return statistics.median(taken)

    random = np.random.default_rng(0)
    num_rows = size.batch * _NUM_STEPS
    x = random.normal(size=[num_rows, _FEATURES]).astype(np.float32)
    y = random.integers(0, 10, num_rows)
    data = ct.datasets.batches(x, y, size.batch)
    before = memory("VmHWM")
    metalayers = [
        ct.Metalayer([module() for _ in range(size.modules)])
        for _ in range(size.metalayers)
    ]
    model = ct.Composer(
        [*metalayers, keras.layers.Dense(10)],
        preferences=[ct.GlimpsePreference(ct.Uniform(-1.0, 2.0))],
        seed=0,
    )
    model.compile(steps_per_execution=_NUM_STEPS)
    step = seconds(lambda: model.fit(data, verbose=0))
    prediction = seconds(lambda: model.predict(data, verbose=0))
    measured = (step, prediction, float(memory("VmHWM") - before))
    return dict(zip(_QUANTITIES, measured, strict=True))


def measure_apart(size: Size) -> dict[str, float]:
    """Times and memory from a new process, with a memory peak of its own."""
    one = ",".join(map(str, size))
    done = subprocess.run(
        [sys.executable, __file__, f"--one={one}"],
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    return json.loads(done.stdout.splitlines()[-1])


def exponent(
    values: Sequence[float] | np.ndarray, sizes: Sequence[int]
) -> float:
    """The exponent of the power law that fits best."""
    return float(np.polyfit(np.log(sizes), np.log(values), deg=1)[0])


def main(argv: list[str]) -> None:
    """Measures, prints tables and writes the JSON."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}.")
    if _ONE.value:
        print(json.dumps(measure(Size(*map(int, _ONE.value)))))
        return
    wanted = {
        (name, value): Size()._replace(**{name: value})
        for name, values in _GROWTH.items()
        for value in values
    }
    taken: dict[Size, list[dict[str, float]]] = {}
    for _ in range(_ROUNDS.value):
        for size in dict.fromkeys(wanted.values()):
            taken.setdefault(size, []).append(measure_apart(size))
    report = {}
    for name, values in _GROWTH.items():
        for quantity in _QUANTITIES:
            measured = np.array(
                [[m[quantity] for m in taken[wanted[name, v]]] for v in values]
            )  # [sizes, rounds]
            relative = {
                str(value): ratio(rounds, measured[0])
                for value, rounds in zip(values, measured, strict=True)
            }
            power = spread([exponent(each, values) for each in measured.T])
            title = f"{name}, {quantity}"
            print_table(title, {**relative, "exponent": power})
            report[title] = {"relative": relative, "exponent": power}
    if _OUTPUT.value:
        output = pathlib.Path(_OUTPUT.value)
        write_json({"rounds": _ROUNDS.value, **report}, output)
        tables = {title: part["relative"] for title, part in report.items()}
        draw(tables, output.with_suffix(".png"))


if __name__ == "__main__":
    app.run(main)
