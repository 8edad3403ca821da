"""Pooling that rows go through before those of all modules are merged."""

import functools
import itertools
from collections.abc import Sequence

import keras

from composer_tf.layers.metalayer import Metalayer

Continuation = tuple[keras.layers.Layer, ...]

_POOLING = tuple(
    getattr(keras.layers, f"{scope}{kind}Pooling{rank}D")
    for scope in ("", "Global")
    for kind in ("Average", "Max")
    for rank in (1, 2, 3)
)


def with_continuations(
    steps: Sequence[keras.layers.Layer],
) -> list[tuple[keras.layers.Layer, Continuation]]:
    """Each step with those behind it that it takes along, for inference.

    To merge the rows of several modules is to copy them, and behind pooling
    they are smaller. So a metalayer takes along Keras's pooling layers that
    follow it directly; all other steps follow as before.

    Args:
        steps: Built `Metalayer`s and plain layers.

    Example:
        >>> layers = keras.layers
        >>> metalayer = Metalayer([layers.Dense(8), layers.Dense(8)])
        >>> metalayer.build((None, 4, 4, 3))
        >>> steps = [metalayer, layers.GlobalMaxPooling2D(), layers.Dense(10)]
        >>> for step, continuation in with_continuations(steps):
        ...     print(type(step).__name__, len(continuation))
        Metalayer 1
        Dense 0
    """
    result = []
    left = list(steps)
    while left:
        step = left.pop(0)
        continuation: Continuation = ()
        if isinstance(step, Metalayer) and step.row_shape.is_fully_defined():
            pools = functools.partial(_pools, dtype=step.compute_dtype)
            continuation = tuple(itertools.takewhile(pools, left))
        del left[: len(continuation)]
        result.append((step, continuation))
    return result


def _pools(step: keras.layers.Layer, dtype: str) -> bool:
    # A class derived from one of these might look at several rows at a time.
    return type(step) in _POOLING and step.compute_dtype == dtype
