"""How long it takes to begin: imports, and loading each artifact.

python benchmarks/startup.py [--rounds=7] [--output=FILE.json]

The time of `import composer_tf` over that of `import tensorflow`, each in fresh
processes; and of loading an artifact of Wide-MNIST's Composer over that of its
dearest network alone. All in turns; medians.
"""

import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping

from absl import app, flags, logging

from composer_tf import exporters, models
from composer_tf.exporters.artifacts import open_artifact

_ROUNDS = flags.DEFINE_integer("rounds", 7, "Turns of each.")
_OUTPUT = flags.DEFINE_string("output", None, "JSON file to write.")

_FILES = {"tf_saved_model": "m", "tflite": "m.tflite", "onnx": "m.onnx"}


def import_seconds(module: str) -> float:
    """Processor time of a fresh process that imports a module."""
    process = subprocess.Popen(
        [sys.executable, "-c", f"import {module}"], stderr=subprocess.DEVNULL
    )
    _, _, usage = os.wait4(process.pid, 0)
    process.returncode = 0  # It has been waited for.
    return usage.ru_utime + usage.ru_stime


def load_seconds(path: pathlib.Path, format: str) -> float:
    """Time of loading an artifact."""
    start = time.perf_counter()
    open_artifact(path, format)
    return time.perf_counter() - start


def medians(contestants: Mapping[str, Callable[[], float]]) -> dict[str, float]:
    """Of each, in turns, after one turn that does not count."""
    taken: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(_ROUNDS.value + 1):
        for name, measure in contestants.items():
            taken[name].append(measure())
    return {name: statistics.median(t[1:]) for name, t in taken.items()}


def main(argv: list[str]) -> None:
    """Measures, prints and writes."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}.")
    logging.set_verbosity(logging.ERROR)
    seconds = medians(
        {
            module: lambda module=module: import_seconds(module)
            for module in ("tensorflow", "composer_tf")
        }
    )
    ratios = {
        "import composer_tf / import tensorflow": seconds["composer_tf"]
        / seconds["tensorflow"]
    }
    composer = models.WideMnist().build(seed=0)
    composer.build((None, 28, 56, 1))
    whole = composer.routed_model()
    alone = whole.alone(composer.cost_table.dearest)
    with tempfile.TemporaryDirectory() as folder:
        for format, file in _FILES.items():
            paths = {}
            for name, model in (("composer", whole), ("alone", alone)):
                paths[name] = pathlib.Path(folder) / format / name / file
                paths[name].parent.mkdir(parents=True)
                exporters.export(model, paths[name], format)
            seconds = medians(
                {
                    name: lambda path=path, format=format: load_seconds(
                        path, format
                    )
                    for name, path in paths.items()
                }
            )
            ratios[f"load {format}, composer / dearest network"] = (
                seconds["composer"] / seconds["alone"]
            )
    for name, ratio in ratios.items():
        print(f"{name:<50}{ratio:6.2f}")
    if _OUTPUT.value:
        text = json.dumps({"rounds": _ROUNDS.value, **ratios}, indent=2)
        pathlib.Path(_OUTPUT.value).write_text(text + "\n")


if __name__ == "__main__":
    app.run(main)
