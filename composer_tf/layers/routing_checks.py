"""Checks of modules that not every routing can train."""

from collections.abc import Sequence

import keras
import tensorflow as tf

from composer_tf import replicas
from composer_tf.layers.routing import Module


def check_no_leaked_losses(modules: Sequence[Module], rows: tf.Tensor) -> None:
    """Raises `ValueError` for a loss that was added inside a condition.

    It cannot be read outside the condition, so it could not be trained on.
    """
    if tf.executing_eagerly():
        return
    for module in modules:
        for loss in getattr(module, "losses", ()):
            if loss.graph is not rows.graph:
                raise ValueError(
                    f"Module {getattr(module, 'name', module)!r} adds a loss "
                    "in its call (`add_loss` or an activity regularizer), "
                    "which no routing but 'dense' can collect: pass "
                    "routing='dense' to the Composer. Of weights alone, "
                    "`add_weight(regularizer=...)` does for any routing."
                )


def check_not_synchronized(modules: Sequence[Module]) -> None:
    """Raises `ValueError` for a layer that joins the rows of all replicas.

    Inside a condition it would wait for replicas that do not run the module.
    """
    if replicas.count() == 1:
        return
    for module in modules:
        if not isinstance(module, keras.layers.Layer):
            continue
        for layer in module._flatten_layers():
            if getattr(layer, "synchronized", False) and layer.trainable:
                raise ValueError(
                    f"Layer {layer.name!r} of module {module.name!r} has "
                    "synchronized=True, which with several replicas no routing "
                    "but 'dense' can do: use synchronized=False, or pass "
                    "routing='dense' to the Composer."
                )
