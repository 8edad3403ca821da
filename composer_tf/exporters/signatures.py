"""A routed model as TensorFlow functions of named inputs."""

import inspect
import keyword
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from composer_tf.exporters.exposure import STEER_BY, Exposure, SteerBy
from composer_tf.exporters.routed_model import RoutedModel
from composer_tf.policy import STEERING

# Signatures of an artifact; no format has all of them.
MAIN = "serving_default"  # Takes gamma, or the input in its place.
DEFAULT_GAMMA = "default_gamma"  # Takes no gamma.
BUDGET = "budget"  # Takes a budget.
BATCH = "batch"  # Takes a static number of rows.
FORCED = "forced"  # Also takes paths, by the input `override`.

# Input, int32 [batch, n]: modules to take, -1 to ask the controller.
OVERRIDE = "override"

# An ONNX file has one namespace for inputs and outputs.
_OUTPUTS = (
    "logits",
    "probabilities",
    "outputs",
    "choices",
    "module_probabilities",
    "cost",
)
_RESERVED = (*STEER_BY, OVERRIDE, *_OUTPUTS)
_NAME = re.compile("[A-Za-z][A-Za-z0-9_]*")


def check_names(names: Iterable[Any]) -> None:
    """Raises `ValueError` unless an artifact can have inputs of these names.

    Example:
        >>> check_names(["left_eye", "right_eye"])
    """
    for name in names:
        is_free = name not in _RESERVED and not keyword.iskeyword(name)
        if not (is_free and _NAME.fullmatch(str(name))):
            raise ValueError(
                "The name of an input, which artifacts have too, must be a "
                "word of Python, of ASCII letters, digits and '_', and none "
                f"of their own, {_RESERVED}, got {name!r}: rename it."
            )


def signature(
    model: RoutedModel,
    exposure: Exposure,
    routing: str,
    batch_size: int | None = None,
    steer_by: SteerBy | None = "gamma",
    with_override: bool = False,
) -> Any:
    """A `tf.function` of named inputs, traced for one batch size or any.

    Args:
        model: Model to run.
        exposure: Exposure of its gammas.
        routing: Name of a strategy of `composer_tf.layers.routing`.
        batch_size: Static batch size, or `None` for any.
        steer_by: Name of the input that steers, `"gamma"` or `"budget"`; with
            `None` the default gamma is used.
        with_override: Whether `override` is an input.

    Returns:
        Function whose keyword arguments are the inputs; the one that steers has
        a default.

    Raises:
        ValueError: If `budget` is an input and the model is not calibrated.
    """
    specs: dict[str, tf.TensorSpec] = {
        name: tf.TensorSpec([batch_size, *spec.shape[1:]], spec.dtype, name)
        for name, spec in model.inputs.items()
    }
    steering = exposure.spec(batch_size, steer_by) if steer_by else None
    if with_override:
        specs[OVERRIDE] = tf.TensorSpec(
            [batch_size, model.num_metalayers], tf.int32, OVERRIDE
        )

    def run(**tensors: tf.Tensor) -> dict[str, tf.Tensor]:
        # A server checks no shapes: without this, [2, 32] could pass for
        # [4, 16] where a model flattens.
        for name, spec in specs.items():
            tensors[name] = tf.ensure_shape(tensors[name], spec.shape)
        choices = tensors.pop(OVERRIDE, None)
        gamma = tensors.pop(steer_by, None) if steer_by else None
        with tf.name_scope(STEERING):
            if gamma is not None and steering is not None:
                gamma = tf.ensure_shape(gamma, steering.shape)
                if steer_by == "budget":
                    gamma = exposure.gamma_of(gamma)
            gamma = exposure.complete(gamma)
        return model.forward(tensors, gamma, choices, routing)

    default = exposure.default_of(steer_by or "gamma")
    if batch_size is not None:
        default = np.repeat(default, batch_size, axis=0)
    return _with_parameters(run, specs, steering, default)


def resources_read(signatures: Mapping[str, Any]) -> set[int]:
    """The ids of the handles of all variables and tables that they read.

    Args:
        signatures: Functions by name.
    """
    return {
        id(tensor)
        for function in signatures.values()
        for tensor in function.get_concrete_function().captured_inputs
    }


def _with_parameters(
    run: Callable[..., dict[str, tf.Tensor]],
    specs: Mapping[str, tf.TensorSpec],
    steering: tf.TensorSpec | None,
    default: np.ndarray,
) -> Any:
    """`run` as a `tf.function` with one Python parameter for each input.

    TensorFlow takes the default of a signature's input from the default of the
    Python parameter.
    """
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter(name, kind) for name in specs]
    signature = list(specs.values())
    if steering is not None:
        parameters.append(
            inspect.Parameter(
                str(steering.name), kind, default=tf.constant(default)
            )
        )
        signature.append(steering)
    described = inspect.Signature(parameters)

    def function(*args, **kwargs):
        bound = described.bind(*args, **kwargs)
        return run(**bound.arguments)

    function.__signature__ = described  # type: ignore[attr-defined]
    return tf.function(function, input_signature=signature, autograph=False)
