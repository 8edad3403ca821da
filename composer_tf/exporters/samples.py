"""Random inputs, for warm-up, verification and timing."""

import numpy as np
import tensorflow as tf

from composer_tf.exporters.routed_model import RoutedModel

# Deviations for normalized inputs and for bytes, which models rescale. For a
# model of bytes, rows at scale 1 are nearly constant and all take the same way.
# Rows are normal, not uniform, as their parts then differ in mean, which
# controllers see.
_SCALES = (1.0, 16.0, 255.0)


def random_inputs(
    model: RoutedModel, rows: int, random: np.random.Generator
) -> dict[str, np.ndarray]:
    """Values that the inputs may hold, `[rows, ...]`, by name.

    These are bytes for uint8, 0 or 1 for other integers, booleans for bool, and
    otherwise normal values, with deviations 1, 16 and 255 in turn by row.

    Raises:
        ValueError: If the size of an input is not known, or it is text.
    """
    return {
        name: _random(spec, rows, random) for name, spec in model.inputs.items()
    }


def _random(
    spec: tf.TensorSpec, rows: int, random: np.random.Generator
) -> np.ndarray:
    shape = [rows, *spec.shape[1:]]
    dtype = spec.dtype.as_numpy_dtype
    if None in shape:
        raise ValueError(
            f"Input {spec.name!r} of shape {tuple(shape[1:])} has a size that "
            "is not known; give examples as data."
        )
    if spec.dtype == tf.string:
        raise ValueError(
            f"Input {spec.name!r} is text, which cannot be made up; give "
            "examples as data."
        )
    if spec.dtype.is_integer or spec.dtype.is_bool:
        high = 255 if spec.dtype == tf.uint8 else 1
        return random.integers(0, high, shape, endpoint=True).astype(dtype)
    scales = np.resize(_SCALES, [rows, *[1] * len(shape[1:])])
    return (scales * random.normal(size=shape)).astype(dtype)
