"""Checks of arguments and data, with errors that say what to change."""

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

_MAX_CAUSE = 300  # Characters of a message from Keras.


def keras_cause(error: Exception) -> str:
    """The line of a Keras error that says what is wrong.

    Keras prints configurations above it, or the layer that was called, and
    arguments below it.

    Example:
        >>> keras_cause(TypeError("config={}. Exception encountered: No."))
        'No.'
    """
    message = re.sub(r"\x1b\[\d+m", "", str(error))  # Without bold type.
    message = message.rpartition("Exception encountered: ")[2]
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].startswith("Exception encountered when"):
        del lines[0]
    return lines[0][:_MAX_CAUSE] if lines else ""


def check_choice(name: str, value: Any, allowed: Sequence[str]) -> None:
    """Raises `ValueError` unless `value` is one of `allowed`."""
    if value not in allowed:
        raise ValueError(
            f"`{name}` must be one of {tuple(allowed)}, got {value!r}."
        )


def check_layers(name: str, layers: Sequence[Any]) -> None:
    """Raises unless all are Keras layers that share no layer."""
    for layer in layers:
        if not isinstance(layer, keras.layers.Layer):
            raise TypeError(f"`{name}` must hold Keras layers, got {layer!r}.")
    seen: set[int] = set()
    for layer in layers:
        parts = {
            id(part): part
            for part in layer._flatten_layers()
            if not isinstance(part, keras.layers.InputLayer)
        }
        for key in parts.keys() & seen:
            raise ValueError(
                f"Layer {parts[key].name!r} stands twice in `{name}`; saving "
                "could not keep its weights shared. Make two layers."
            )
        seen |= parts.keys()


def check_metric_names(metrics: Any, taken: Sequence[str]) -> None:
    """Raises `ValueError` for a metric named like one that is always logged.

    Args:
        metrics: Names, functions or objects, nested in any form for `compile`.
        taken: Names of what is always logged.
    """
    for metric in keras.tree.flatten(metrics):
        name = getattr(metric, "name", getattr(metric, "__name__", metric))
        if name in taken:
            raise ValueError(
                f"A metric is named {name!r}, but the model logs {taken} of "
                "itself: give the metric another name."
            )


def check_arrays(x: Any, y: Any) -> None:
    """Raises `ValueError` if `y` is missing, or an array is not finite.

    Data sets are not read.

    Args:
        x: Inputs in any form for `keras.Model.fit`.
        y: Targets.
    """
    arrays = x if isinstance(x, Mapping) else {"x": x}
    in_memory = all(hasattr(array, "shape") for array in arrays.values())
    if y is None and in_memory:
        raise ValueError("`y` must be given with `x`, got None.")
    if y is None or isinstance(x, tf.data.Dataset):
        return
    for name, array in arrays.items():
        check_finite(name, array)
    check_finite("y", y)


def check_finite(name: str, array: Any) -> None:
    """Raises `ValueError` if an array of floats holds NaN or infinity."""
    if not hasattr(array, "dtype") or not hasattr(array, "shape"):
        return
    array = np.asarray(array)
    if array.dtype.kind != "f":
        return
    bad = ~np.isfinite(array)
    if bad.any():
        first = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ValueError(
            f"`{name}` must be finite, but {int(bad.sum())} of its values are "
            f"not, the first at index {first}."
        )


def check_rereadable(data: Any) -> None:
    """Raises `ValueError` for data that can be read only once."""
    if isinstance(data, Iterator):
        raise ValueError(
            "`data` is read several times, and must not be a generator or "
            f"iterator, got {type(data).__name__}."
        )


def check_targets(data: Any) -> None:
    """Raises unless targets are one array, and each example has one weight.

    Shapes that are not known yet, in a traced function, are not checked.

    Args:
        data: `(x, y, sample_weight)` or the first of them, as in Keras; or a
            `tf.data.Dataset` of these, which is not read.

    Raises:
        TypeError: If there are several targets.
        ValueError: If a weight is not finite, or there is not one per example.
    """
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    if isinstance(y, Mapping | tuple) or (
        isinstance(y, list) and any(np.ndim(part) for part in y)
    ):
        raise TypeError(
            "The targets must be one array or tensor, as a Composer has one "
            f"output, got a {type(y).__name__}."
        )
    if not tf.is_symbolic_tensor(sample_weight):
        check_finite("sample_weight", sample_weight)
    if isinstance(x, tf.data.Dataset):
        *_, sample_weight = keras.utils.unpack_x_y_sample_weight(x.element_spec)
    shape = getattr(sample_weight, "shape", None)
    fitting = (tf.TensorShape([None]), tf.TensorShape([None, 1]))
    if not any(fit.is_compatible_with(shape) for fit in fitting):
        raise ValueError(
            "`sample_weight` must be [B] or [B, 1], one weight per example, "
            f"got shape {shape}."
        )


def check_labels(labels: Any, num_classes: int | None) -> None:
    """Raises `ValueError` if integer labels are outside `[0, num_classes)`."""
    labels = np.asarray(labels)
    if num_classes is None:
        return
    if labels.size and not (labels.min() >= 0 and labels.max() < num_classes):
        raise ValueError(
            f"The data holds labels from {labels.min()} to {labels.max()}, but "
            f"the model has {num_classes} classes: 0 to {num_classes - 1}."
        )


def label_vector(labels: Any, num_rows: int) -> np.ndarray:
    """Class labels as int64 `[N]`.

    Args:
        labels: Integers `[N]`, or `[N, 1]`, which Keras allows too.
        num_rows: Number of rows N.

    Raises:
        ValueError: If the labels are something else, such as one-hot.

    Example:
        >>> label_vector([[2], [0]], num_rows=2)
        array([2, 0])
    """
    labels = np.asarray(labels)
    fits = labels.shape in ((num_rows,), (num_rows, 1))
    if not fits or labels.dtype.kind not in "iu":
        raise ValueError(
            f"`labels` must be integers [N], here [{num_rows}], got shape "
            f"{labels.shape}, dtype {labels.dtype}."
        )
    return labels.reshape(-1).astype(np.int64)


@contextlib.contextmanager
def named_labels() -> Iterator[None]:
    """Replaces TensorFlow's error about a label by one that is easy to read.

    Labels in a data set are seen only when they are used; checking them
    beforehand would read the data twice.

    Raises:
        ValueError: If TensorFlow raises that error.
    """
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        found = re.search(
            r"label value of (-?\d+) which is outside .* \[0, (\d+)\)",
            str(error),
        )
        if found is None:
            raise
        label, num_classes = map(int, found.groups())
        raise ValueError(
            f"The data holds label {label}, but the model has {num_classes} "
            f"classes: 0 to {num_classes - 1}."
        ) from None  # The original is a page long.


def check_input_names(inputs: Any, built_for: Any) -> None:
    """Raises `ValueError` unless inputs are those that a model was built for.

    Args:
        inputs: One tensor, or a mapping by name that may hold `"gamma"`.
        built_for: Shape of a single input, or shapes by name.
    """
    single = not isinstance(built_for, Mapping) or len(built_for) == 1
    if not isinstance(inputs, Mapping):
        if single:
            return
        got = type(inputs).__name__
    else:
        got = sorted(name for name in inputs if name != "gamma")
        # The one input of a model may have any name.
        if len(got) == 1 if single else set(got) == set(built_for):
            return
    wanted = "one tensor" if single else f"a mapping of {sorted(built_for)}"
    raise ValueError(
        f"The inputs must be {wanted}, with nothing but 'gamma' beside, got "
        f"{got}. All else, such as a budget, is an argument of the call."
    )


def ensure_input_shape(
    inputs: Any, built_for: Any, activations: Any, wanted: Sequence[int | None]
) -> Any:
    """Refuses inputs that do not have the size a model is built for.

    The check is after the stem, which may map several sizes to one.

    Args:
        inputs: One tensor, or a mapping of tensors.
        built_for: Shape, or shapes by name, that the model was built for.
        activations: `[B, ...]`, the output of the stem.
        wanted: Shape of the stem's output for which the model was built.

    Returns:
        `activations`, of that shape. Where it is not known before they are
        computed, as when Keras meets a second size and traces a function for
        any, an `InvalidArgumentError` is raised then.

    Raises:
        ValueError: If the shape is another.
    """
    shape = tf.TensorShape(wanted)
    if shape.is_compatible_with(activations.shape):
        if shape.merge_with(activations.shape) == activations.shape:
            return activations
        mask = getattr(activations, "_keras_mask", None)
        activations = tf.ensure_shape(activations, shape)
        if mask is not None:
            activations._keras_mask = mask
        return activations
    if isinstance(inputs, Mapping):
        got: Any = {name: tuple(x.shape) for name, x in inputs.items()}
    else:
        got = tuple(inputs.shape)
    raise ValueError(
        f"The inputs must have the shape that the model was built for, "
        f"{built_for}, got {got}."
    )


def check_paths(
    choices: Any,
    num_modules: Sequence[int],
    name: str = "choices",
    least: int = -1,
) -> None:
    """Raises `ValueError` unless `[R, n]` choices are in `[least, m_i)`.

    Values that are not known yet, in a traced function, are not checked.

    Args:
        choices: Tensor or array.
        num_modules: Numbers of modules m_1, ..., m_n.
        name: Name of the argument in the error.
        least: Smallest value allowed: 0 for modules only, -1 if the controller
            may be asked, -2 if a module may be drawn uniformly.
    """
    if len(choices.shape) != 2 or choices.shape[1] != len(num_modules):
        raise ValueError(
            f"`{name}` must be [rows, {len(num_modules)}], one column per "
            f"metalayer, got shape {tuple(choices.shape)}."
        )
    if tf.is_symbolic_tensor(choices):
        return
    values = np.asarray(choices)
    others = (", or -1 to ask the controller", ", or -2 for any alike")
    if np.any(values < least) or np.any(values >= np.array(num_modules)):
        raise ValueError(
            f"`{name}` must be from 0 to {[m - 1 for m in num_modules]}"
            f"{''.join(others[:-least])}, got {values.tolist()}."
        )
