"""Trains and evaluates what a config file describes.

python -m composer_tf --config=configs/wide_mnist_digits.py --workdir=DIR
"""

import os
import sys
from typing import cast, get_args

import tensorflow as tf
from absl import app, flags, logging
from ml_collections import config_flags

from composer_tf import workers
from composer_tf.config import ConfigError
from composer_tf.datasets import DataUnavailableError
from composer_tf.non_finite_loss_guard import NonFiniteLossError
from composer_tf.training import experiment
from composer_tf.workdir import WorkdirError

_EXPECTED_ERRORS = (
    ConfigError,
    DataUnavailableError,
    NonFiniteLossError,
    OSError,  # Such as of a disk that is full, or read-only.
    WorkdirError,
    workers.WorkersError,
)
_LOST_WORKER_ERRORS = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.UnavailableError,
)
_CONFIG = config_flags.DEFINE_config_file(
    "config", help_string="A file of configs/, such as configs/wide_mnist.py."
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder of the outputs; a run that is there is resumed."
)
_PUBLISH = flags.DEFINE_string(
    "publish",
    None,
    "Folder that gets a copy of the numbers and pictures, in place of an "
    "earlier one.",
)
_DISTRIBUTE = flags.DEFINE_enum(
    "distribute",
    "one",
    get_args(workers.StrategyName),
    "Train on one device, all GPUs of this machine, or the TF_CONFIG workers.",
)


def main(argv: list[str]) -> None:
    """Runs the program."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}.")
    logging.set_verbosity(logging.ERROR)
    try:
        strategy = workers.make_strategy(
            cast(workers.StrategyName, _DISTRIBUTE.value)
        )
        if _PUBLISH.value:
            experiment.check_destination(_PUBLISH.value)
        experiment.run(_CONFIG.value, _WORKDIR.value or "", strategy)
        if _PUBLISH.value and workers.is_chief(strategy):
            experiment.publish(
                _CONFIG.value, _WORKDIR.value or "", _PUBLISH.value
            )
    except _EXPECTED_ERRORS as error:
        sys.exit(f"error: {error}")
    except _LOST_WORKER_ERRORS:
        if _DISTRIBUTE.value != "multi_worker":
            raise
        print(
            "error: another worker was lost. Start all workers again by the "
            "same commands: they resume the run.",
            file=sys.stderr,
            flush=True,
        )
        # Threads that still wait for the lost worker may not end cleanly.
        os._exit(1)
    except KeyboardInterrupt:
        sys.exit("\nInterrupted. The same command resumes the run.")


def parse_flags(argv: list[str]) -> list[str]:
    """Parses the command line; a bad value is an error of one line."""
    try:
        rest = app.parse_flags_with_usage(argv)
        _CONFIG.value.validate  # noqa: B018  A file that failed to load raises.
    except (AttributeError, KeyError, OSError) as error:
        message = error.args[0] if isinstance(error, KeyError) else error
        sys.exit(f"error: --config: {message}")
    return rest


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(main, flags_parser=parse_flags)
