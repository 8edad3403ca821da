"""A static network with early exits, an alternative to a Composer."""

from collections.abc import Sequence
from typing import Any, Self

import keras
import tensorflow as tf

from composer_tf.composer.replicated_model import ReplicatedModel
from composer_tf.static_networks.exit_stage import ExitStage


@keras.saving.register_keras_serializable(package="composer_tf")
class EarlyExitNetwork(ReplicatedModel):
    """A classifier that may answer before its last layer.

    All exits are trained together, on the mean of their losses. At test time
    an example leaves at the first exit that is confident enough
    (`evaluation.early_exit`).

    Args:
        stages: Two or more stages in order; all but the last have an exit.

    Raises:
        ValueError: If they are not, or exits differ in their number of
            classes.

    Call arguments:
        inputs: Input of the first stage.
        training: Bool.

    Returns:
        Logits of every exit, float32 `[B, len(stages), num_classes]`.

    References:
        Teerapittayanon, McDanel and Kung (2016), BranchyNet: fast inference
        via early exiting from deep neural networks.

    Example:
        >>> dense = keras.layers.Dense
        >>> stages = [ExitStage([dense(4)], num_classes=3),
        ...           ExitStage([dense(3)])]
        >>> EarlyExitNetwork(stages)(tf.ones([2, 5])).shape
        TensorShape([2, 2, 3])
    """

    def __init__(self, stages: Sequence[ExitStage], **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "autocast": False})
        self.stages = list(stages)
        *classes, last = (stage.num_classes for stage in self.stages)
        if not classes or last is not None or None in classes:
            raise ValueError(
                "`stages` must be two or more of which all but the last have "
                f"an exit, got exits of {[*classes, last]} classes."
            )
        if len(set(classes)) > 1:
            raise ValueError(
                f"`stages` must have exits of the same classes, got {classes}."
            )

    def build(self, input_shape: Any) -> None:
        shape = input_shape
        for stage in self.stages:
            if not stage.built:
                stage.build(shape)
            shape = stage.compute_output_shape(shape)[0]
        self.built = True

    def build_from_config(self, config: dict[str, Any]) -> None:
        self.build(config["input_shape"])

    def call(self, inputs: Any, training: bool | None = None) -> tf.Tensor:
        activations, answers = inputs, []
        for stage in self.stages:
            activations, logits = stage(activations, training=training)
            answers.append(logits)
        return tf.stack(answers, axis=1)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool | None = True,
    ) -> tf.Tensor:
        """The mean over the exits; the loss is for integer labels."""

        def for_each_exit(values: Any) -> tf.Tensor:
            return tf.repeat(tf.reshape(values, [-1, 1]), len(self.stages), 1)

        if sample_weight is not None:
            sample_weight = for_each_exit(sample_weight)
        return super().compute_loss(
            x, for_each_exit(y), y_pred, sample_weight, training
        )

    def compute_metrics(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None
    ) -> dict[str, Any]:
        """Metrics of the last exit."""
        return super().compute_metrics(x, y, y_pred[:, -1], sample_weight)

    def get_config(self) -> dict[str, Any]:
        stages = keras.saving.serialize_keras_object(self.stages)
        return {**super().get_config(), "stages": stages}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        stages = keras.saving.deserialize_keras_object(config["stages"])
        return cls(**{**config, "stages": stages})
