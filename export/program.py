"""Shared parts of these programs: flags, a table, one-line errors."""

import os
import re
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from absl import app, flags, logging

from composer_tf.datasets import DataUnavailableError
from composer_tf.deployment import DeploymentError, deployment

_MODEL = flags.DEFINE_string("model", None, "The .keras file of a Composer.")
_OUTPUT = flags.DEFINE_string("output", None, "File or folder to write.")
_DATA = flags.DEFINE_string(
    "data",
    "",
    "Examples to verify on, and to calibrate int8 on: a data set such as "
    "wide_mnist/digits, or an .npz file with an array for each input, and "
    "`labels` if known.",
)
_VERIFY = flags.DEFINE_bool(
    "verify", True, "Whether to compare the artifact with the model."
)
_MAX_ACCURACY_LOSS = flags.DEFINE_float(
    "max_accuracy_loss",
    deployment.LIMITS.accuracy_loss,
    "Largest drop in accuracy, a mean over gammas and budgets.",
    lower_bound=0.0,
)
_MIN_CHOICE_AGREEMENT = flags.DEFINE_float(
    "min_choice_agreement",
    deployment.LIMITS.choice_agreement,
    "Fraction of choices on which a quantized artifact must agree.",
    lower_bound=0.0,
    upper_bound=1.0,
)
_MAX_ABS_ERROR = flags.DEFINE_float(
    "max_abs_error",
    deployment.LIMITS.abs_error,
    "Largest difference in outputs up to 1; larger ones in proportion. By "
    "default 1e-5, with float16 1e-3, and any with other quantizations.",
    lower_bound=0.0,
)
_OVERWRITE = flags.DEFINE_bool(
    "overwrite",
    False,
    "Whether to replace an existing artifact, and what stands beside it.",
)
_FIX = flags.DEFINE_multi_string(
    "fix", [], "NAME=VALUE of a gamma that shall be no input. Repeatable."
)
_DEFAULT_GAMMA = flags.DEFINE_multi_string(
    "default_gamma", [], "NAME=VALUE of a gamma's default. Repeatable."
)

_IMPORT = flags.DEFINE_multi_string(
    "import", [], "Python module with classes of the model. Repeatable."
)
_INPUT_DTYPE = flags.DEFINE_multi_string(
    "input_dtype",
    [],
    "NAME=TYPE of an input, repeatable, or the TYPE of the only one. By "
    "default that of the stem's keras.Input, else float32.",
)
_FLAGS = {"modules": "import", "input_dtypes": "input_dtype"}  # By argument.


def _shown(value: Any) -> str:
    """A value of the report in a line."""
    if isinstance(value, dict):
        return ", ".join(f"{k} {_shown(v)}" for k, v in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def run(argv: Sequence[str], format: str, **options: Any) -> None:
    """Exports, verifies, and prints the report.

    Args:
        argv: Arguments that absl left of the command line.
        format: Format of the artifact.
        **options: Options of its exporter.
    """
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}.")
    logging.set_verbosity(logging.ERROR)
    logging.get_absl_handler().setLevel(logging.ERROR)
    warnings.simplefilter("ignore")  # The converters' own.
    sys.path.insert(0, os.getcwd())  # For --import.
    try:
        report = deployment.deploy(
            _MODEL.value or "",
            _OUTPUT.value or "",
            format,
            data=_DATA.value,
            verify=_VERIFY.value,
            overwrite=_OVERWRITE.value,
            modules=_IMPORT.value,
            input_dtypes=_types(_INPUT_DTYPE.value),
            max_accuracy_loss=_MAX_ACCURACY_LOSS.value,
            min_choice_agreement=_MIN_CHOICE_AGREEMENT.value,
            max_abs_error=_MAX_ABS_ERROR.value,
            fix=_numbers("fix", _FIX.value),
            default_gamma=_numbers("default_gamma", _DEFAULT_GAMMA.value),
            **options,
        )
    except (
        DataUnavailableError,
        ImportError,
        OSError,
        TypeError,
        ValueError,
        DeploymentError,
    ) as error:
        sys.exit(f"error: {_with_flags(str(error))}")
    print(_OUTPUT.value)
    for name, value in report.items():
        print(f"  {name:<30}{_shown(value)}")
    if "latency_ratio_full" in report:
        print(
            "Latency ratios: time along the cheapest and the full path, over "
            "that of a file that holds just the modules of that path."
        )


def start(main: Any) -> None:
    """Runs a program whose model and output must be given."""
    flags.mark_flags_as_required(["model", "output"])
    for flag in flags.FLAGS.get_flags_for_module(sys.modules[__name__]):
        # What `--help` shows are the flags of the program that was started.
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)
    app.run(main)


def _with_flags(message: str) -> str:
    """A message of the library, with `arguments` replaced by `--flags`."""

    def flag(argument: re.Match) -> str:
        name = str(_FLAGS.get(argument[1], argument[1]))
        return f"--{name}{argument[2]}" if name in flags.FLAGS else argument[0]

    return re.sub(r"`(\w+)(|=[^`]*)`", flag, message)


def _types(pairs: Sequence[str]) -> dict[str, str] | str:
    if len(pairs) == 1 and "=" not in pairs[0]:
        return pairs[0]
    types = {}
    for pair in pairs:
        name, separator, types[name] = pair.partition("=")
        if not separator:
            raise ValueError(
                "--input_dtype must be NAME=TYPE of each of several, got "
                f"{pair!r}."
            )
    return types


def _numbers(flag: str, pairs: Sequence[str]) -> dict[str, float]:
    numbers = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        try:
            numbers[name] = float(value)
        except ValueError as error:
            raise ValueError(
                f"--{flag} must be NAME=VALUE with a number, got {pair!r}."
            ) from error
    return numbers
