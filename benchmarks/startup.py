"""Time to start: imports, and each artifact's first answer.

python benchmarks/startup.py [--rounds=7] [--output=FILE.json]

The time of `import composer_tf` over that of `import tensorflow`, each in fresh
processes; and of loading an artifact of Wide-MNIST's Composer and running one
image through its dearest path, over the same with that path's network alone.
All in turns; medians of the ratios within a round, with quartiles.
"""

import functools
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable

import numpy as np
from absl import app, flags, logging
from harness import FILES, export, print_table, ratio
from pictures import draw

from composer_tf import models
from composer_tf.exporters.artifacts import Feed, Outputs, open_artifact
from composer_tf.files import write_json
from composer_tf.timing import interleaved_rounds

_ROUNDS = flags.DEFINE_integer("rounds", 7, "Turns of each.")
_OUTPUT = flags.DEFINE_string(
    "output", None, "JSON file to write, with a picture beside it."
)


def import_freshly(module: str) -> None:
    """Imports a module in a process of its own."""
    command = [sys.executable, "-c", f"import {module}"]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)


def answer(path: pathlib.Path, format: str, feed: Feed) -> Outputs:
    """Loads an artifact and runs it once."""
    return open_artifact(path, format).run(feed)


def main(argv: list[str]) -> None:
    """Measures, prints and writes."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}.")
    logging.set_verbosity(logging.ERROR)
    callers: dict[str, Callable[[], object]] = {
        module: functools.partial(import_freshly, module)
        for module in ("composer_tf", "tensorflow")
    }
    composer = models.WideMnist().build(seed=0)
    composer.build((None, 28, 56, 1))
    composer.compile()
    image = {"image": np.zeros([1, 28, 56, 1], np.float32)}
    gamma = {"gamma": np.array([-4.0], np.float32)}  # Everything is worth it.
    with tempfile.TemporaryDirectory() as folder:
        for format in FILES:
            whole = composer.routed_model(format=format)
            alone = whole.alone(composer.cost_table.dearest)
            for name, model, feed in (
                ("composer", whole, image | gamma),
                ("alone", alone, image),
            ):
                place = pathlib.Path(folder) / format / name
                path = export(model, format, place)
                callers[f"{format} {name}"] = functools.partial(
                    answer, path, format, feed
                )
        seconds = interleaved_rounds(callers, _ROUNDS.value)
    ratios = {
        "import composer_tf / import tensorflow": ratio(
            seconds["composer_tf"], seconds["tensorflow"]
        )
    } | {
        f"{format} to its first answer, composer / dearest network": ratio(
            seconds[f"{format} composer"], seconds[f"{format} alone"]
        )
        for format in FILES
    }
    print_table("time to start", ratios)
    if _OUTPUT.value:
        output = pathlib.Path(_OUTPUT.value)
        write_json({"rounds": _ROUNDS.value, **ratios}, output)
        draw({"time to start": ratios}, output.with_suffix(".png"))


if __name__ == "__main__":
    app.run(main)
