"""Exports a Composer for ONNX Runtime.

python export/to_onnx.py --model=composer.keras --output=composer.onnx
"""

import program
from absl import flags

from composer_tf.exporters.exposure import STEER_BY

_STEER_BY = flags.DEFINE_enum(
    "steer_by", "gamma", STEER_BY, "The input; budget needs a calibrated model."
)


def main(argv: list[str]) -> None:
    """Runs the program."""
    program.run(argv, "onnx", steer_by=_STEER_BY.value)


if __name__ == "__main__":
    program.start(main)
