"""One path of a Composer as a network of its own."""

from collections.abc import Sequence
from typing import Any, Self

import keras
import tensorflow as tf

from composer_tf.composer.replicated_model import ReplicatedModel


@keras.saving.register_keras_serializable(package="composer_tf")
class PathNetwork(ReplicatedModel):
    """The static network that a user would train instead of a Composer.

    Args:
        steps: Layers in order; those along a path of an untrained Composer are
            `composer.layers_along(path)`.

    Call arguments:
        inputs: Input of the first layer.
        training: Bool.

    Returns:
        Output of the last layer.

    Example:
        >>> dense = keras.layers.Dense
        >>> PathNetwork([dense(4), dense(2)])(tf.ones([3, 5])).shape
        TensorShape([3, 2])
    """

    def __init__(
        self, steps: Sequence[keras.layers.Layer], **kwargs: Any
    ) -> None:
        super().__init__(**{**kwargs, "autocast": False})
        self.steps = list(steps)

    def call(self, inputs: Any, training: bool | None = None) -> tf.Tensor:
        activations = inputs
        for step in self.steps:
            activations = step(activations, training=training)
        return activations

    def get_config(self) -> dict[str, Any]:
        steps = keras.saving.serialize_keras_object(self.steps)
        return {**super().get_config(), "steps": steps}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        steps = keras.saving.deserialize_keras_object(config["steps"])
        return cls(**{**config, "steps": steps})
