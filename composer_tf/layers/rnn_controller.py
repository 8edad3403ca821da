"""The recurrent controller of the paper."""

from collections.abc import Sequence

import keras
import tensorflow as tf

from composer_tf.layers.controller import Controller, one_hot
from composer_tf.layers.lean_steps import gru_step


@keras.saving.register_keras_serializable(package="composer_tf")
class RNNController(Controller):
    """Controller functions that share weights and a hidden state (section 2).

    At each metalayer a GRU cell reads a projection of the activations, the
    previously chosen module, and gamma. The cell and the head are shared; the
    projection is not, as activations differ in shape.

    Args:
        units: Size of the hidden state, int >= 1. Defaults to 32.
        grid: Cells per spatial axis that activations are pooled to, int >= 1.
            Defaults to 4.
        max_gap: Largest gap of a logit below the greatest, float > 0, or
            `None` for no bound. Defaults to 4.
        price_factor: Growth in nats of the gap between logits, along gamma and
            before training (`Controller`), float >= 0. Defaults to 16.
        probe: Whether the controller guesses the answer of a classifier before
            each metalayer. Defaults to false.

    Example:
        >>> RNNController(units=16).get_config()["units"]
        16
    """

    def build_steps(
        self,
        feature_sizes: Sequence[int],
        num_modules: Sequence[int],
        num_gammas: int,
    ) -> None:
        self._num_modules = list(num_modules)
        self.projections = [
            keras.layers.Dense(
                self.units,
                activation="relu",
                dtype="float32",
                name=f"projection_{i}",
            )
            for i in range(len(feature_sizes))
        ]
        for projection, size in zip(
            self.projections, feature_sizes, strict=True
        ):
            projection.build((None, size))
        depth = max(num_modules)
        self.cell = keras.layers.GRUCell(self.units, dtype="float32")
        self.cell.build((None, self.units + depth + num_gammas))
        self.head = keras.layers.Dense(depth, dtype="float32", name="head")
        self.head.build((None, self.units))

    def initial_state(self, batch_size: tf.Tensor) -> tf.Tensor:
        return tf.zeros([1, self.units])  # A constant: exporters fold it.

    def call(
        self,
        features: tf.Tensor,
        previous_choices: tf.Tensor | None,
        gamma: tf.Tensor,
        state: tf.Tensor,
        index: int,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        depth = max(self._num_modules)
        projected = self.projections[index](features)
        if previous_choices is None:
            seen = [tf.pad(projected, [[0, 0], [0, depth]])]
        else:
            seen = [projected, one_hot(previous_choices, depth)]
        inputs = tf.concat([*seen, gamma], axis=-1)
        hidden = gru_step(self.cell, inputs, state)  # [B, units]
        logits = self.head(hidden)
        if self._num_modules[index] < depth:
            logits = logits[:, : self._num_modules[index]]
        return logits, hidden
