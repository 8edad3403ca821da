"""Modules as functions of rows, which all ways of routing call."""

import functools
import warnings
from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

Module = Callable[[tf.Tensor], tf.Tensor]


def run_module(module: Module, rows: tf.Tensor, dtype: str) -> tf.Tensor:
    """Outputs of a module for rows `[R, ...]`, cast to `dtype`.

    It warns about a mask, which is lost where the rows of modules are merged.
    """
    outputs = module(rows)
    if getattr(outputs, "_keras_mask", None) is not None:
        warnings.warn(
            f"Module {getattr(module, 'name', module)!r} masks its outputs, "
            "and the mask is lost behind it: pool inside the module, or mark "
            "padding in the targets, for a loss and metrics with "
            "`ignore_class`.",
            stacklevel=2,
        )
    return tf.cast(outputs, dtype)


def continued(
    modules: Sequence[Module],
    continuation: Sequence[keras.layers.Layer],
    dtype: str,
) -> list[Module]:
    """The modules, each followed by the same layers.

    Args:
        modules: m callables.
        continuation: Built layers.
        dtype: Data type of the modules' outputs.
    """

    def run(module: Module, rows: tf.Tensor) -> tf.Tensor:
        # Without the mask, which is lost where rows are merged first.
        outputs = tf.identity(run_module(module, rows, dtype))
        for layer in continuation:
            outputs = layer(outputs)
        return outputs

    return [functools.partial(run, module) for module in modules]
