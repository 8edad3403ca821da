"""Any Keras loss, as one value per example: minus the reward."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from composer_tf import validation
from composer_tf.policy import tile_rows

# Keras's own losses, by what turns their logits into probabilities.
_CLASSIFIERS: dict[Callable, tuple] = {
    tf.nn.softmax: (
        keras.losses.CategoricalCrossentropy,
        keras.losses.CategoricalFocalCrossentropy,
        keras.losses.SparseCategoricalCrossentropy,
        keras.losses.categorical_crossentropy,
        keras.losses.categorical_focal_crossentropy,
        keras.losses.sparse_categorical_crossentropy,
    ),
    tf.sigmoid: (
        keras.losses.BinaryCrossentropy,
        keras.losses.BinaryFocalCrossentropy,
        keras.losses.binary_crossentropy,
        keras.losses.binary_focal_crossentropy,
    ),
}
# The same in layers, as an activation or as a layer.
_ACTIVATIONS: dict[Callable, tuple] = {
    tf.nn.softmax: (keras.activations.softmax, keras.layers.Softmax),
    tf.sigmoid: (keras.activations.sigmoid,),
}
# Reductions that do not change the loss of a single example.
_REDUCTIONS = (
    None,
    "none",
    "mean",
    "mean_with_sample_weight",
    "sum_over_batch_size",
)
PerExampleLoss = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def per_example(loss: str | keras.losses.Loss | Callable) -> PerExampleLoss:
    """Turns a Keras loss into one that returns the loss of each example.

    Args:
        loss: Keras loss, its name, or a function of `y_true`, `y_pred` that
            keeps the batch axis. As in Keras, both are first cast to the dtype
            of the loss (`floatx` for a function), integer labels too.

    Returns:
        Function that `of_each_example` returns.

    Raises:
        TypeError: If `loss` is a list or a mapping: a Composer has one output.
        ValueError: If the loss sums over the batch.

    Example:
        >>> loss = per_example("mse")
        >>> loss(tf.zeros([2, 1]), tf.constant([[1.0], [3.0]])).numpy().tolist()
        [1.0, 9.0]
    """
    if isinstance(loss, (list, tuple, dict)):
        raise TypeError(
            "`loss` must be one loss, as a Composer has one output, got "
            f"{type(loss).__name__}."
        )
    resolved: Any = keras.losses.get(loss)
    function, dtype = resolved, keras.config.floatx()
    if isinstance(resolved, keras.losses.Loss):
        if resolved.reduction not in _REDUCTIONS:
            raise ValueError(
                f"`loss` must have one of the reductions {_REDUCTIONS}, as "
                "each example needs a loss of its own, got "
                f"{resolved.reduction!r}."
            )
        function, dtype = resolved.call, resolved.dtype

    def cast_first(y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        return function(tf.cast(y_true, dtype), tf.cast(y_pred, dtype))

    return of_each_example(cast_first, f"`loss` {loss!r}")


def of_each_example(
    function: Callable[[tf.Tensor, tf.Tensor], tf.Tensor], name: str
) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """Turns a function of targets and outputs into one value per example.

    Args:
        function: Function of `y_true`, passed in its own dtype, and `y_pred` in
            float32. It keeps the batch axis.
        name: Name of the function in error messages.

    Returns:
        Function of `y_true` `[B, ...]` and `y_pred` `[B, ...]` that returns
        float32 `[B]`, the mean over all other axes without elements that the
        loss ignores. It raises `ValueError` if there is no batch axis.
    """

    def values_of(y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        y_pred = tf.cast(y_pred, tf.float32)
        y_true = _of_the_rank_of(y_pred, tf.convert_to_tensor(y_true))
        values = function(y_true, y_pred)
        mask = getattr(values, "_keras_mask", None)  # Set by `ignore_class`.
        values = tf.cast(values, tf.float32)
        if values.shape.rank == 0:
            raise ValueError(
                f"{name} returns a scalar; it must keep the batch axis, as "
                "each example has its own reward."
            )
        values = tf.reshape(values, [tf.shape(y_pred)[0], -1])
        if mask is None:
            return tf.reduce_mean(values, axis=1)
        valid = tf.reshape(tf.cast(mask, tf.float32), tf.shape(values))
        num_valid = tf.maximum(tf.reduce_sum(valid, axis=1), 1.0)
        return tf.reduce_sum(values * valid, axis=1) / num_valid

    return values_of


def _of_the_rank_of(y_pred: tf.Tensor, y_true: tf.Tensor) -> tf.Tensor:
    """Adds or drops a last axis of 1: else [B] - [B, 1] would be [B, B]."""
    if y_true.shape.rank is None:  # In a step traced for both ranks.
        if y_pred.shape[-1] == 1:
            return tf.reshape(y_true, tf.shape(y_pred))
        return y_true
    missing = y_pred.shape.rank - y_true.shape.rank
    if missing == 1 and y_pred.shape[-1] == 1:
        return tf.expand_dims(y_true, axis=-1)
    if missing == -1 and y_true.shape[-1] == 1:
        return tf.squeeze(y_true, axis=-1)
    return y_true


def probe_losses(
    loss: PerExampleLoss,
    targets: Any,
    guesses: Sequence[tf.Tensor],
    like: tf.Tensor,
) -> tf.Tensor:
    """Losses of a controller's probes, over all metalayers, float32 `[B]`.

    Args:
        loss: Function that returns the loss of each example.
        targets: `[B, ...]`.
        guesses: n tensors `[D_i, B, classes]`, or none.
        like: float32 `[B]`, gives the shape of the result.
    """
    total = tf.zeros_like(like)
    for guess in guesses:  # [D, B, classes]
        num_blocks = guess.shape[0] or 1
        losses = loss(
            tile_rows(tf.convert_to_tensor(targets), num_blocks),
            tf.reshape(guess, [-1, guess.shape[-1]]),
        )
        total += tf.reduce_mean(tf.reshape(losses, [num_blocks, -1]), axis=0)
    return total


def is_keras_loss(function: Any) -> bool:
    """Whether an object is a `keras.losses.Loss` or one of Keras's losses.

    Args:
        function: Any object, such as a user's reward.
    """
    if isinstance(function, functools.partial):
        function = function.func
    return isinstance(function, keras.losses.Loss) or any(
        function is known for known in vars(keras.losses).values()
    )


def takes_labels(loss: str | keras.losses.Loss | Callable) -> bool:
    """Whether the targets of a loss are integers, the indices of classes."""
    resolved: Any = keras.losses.get(loss)
    return resolved is keras.losses.sparse_categorical_crossentropy or (
        isinstance(resolved, keras.losses.SparseCategoricalCrossentropy)
    )


def check_labels(
    loss: str | keras.losses.Loss | Callable,
    labels: Any,
    output_shape: Sequence[int | None],
) -> None:
    """Raises `ValueError` if a label that is not ignored is no class.

    Args:
        loss: Loss that takes labels, in the form given to `compile`.
        labels: Integers `[N, ...]`.
        output_shape: Shape of one row of the model's output.
    """
    labels = np.asarray(labels)
    num_classes = output_shape[-1]
    as_many_axes = labels.ndim == 1 + len(output_shape)
    if as_many_axes and labels.shape[-1] == num_classes != 1:
        raise ValueError(
            f"Loss {loss!r} takes the numbers of classes as targets, one for "
            f"each row, got shape {labels.shape}. For one-hot targets compile "
            "the model with CategoricalCrossentropy(from_logits=True)."
        )
    labels = labels[is_known(loss, labels)]
    in_doubt = num_classes == 1 or np.any(labels != np.round(labels))
    if labels.size and in_doubt:
        raise ValueError(
            f"Loss {loss!r} takes the numbers of classes as targets, got "
            f"targets from {labels.min()} to {labels.max()} for a model of "
            f"{num_classes} outputs. Compile it with another loss, such as "
            "'mse', or BinaryCrossentropy(from_logits=True) for one output."
        )
    validation.check_labels(labels, num_classes)


def is_known(loss: Any, labels: np.ndarray) -> np.ndarray:
    """Which labels are not the loss's `ignore_class`, as bool `[N, ...]`."""
    ignored = getattr(loss, "ignore_class", None)
    return np.ones(labels.shape, bool) if ignored is None else labels != ignored


def check_activation(
    loss: str | keras.losses.Loss | Callable, layer: keras.layers.Layer
) -> None:
    """Raises `ValueError` if a layer ends in what the loss of logits computes.

    Args:
        loss: Loss in the form given to `compile`.
        layer: Layer that gives outputs of the model.

    Example:
        >>> check_activation("mse", keras.layers.Dense(3, "softmax"))
    """
    resolved: Any = keras.losses.get(loss)
    if not getattr(resolved, "from_logits", False):
        return
    last = _last_layer(layer)
    found = getattr(last, "activation", type(last))
    for activation, known in _CLASSIFIERS.items():
        is_applied = found in _ACTIVATIONS[activation]
        if is_applied and _is_one_of(resolved, known):
            raise ValueError(
                f"Loss {loss!r} takes logits, but {layer.name!r} ends in a "
                "softmax or sigmoid, which would be applied twice: leave it "
                "out, or compile the model with a loss of probabilities."
            )


def _last_layer(layer: keras.layers.Layer) -> Any:
    """The layer that gives the output of a layer or a model."""
    while isinstance(layer, keras.Model):
        if isinstance(layer, keras.Sequential):
            inner = layer.layers[-1:]
        else:  # A model of a subclass has no outputs.
            outputs = getattr(layer, "outputs", None) or []
            inner = [tensor._keras_history.operation for tensor in outputs]
        if len(inner) != 1:
            break
        (layer,) = inner
    return layer


def check_logits(
    loss: str | keras.losses.Loss | Callable, needed_by: str
) -> None:
    """Raises `ValueError` unless a loss is a softmax classifier's on logits.

    Args:
        loss: Loss in the form given to `compile`.
        needed_by: Name of the feature that needs it, for the error.
    """
    resolved: Any = keras.losses.get(loss)
    known = _CLASSIFIERS[tf.nn.softmax]
    is_softmax = _is_one_of(resolved, known)
    if not (is_softmax and getattr(resolved, "from_logits", False)):
        raise ValueError(
            f"{needed_by} needs a softmax classifier trained on logits, such "
            "as by SparseCategoricalCrossentropy(from_logits=True), got "
            f"loss {loss!r}."
        )


def predictions(
    loss: str | keras.losses.Loss | Callable, outputs: tf.Tensor
) -> dict[str, tf.Tensor]:
    """What a deployed model returns, named by the loss it was trained on.

    Args:
        loss: Loss in the form given to `compile`.
        outputs: `[B, ...]`, the outputs of the model.

    Returns:
        float32 `[B, ...]` tensors by name: `logits` and `probabilities`,
        equation (5), for a classifier trained on logits; `probabilities` for
        one trained on probabilities; `outputs` otherwise.

    Example:
        >>> list(predictions("mse", tf.zeros([2, 1])))
        ['outputs']
    """
    outputs = tf.cast(outputs, tf.float32)
    resolved: Any = keras.losses.get(loss)
    for activation, known in _CLASSIFIERS.items():
        if _is_one_of(resolved, known):
            if not getattr(resolved, "from_logits", False):
                return {"probabilities": outputs}
            return {"logits": outputs, "probabilities": activation(outputs)}
    return {"outputs": outputs}


def _is_one_of(loss: Any, known: Sequence[Any]) -> bool:
    """Whether a loss is one of the known functions or classes."""
    classes = tuple(item for item in known if isinstance(item, type))
    return loss in known or isinstance(loss, classes)
