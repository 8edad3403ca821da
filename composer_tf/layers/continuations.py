"""Fixed steps that rows go through before those of all modules are merged."""

import math
from collections.abc import Sequence

import keras

from composer_tf.layers.metalayer import Metalayer

Continuation = tuple[keras.layers.Layer, ...]


def with_continuations(
    steps: Sequence[keras.layers.Layer],
) -> list[tuple[keras.layers.Layer, Continuation]]:
    """Each step with those behind it that it takes along, for inference.

    To merge the rows of several modules is to copy them, and behind pooling
    they are smaller. So a metalayer takes along the fixed steps up to where a
    row is smallest; the others follow as before. Only Keras's own layers are
    taken along: another may look at several rows at a time.

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
        if isinstance(step, Metalayer) and step.num_modules > 1:
            continuation = _continuation(step, left)
        del left[: len(continuation)]
        result.append((step, continuation))
    return result


def _continuation(
    metalayer: Metalayer, following: Sequence[keras.layers.Layer]
) -> Continuation:
    """The layers up to where a row is smallest, none if no row is smaller."""
    shape, dtype = metalayer.row_shape, metalayer.compute_dtype
    if not shape.is_fully_defined():
        return ()
    row = keras.KerasTensor((None, *shape), dtype)
    smallest, length = math.prod(row.shape[1:]), 0
    for count, layer in enumerate(following, start=1):
        if not _is_of_keras(layer):
            break
        row = layer(row)
        if None in row.shape[1:] or row.dtype != dtype:
            break
        size = math.prod(row.shape[1:])
        if size < smallest:
            smallest, length = size, count
    return tuple(following[:length])


def _is_of_keras(layer: keras.layers.Layer) -> bool:
    return all(
        type(part).__module__.startswith("keras.")
        and not isinstance(part, keras.layers.Lambda)
        for part in layer._flatten_layers()
    )
