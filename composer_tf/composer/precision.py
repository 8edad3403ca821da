"""Float32 copies of mixed-precision models, for devices that need them."""

import tempfile
from typing import Any

import keras

_MIXED = ("mixed_bfloat16", "mixed_float16")
HALF = ("bfloat16", "float16")


def float32_copy(model: keras.Model) -> keras.Model:
    """The same model and weights, with no layer in mixed precision.

    Mixed precision keeps its weights in float32, so nothing is lost.

    Args:
        model: Built model whose classes are registered, as for saving.

    Returns:
        Copy, compiled with the same loss; or the model itself if none of its
        layers has mixed precision.

    Example:
        >>> dense = keras.layers.Dense(3, dtype="mixed_bfloat16")
        >>> model = keras.Sequential([keras.Input([2]), dense])
        >>> float32_copy(model).layers[0].compute_dtype
        'float32'
    """
    if not any(_is_mixed(layer) for layer in model._flatten_layers()):
        return model
    config: Any = keras.saving.serialize_keras_object(model)
    config.pop("compile_config", None)
    # A config of `Sequential` lacks its policy: it takes the global one.
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")
    try:
        copy: Any = keras.saving.deserialize_keras_object(_in_float32(config))
        if not copy.built:
            copy.build_from_config(model.get_build_config())
    finally:
        keras.config.set_dtype_policy(policy)
    _hand_over_state(model, copy)
    if getattr(model, "loss", None) is not None:
        copy.compile(loss=model.loss)
    return copy


def _is_mixed(layer: keras.layers.Layer) -> bool:
    """Whether a layer computes in half precision, or is an input of it."""
    if isinstance(layer, keras.layers.InputLayer):
        return layer.dtype in HALF
    return layer.dtype_policy.name in _MIXED


def _hand_over_state(model: keras.Model, copy: keras.Model) -> None:
    """Copies all that saving and loading would, such as vocabularies."""
    copy.set_weights(model.get_weights())
    layers = zip(model._flatten_layers(), copy._flatten_layers(), strict=True)
    for layer, twin in layers:
        store: dict[str, Any] = {}
        layer.save_own_variables(store)
        twin.load_own_variables(store)
        if hasattr(layer, "save_assets"):
            with tempfile.TemporaryDirectory() as folder:
                layer.save_assets(folder)
                twin.load_assets(folder)


def _in_float32(config: Any) -> Any:
    """A config with every mixed policy replaced, by name or as an object.

    Half-precision types of a model's inputs are replaced too.
    """
    if isinstance(config, dict):
        replaced = {key: _in_float32(value) for key, value in config.items()}
        if config.get("class_name") == "InputLayer":
            inner = replaced["config"]
            if inner["dtype"] in HALF:
                replaced["config"] = inner | {"dtype": "float32"}
        return replaced
    if isinstance(config, (list, tuple)):
        return type(config)(_in_float32(value) for value in config)
    return "float32" if config in _MIXED else config
