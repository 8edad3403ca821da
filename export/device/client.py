"""Runs an exported Composer on a device: LiteRT and numpy, no TensorFlow.

    python client.py m.tflite --images=images.npy --gamma -4 0 2 6
    python client.py m.tflite --images=images.npy --budget 0.3 0.5 1

prints, for each gamma or budget, how often each module was chosen, the mean
cost as a fraction of full cost, and the median time of one example.
"""

import argparse
import json
import os
import pathlib
import statistics
import sys
import time
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

Inputs = np.ndarray | Mapping[str, np.ndarray]
Gamma = float | np.ndarray | Mapping[str, Any]
Budget = float | np.ndarray


class BadInputError(ValueError):
    """An error that the user can fix; its text is one line that says how."""


class Composer:
    """An exported Composer, steered at each call.

    Args:
        path: Path of a `.tflite` file with its description at `path` + `.json`.

    Attributes:
        description: Content of the JSON file.
        seconds: Times in seconds of each example in the last `predict`.

    Raises:
        BadInputError: If a file is missing or invalid.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        if not pathlib.Path(path).is_file():
            raise BadInputError(f"There is no file {path}.")
        self.description = _read_description(f"{path}.json")
        self.seconds: list[float] = []
        try:
            interpreter = Interpreter(str(path))
            self._runners = {
                key: interpreter.get_signature_runner(key)
                for key in interpreter.get_signature_list()
            }
        except (ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise BadInputError(f"LiteRT cannot run {path}: {reason}") from None
        wanted = [*self.inputs, *([self.steer_by] if self.gammas else [])]
        main = self._runners.get("serving_default")
        if main is None or set(main.get_input_details()) != set(wanted):
            raise BadInputError(
                f"{path} has no signature 'serving_default' of the inputs "
                f"{wanted} that {path}.json names."
            )

    @property
    def inputs(self) -> dict[str, dict[str, Any]]:
        """`shape`, without the batch axis, and `dtype` of each input."""
        return self.description["inputs"]

    @property
    def gammas(self) -> list[dict[str, Any]]:
        """`name`, `low`, `high` and `default` of each free preference."""
        return self.description["gamma"]

    @property
    def steer_by(self) -> str:
        """Input that steers `serving_default`, `"gamma"` or `"budget"`."""
        return self.description.get("steer_by", "gamma")

    def predict(
        self,
        inputs: Inputs,
        gamma: Gamma | None = None,
        budget: Budget | None = None,
    ) -> dict[str, np.ndarray]:
        """Runs examples, one by one.

        Args:
            inputs: `[N, ...]`, or a mapping of such arrays by name.
            gamma: Number, or one per example `[N]`; with several preferences a
                mapping of these by name, where missing preferences take their
                defaults. `None`, the default, takes all defaults.
            budget: Number, or one per example `[N]`, fractions of full cost. It
                replaces gamma in a calibrated model.

        Returns:
            Outputs by name: `probabilities` and `logits` of a classifier
            (otherwise `outputs`), `choices` int32 `[N, n]`,
            `module_probabilities` `[N, n, m]` and `cost` `[N]`, a fraction of
            full cost.

        Raises:
            BadInputError: If an argument does not fit the model.
        """
        feed = self._parse_inputs(inputs)
        rows = len(next(iter(feed.values())))
        signature, steering = self._steering(gamma, budget, rows)
        runner = self._runners.get(signature, self._runners["serving_default"])
        feed |= steering
        if set(runner.get_input_details()) != set(feed):
            raise BadInputError(f"The file takes a {self.steer_by} only.")
        self.seconds, outputs = [], []
        for i in range(rows):
            example = {name: v[i : i + 1] for name, v in feed.items()}
            start = time.perf_counter()
            outputs.append(runner(**example))
            self.seconds.append(time.perf_counter() - start)
        return {k: np.concatenate([o[k] for o in outputs]) for k in outputs[0]}

    def _steering(
        self, gamma: Gamma | None, budget: Budget | None, rows: int
    ) -> tuple[str, dict[str, np.ndarray]]:
        """The signature, and the input that steers it.

        A file for TensorFlow Lite Micro has only one signature, which is used
        in place of any other.
        """
        if gamma is not None and budget is not None:
            raise BadInputError("Give a gamma or a budget.")
        if budget is not None:
            if not self.description.get("calibration"):
                raise BadInputError(
                    "The model was not calibrated for budgets, or its gamma "
                    "was fixed at export."
                )
            return "budget", {"budget": _column("The budget", budget, rows)}
        if gamma is not None:
            parsed = self._parse_gamma(gamma, rows)
            return "serving_default", {"gamma": parsed}
        if "default_gamma" in self._runners or not self.gammas:
            return "default_gamma", {}
        if self.steer_by == "budget":  # No number takes the default gamma.
            return "budget", {"budget": _column("The budget", np.nan, rows)}
        return "serving_default", {"gamma": self._parse_gamma({}, rows)}

    def _parse_inputs(self, inputs: Inputs) -> dict[str, np.ndarray]:
        if not isinstance(inputs, Mapping):
            inputs = {next(iter(self.inputs)): inputs}
        if set(inputs) != set(self.inputs):
            raise BadInputError(
                f"The inputs are {list(self.inputs)}, got {list(inputs)}."
            )
        feed = {}
        for name, spec in self.inputs.items():
            values, shape = np.asarray(inputs[name]), spec["shape"]
            if not _fits(values.shape[1:], shape) or not len(values):
                wanted = ", ".join(["N", *map(str, shape)])
                raise BadInputError(
                    f"{name!r} must have the shape [{wanted}], got "
                    f"{list(values.shape)}."
                )
            if spec["dtype"] == "string":  # LiteRT takes objects of bytes.
                fits, dtype = values.dtype.kind in "SUO", np.dtype("O")
            else:
                dtype = np.dtype(spec["dtype"])
                fits = np.can_cast(values.dtype, dtype, "same_kind")
            if not fits:
                raise BadInputError(
                    f"{name!r} must be {spec['dtype']}, got {values.dtype}."
                )
            feed[name] = values.astype(dtype)
        if len({len(values) for values in feed.values()}) > 1:
            raise BadInputError("The inputs must be equally many of each name.")
        return feed

    def _parse_gamma(self, gamma: Gamma, rows: int) -> np.ndarray:
        """float32 `[rows]` for one free preference, `[rows, k]` for more."""
        names = [g["name"] for g in self.gammas]
        if not names:
            raise BadInputError("The gamma of this file was fixed at export.")
        if not isinstance(gamma, Mapping):
            if len(names) > 1:
                raise BadInputError(f"Give each gamma by its name, of {names}.")
            gamma = {names[0]: gamma}
        for name in gamma:
            if name not in names:
                raise BadInputError(f"No gamma {name!r}; there are {names}.")
        columns = [
            _column(
                f"Gamma {g['name']!r}", gamma.get(g["name"], g["default"]), rows
            )
            for g in self.gammas
        ]
        return np.stack(columns, axis=1) if len(names) > 1 else columns[0]


def _fits(shape: tuple[int, ...], wanted: list[int | None]) -> bool:
    """Whether a shape is the wanted one, where `None` is any size."""
    return len(shape) == len(wanted) and all(
        size in (None, got) for got, size in zip(shape, wanted, strict=True)
    )


def _column(name: str, value: Any, rows: int) -> np.ndarray:
    """A number, or one per row, as float32 `[rows]`."""
    try:
        return np.broadcast_to(np.asarray(value, np.float32), [rows])
    except (TypeError, ValueError):
        raise BadInputError(
            f"{name} must be a number, or one for each of the {rows} examples, "
            f"got {value!r}."
        ) from None


def _read_description(path: str) -> dict[str, Any]:
    try:
        description = json.loads(pathlib.Path(path).read_text("utf-8"))
    except OSError as error:
        raise BadInputError(f"Cannot read {path}: {error.strerror}.") from None
    except ValueError:
        description = None
    wanted = {"inputs", "gamma", "module_costs"}
    if not isinstance(description, dict) or not wanted <= set(description):
        raise BadInputError(
            f"{path} is no description of an exported Composer."
        )
    return description


def _read_images(path: str) -> Inputs:
    """An array from `.npy`, or several by name from `.npz`."""
    try:
        loaded = np.load(path)
        return loaded if isinstance(loaded, np.ndarray) else dict(loaded)
    except (EOFError, ValueError, zipfile.BadZipFile):
        raise BadInputError(
            f"{path} is no .npy or .npz file of numbers."
        ) from None
    except OSError as error:
        raise BadInputError(f"Cannot read {path}: {error.strerror}.") from None


def _random_images(composer: Composer, count: int) -> Inputs:
    """Bytes for an integer input, normal values for any other."""
    random = np.random.default_rng(0)
    images = {}
    for name, spec in composer.inputs.items():
        if spec["dtype"] == "string":
            raise BadInputError(
                f"{name!r} is text, which is not made up: give --images."
            )
        if None in spec["shape"]:
            raise BadInputError(
                f"{name!r} has the shape {spec['shape']}, of which a size is "
                "not fixed: give --images."
            )
        shape, dtype = [count, *spec["shape"]], np.dtype(spec["dtype"])
        if np.issubdtype(dtype, np.integer):
            high = min(255, np.iinfo(dtype).max)
            images[name] = random.integers(0, high, shape, dtype, endpoint=True)
        else:
            images[name] = random.normal(size=shape).astype(dtype)
    return images


def _read_gamma(text: str) -> Gamma:
    """Reads `2`, or `name=value` pairs separated by commas."""
    try:
        if "=" not in text:
            return float(text)
        pairs = (pair.split("=") for pair in text.split(","))
        return {name: float(value) for name, value in pairs}
    except ValueError:
        raise BadInputError(
            f"--gamma takes numbers, or name=value,name=value, got {text!r}."
        ) from None


def _read_budget(text: str) -> Budget:
    try:
        return float(text)
    except ValueError:
        raise BadInputError(f"--budget takes numbers, got {text!r}.") from None


def _steps(composer: Composer) -> dict[str, Any]:
    """Five gammas or budgets over the trained range, by their text."""
    if not composer.gammas:
        return {"fixed": None}
    shares, steps = (0.0, 0.25, 0.5, 0.75, 1.0), {}
    if composer.steer_by == "budget":
        high, *_, low = composer.description["calibration"]["costs"]
        budgets = [low + share * (high - low) for share in shares]
        return {f"{budget:.3g}": budget for budget in budgets}
    for share in shares:
        gamma = {
            g["name"]: g["sweep"][round(share * (len(g["sweep"]) - 1))]
            for g in composer.gammas
        }
        steps[",".join(f"{name}={v:g}" for name, v in gamma.items())] = gamma
    return steps


def _count_choices(composer: Composer, choices: np.ndarray) -> str:
    """How often each module was chosen, one list for each metalayer."""
    sizes = [len(costs) for costs in composer.description["module_costs"]]
    counts = [
        np.bincount(column, minlength=size).tolist()
        for column, size in zip(choices.T, sizes, strict=True)
    ]
    return " ".join(map(str, counts))


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the program.

    Args:
        argv: Arguments of the program. Defaults to the command line.
    """
    parser = argparse.ArgumentParser(description="Runs an exported Composer.")
    parser.add_argument("model", help="the .tflite file, its .json beside it")
    parser.add_argument(
        "--images", help=".npy of [N, ...], or .npz of inputs by name"
    )
    parser.add_argument(
        "--random", type=int, default=100, help="how many, without --images"
    )
    steering = parser.add_mutually_exclusive_group()
    steering.add_argument(
        "--gamma", nargs="+", help="numbers, or name=value,name=value"
    )
    steering.add_argument(
        "--budget", nargs="+", help="numbers, fractions of full cost"
    )
    arguments = parser.parse_args(argv)
    try:
        _run(arguments)
    except BadInputError as error:
        sys.exit(f"error: {error}")


def _run(arguments: argparse.Namespace) -> None:
    if arguments.random < 1:
        raise BadInputError(
            f"--random must be at least 1, got {arguments.random}."
        )
    composer = Composer(arguments.model)
    if arguments.images:
        inputs = _read_images(arguments.images)
    else:
        inputs = _random_images(composer, arguments.random)
    steer_by = composer.steer_by
    steps: dict[str, Any]
    if arguments.gamma:
        steer_by = "gamma"
        steps = {text: _read_gamma(text) for text in arguments.gamma}
    elif arguments.budget:
        steer_by = "budget"
        steps = {text: _read_budget(text) for text in arguments.budget}
    else:
        steps = _steps(composer)
    table = [(steer_by, "modules chosen", "cost", "ms")]
    for text, step in steps.items():
        outputs = composer.predict(inputs, **{steer_by: step})
        chosen = _count_choices(composer, outputs["choices"])
        cost = f"{np.mean(outputs['cost']):.3f}"
        latency = f"{1000 * statistics.median(composer.seconds):.3f}"
        table.append((text, chosen, cost, latency))
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        cells = zip(row, widths, strict=True)
        print("  ".join(cell.ljust(width) for cell, width in cells).rstrip())


if __name__ == "__main__":
    main()
