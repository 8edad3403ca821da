"""Made-up inputs, to warm up, to verify and to time."""

import numpy as np
import tensorflow as tf

from composer_tf.exporters.routed_model import RoutedModel


def random_inputs(
    model: RoutedModel, rows: int, random: np.random.Generator
) -> dict[str, np.ndarray]:
    """Values that the inputs may hold, `[rows, ...]`: bytes, or normal."""
    return {
        name: _random(spec, rows, random) for name, spec in model.inputs.items()
    }


def _random(
    spec: tf.TensorSpec, rows: int, random: np.random.Generator
) -> np.ndarray:
    shape = [rows, *spec.shape[1:]]
    dtype = spec.dtype.as_numpy_dtype
    if spec.dtype.is_integer:
        return random.integers(0, 255, shape, endpoint=True).astype(dtype)
    return random.normal(size=shape).astype(dtype)
