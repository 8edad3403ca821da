"""A controller whose functions share nothing."""

from collections.abc import Sequence

import keras
import tensorflow as tf

from composer_tf.layers.controller import Controller, one_hot


@keras.saving.register_keras_serializable(package="composer_tf")
class FeedForwardController(Controller):
    """One small network per metalayer, without a hidden state.

    g_i sees the activations before metalayer i, the previous choice, and gamma.

    Args:
        units: Size of each hidden layer, int >= 1. Defaults to 32.
        grid: Cells per spatial axis that activations are pooled to, int >= 1.
            Defaults to 4.
        max_gap: Largest gap of a logit below the greatest, float > 0, or
            `None` for no bound. Defaults to 4.
        price_factor: Growth in nats of the gap between logits, along gamma and
            before training (`Controller`), float >= 0. Defaults to 16.
        probe: Whether the controller guesses the answer of a classifier before
            each metalayer. Defaults to false.

    Example:
        >>> FeedForwardController(units=16).get_config()["units"]
        16
    """

    def build_steps(
        self,
        feature_sizes: Sequence[int],
        num_modules: Sequence[int],
        num_gammas: int,
    ) -> None:
        self._num_modules = list(num_modules)
        self.networks = []
        for i, size in enumerate(feature_sizes):
            network = keras.Sequential(
                [
                    keras.layers.Dense(
                        self.units, activation="relu", dtype="float32"
                    ),
                    keras.layers.Dense(num_modules[i], dtype="float32"),
                ],
                name=f"controller_{i}",
            )
            previous = 0 if i == 0 else num_modules[i - 1]
            network.build((None, size + previous + num_gammas))
            self.networks.append(network)

    def initial_state(self, batch_size: tf.Tensor) -> tf.Tensor:
        return tf.zeros([batch_size, 0])

    def call(
        self,
        features: tf.Tensor,
        previous_choices: tf.Tensor | None,
        gamma: tf.Tensor,
        state: tf.Tensor,
        index: int,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        inputs = [features, gamma]
        if previous_choices is not None:
            inputs.append(
                one_hot(previous_choices, self._num_modules[index - 1])
            )
        logits = self.networks[index](tf.concat(inputs, axis=-1))
        return logits, state
