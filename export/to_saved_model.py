"""Exports a Composer for TensorFlow and TensorFlow Serving.

python export/to_saved_model.py --model=composer.keras --output=runs/serving/1
"""

import program
from absl import flags

_WARMUP = flags.DEFINE_integer(
    "warmup_requests",
    0,
    "Requests that TensorFlow Serving replays when it loads the model: rows of "
    "--data, if given.",
    lower_bound=0,
    upper_bound=1000,
)


def main(argv: list[str]) -> None:
    """Runs the program."""
    program.run(argv, "tf_saved_model", warmup_requests=_WARMUP.value)


if __name__ == "__main__":
    program.start(main)
