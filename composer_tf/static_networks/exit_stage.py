"""A part of a network, followed by an exit."""

from collections.abc import Sequence
from typing import Any, Self

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="composer_tf")
class ExitStage(keras.layers.Layer):
    """The layers from one exit to the next, and the exit after them.

    The exit averages over the axes between batch and channels, and has one
    dense layer. The last stage has no exit: its layers end in logits.

    Args:
        steps: Layers in order.
        num_classes: Number of classes of the exit; `None` for the last stage.

    Call arguments:
        inputs: Input of the first layer.
        training: Bool.

    Returns:
        Activations of the last layer, and logits float32 `[B, num_classes]`.
    """

    def __init__(
        self,
        steps: Sequence[keras.layers.Layer],
        num_classes: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{**kwargs, "autocast": False})
        self.steps = list(steps)
        self.num_classes = num_classes
        self.exit = None
        if num_classes is not None:
            self.exit = keras.layers.Dense(num_classes, dtype="float32")

    def build(self, input_shape: Any) -> None:
        activations_shape = self._shape_behind(input_shape)
        if self.exit is not None:
            self.exit.build((None, activations_shape[-1]))
        self.built = True

    def compute_output_shape(self, input_shape: Any) -> tuple[Any, Any]:
        shape = self._shape_behind(input_shape)
        return shape, (shape[0], self.num_classes or shape[-1])

    def _shape_behind(self, input_shape: Any) -> Any:
        """Shape of the activations; builds layers that are not built yet."""
        activations: Any = keras.tree.map_shape_structure(
            keras.KerasTensor, input_shape
        )
        for step in self.steps:
            activations = step(activations)
        return activations.shape

    def call(
        self, inputs: Any, training: bool | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        activations = inputs
        for step in self.steps:
            activations = step(activations, training=training)
        logits = tf.cast(activations, tf.float32)
        if self.exit is not None:
            between = range(1, logits.shape.rank - 1)
            logits = self.exit(tf.reduce_mean(logits, axis=between))
        return activations, logits

    def get_config(self) -> dict[str, Any]:
        steps = keras.saving.serialize_keras_object(self.steps)
        config = super().get_config()
        return {**config, "steps": steps, "num_classes": self.num_classes}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        steps = keras.saving.deserialize_keras_object(config["steps"])
        return cls(**{**config, "steps": steps})
