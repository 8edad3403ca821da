"""Examples to verify an artifact on, and to calibrate int8 on."""

import pathlib
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from composer_tf import datasets, exporters, validation
from composer_tf.deployment.errors import DeploymentError
from composer_tf.exporters.samples import random_inputs

_RANDOM = "random inputs"


class Examples(NamedTuple):
    """Inputs by name, `[N, ...]`, and labels.

    Attributes:
        inputs: Arrays that the model takes, by name.
        labels: Integers `[N]`, or `None` if not known.
        source: Source of the examples, for the report.
    """

    inputs: dict[str, np.ndarray]
    labels: np.ndarray | None
    source: str

    @property
    def are_random(self) -> bool:
        """Whether the inputs are random, and may not suit the model."""
        return self.source == _RANDOM

    def one_by_one(self) -> Iterator[dict[str, np.ndarray]]:
        """Yields the inputs of each example, `[1, ...]`, by name."""
        for i in range(len(next(iter(self.inputs.values())))):
            yield {name: rows[i : i + 1] for name, rows in self.inputs.items()}


def made_up(model: exporters.RoutedModel, count: int) -> Examples:
    """`count` examples of random inputs."""
    random = np.random.default_rng(0)
    return Examples(random_inputs(model, count, random), None, _RANDOM)


def read(
    data: str | Mapping[str, np.ndarray],
    model: exporters.RoutedModel,
    split: str,
    count: int,
) -> Examples:
    """Reads examples of a split in the form that the model takes.

    Args:
        data: Name of `composer_tf.datasets`, or an `.npz` file of the inputs
            and perhaps `labels`, or such arrays by name; each split is a random
            half of their rows.
        model: Model to verify.
        split: `"train"` or `"test"`.
        count: Most examples to return.

    Raises:
        DeploymentError: If there is no such data, or it does not fit.
    """
    source, which = "arrays", None
    if isinstance(data, Mapping):
        arrays = {name: np.asarray(values) for name, values in data.items()}
    elif data in datasets.NAMES:
        images, labels = datasets.load_arrays(data, split)
        arrays = {next(iter(model.inputs)): images, "labels": labels}
        source, which = data, slice(count)
    elif pathlib.Path(data).is_file():
        source, arrays = data, _load_arrays(data)
    else:
        raise DeploymentError(
            f"`data` must be of {datasets.NAMES} or an .npz file, got {data!r}."
        )
    _check_keys(model, arrays)
    rows = _check_inputs(model, arrays)
    if which is None:
        which = _half(rows, split)[:count]
    inputs = {
        name: _cast(name, arrays[name][which], spec.dtype)
        for name, spec in model.inputs.items()
    }
    labels = arrays.get("labels")
    if labels is not None:
        labels = _label_vector(labels, rows)[which]
    return Examples(inputs, labels, source)


def _half(rows: int, split: str) -> np.ndarray:
    """Indices of half of the rows; the halves of the splits are disjoint."""
    order = np.random.default_rng(0).permutation(rows)
    test, train = np.array_split(order, 2)
    if split == "train" and not len(train):
        raise DeploymentError(
            "`data` must hold 2 rows or more, to calibrate on one half and "
            f"verify on the other, got {rows}."
        )
    return train if split == "train" else test


def _cast(name: str, rows: np.ndarray, dtype: tf.DType) -> np.ndarray:
    with np.errstate(over="ignore"):  # What it makes infinite is found below.
        cast = rows.astype(dtype.as_numpy_dtype)
    if dtype.is_floating and not np.isfinite(cast).all():
        raise DeploymentError(
            f"`data` must hold {name!r} as finite numbers of {dtype.name}, got "
            "NaN, infinity or larger ones."
        )
    if dtype.is_integer and not np.array_equal(cast, rows):
        raise DeploymentError(
            f"`data` must hold {name!r} as whole numbers of {dtype.name}, got "
            f"{rows.dtype} from {rows.min():g} to {rows.max():g}."
        )
    return cast


def _load_arrays(path: str) -> dict[str, np.ndarray]:
    try:
        with open(path, "rb") as opened:  # NumPy closes no damaged file.
            file = np.load(opened)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise ValueError("One array, which has no name.")
            arrays = dict(file)
        if not all(isinstance(value, np.ndarray) for value in arrays.values()):
            raise ValueError("A zip file of something else.")
    except (EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise DeploymentError(
            f"`data` must be an .npz file of arrays, which {path} is not: "
            f"{error}"
        ) from error
    return arrays


def _check_keys(
    model: exporters.RoutedModel, arrays: Mapping[str, np.ndarray]
) -> None:
    """Raises for unknown names: labels by another name would go unused."""
    known = [*model.inputs, "labels"]
    unknown = [name for name in arrays if name not in known]
    if unknown:
        raise DeploymentError(
            f"`data` must hold arrays of names in {known}, got {unknown}."
        )


def _check_inputs(
    model: exporters.RoutedModel, arrays: Mapping[str, np.ndarray]
) -> int:
    """Checks the inputs, and returns their number of rows."""
    for name, spec in model.inputs.items():
        if name not in arrays or not spec.shape.is_compatible_with(
            arrays[name].shape
        ):
            got = {key: value.shape[1:] for key, value in arrays.items()}
            raise DeploymentError(
                f"`data` must hold {name!r} with rows of shape "
                f"{tuple(spec.shape[1:])}, got {got}."
            )
    rows = {name: len(arrays[name]) for name in model.inputs}
    first = next(iter(rows.values()))
    if first == 0 or set(rows.values()) != {first}:
        raise DeploymentError(
            f"`data` must hold as many rows, 1 or more, of each input, got "
            f"{rows}."
        )
    for name, spec in model.inputs.items():
        kinds = "SU" if spec.dtype == tf.string else "biuf"
        if arrays[name].dtype.kind not in kinds:
            raise DeploymentError(
                f"`data` must hold {name!r} as {spec.dtype.name}, got "
                f"{arrays[name].dtype}."
            )
    return first


def _label_vector(labels: np.ndarray, rows: int) -> np.ndarray:
    try:
        return validation.label_vector(labels, rows)
    except ValueError as error:
        raise DeploymentError(f"In `data`, {error}") from error
