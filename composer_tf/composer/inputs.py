"""Inputs of a model, gamma among them: `{"image": x, "gamma": g}`."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from composer_tf.preferences import Gamma


def split_gamma(inputs: Any, gamma: Gamma | None) -> tuple[Any, Gamma | None]:
    """Takes gamma out of the inputs; the argument takes precedence.

    Raises:
        ValueError: If nothing is left.
    """
    if not isinstance(inputs, Mapping):
        return inputs, gamma
    if gamma is None:
        gamma = inputs.get("gamma")
    return without_gamma(inputs), gamma


def without_gamma(inputs: Any) -> Any:
    """The inputs without gamma; a single one is taken out of its mapping.

    Raises:
        ValueError: If nothing is left.
    """
    if not isinstance(inputs, Mapping):
        return inputs
    rest = {name: value for name, value in inputs.items() if name != "gamma"}
    if not rest:
        raise ValueError(
            "The inputs hold no tensor beside 'gamma', such as "
            "{'image': x, 'gamma': g}."
        )
    return rest if len(rest) > 1 else next(iter(rest.values()))


def check_lengths(inputs: Mapping[str, Any]) -> None:
    """Raises `ValueError` for unequal lengths, which Keras does not handle."""
    shapes = {
        k: tuple(v.shape) for k, v in inputs.items() if hasattr(v, "shape")
    }
    if len({shape[:1] for shape in shapes.values()}) > 1:
        raise ValueError(
            "The inputs must have one row for each example, got shapes "
            f"{shapes}."
        )


def join_gamma(x: Any, gamma: np.ndarray) -> dict[str, Any]:
    """Makes `x` in memory and gamma `[N, k]` one mapping of inputs.

    Raises:
        ValueError: If an input is no array, or has another number of rows.
    """
    inputs = dict(x) if isinstance(x, Mapping) else {"image": x}
    for name, value in inputs.items():
        if not hasattr(value, "shape"):
            raise ValueError(
                "`gamma`, or `budget`, with one value per example needs `x` as "
                f"an array, got {type(value).__name__}. Let the data set yield "
                "{'image': x, 'gamma': gamma}."
            )
        if value.shape[0] != gamma.shape[0]:
            raise ValueError(
                "`gamma`, or `budget`, must be one value for all or one per "
                f"example, {value.shape[0]} of them as in {name!r}, got "
                f"{len(gamma)}."
            )
    return {**inputs, "gamma": gamma}
