"""Exports a Composer for LiteRT: phones, boards, microcontrollers.

python export/to_tflite.py --model=composer.keras --output=composer.tflite
"""

import program
from absl import flags

from composer_tf.exporters.exposure import STEER_BY
from composer_tf.exporters.litert import QUANTIZATIONS

_QUANTIZATION = flags.DEFINE_enum(
    "quantization", "none", QUANTIZATIONS, "For the weights; int8 needs --data."
)
_MICRO = flags.DEFINE_bool(
    "micro", False, "Whether it is for TensorFlow Lite Micro."
)
_STEER_BY = flags.DEFINE_enum(
    "steer_by",
    "gamma",
    STEER_BY,
    "The input, with --micro; budget needs a calibrated model.",
)
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size",
    None,
    "Examples of a second signature, `batch`. None by default.",
    lower_bound=1,
)


def main(argv: list[str]) -> None:
    """Runs the program."""
    program.run(
        argv,
        "tflite",
        quantization=_QUANTIZATION.value,
        micro=_MICRO.value,
        steer_by=_STEER_BY.value,
        batch_size=_BATCH_SIZE.value,
    )


if __name__ == "__main__":
    program.start(main)
