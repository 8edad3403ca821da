"""The base of all controllers: how they see activations, their contract."""

import abc
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from composer_tf.layers.floor_gaps import floor_gaps
from composer_tf.layers.lean_steps import normalize
from composer_tf.layers.summary import Shape, summarize, summary_size


class Observation(NamedTuple):
    """The part of activations that a controller sees.

    Attributes:
        summary: float32 `[B, s]`, average activations, normalized.
        features: float32 `[B, d]`, the summary; with a probe, also the
            probabilities of its guess, the highest one, and their entropy.
        guess: float32 `[B, classes]`, logits of the probe, or `None`.
    """

    summary: tf.Tensor
    features: tf.Tensor
    guess: tf.Tensor | None


class Controller(keras.layers.Layer, abc.ABC):
    """The functions g_1, ..., g_n of equation (2), given gamma too.

    The Composer asks it once per metalayer, in order. Activations of any rank
    are summarized to one float32 vector: spatial axes are average-pooled to at
    most `grid` cells each. The whole controller computes in float32, also under
    mixed precision.

    How far a logit may lie below the greatest is bounded, so that every module
    keeps a chance of being tried: a policy that is certain too early would
    never learn that another module has become better. With the default of 4 and
    two modules that chance is at least 1.8%. Being tried is not enough if its
    gradient is lost: far beyond its bound a tanh passes no gradient, and the
    policy stays where it is. This bound (`floor_gaps`) always passes the
    gradient that leads back.

    What gamma charges for a module is known and need not be learned: a multiple
    of the price is subtracted from the logits. Otherwise a policy whose gammas
    favor cheap modules on average may settle on them before it notices gamma.

    Which examples gain from an expensive module depends on how sure the model
    is about them at that point, and average activations show little of that.
    With `probe`, a linear classifier of each summary is trained beside the
    model, on the same loss, and the controller sees the probabilities of its
    guess, the highest one, and their entropy. No gradient of a probe reaches
    the modules.

    A subclass implements `build_steps`, `initial_state` and `call`; prices and
    the bound are applied to the logits it returns (`finalize_logits`).

    Args:
        units: Size of the hidden representation, int >= 1. Defaults to 32.
        grid: Cells per spatial axis that the activations are pooled to, int
            >= 1. Defaults to 4. More cells show the controller finer detail and
            raise its cost.
        max_gap: Largest gap of a logit below the greatest, float > 0, or `None`
            for no bound. Defaults to 4.
        price_factor: Growth in nats of the gap between the logits of the
            dearest and the cheapest module from one end of gamma's support to
            the other, before training, float >= 0, in the metalayer whose costs
            differ most; it is less, in proportion, in others. There is no such
            gap at gamma 0. The factor is trained; a factor of 0 leaves prices
            to be learned. Defaults to 16.
        probe: Whether the controller guesses the answer of a classifier before
            each metalayer. Defaults to false.

    Raises:
        ValueError: If `units` or `grid` is smaller than 1, `max_gap` is not
            above 0, or `price_factor` is negative or not finite.
    """

    def __init__(
        self,
        units: int = 32,
        grid: int = 4,
        max_gap: float | None = 4.0,
        price_factor: float = 16.0,
        probe: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        for name, value in (("units", units), ("grid", grid)):
            if value < 1:
                raise ValueError(f"`{name}` must be at least 1, got {value}.")
        if max_gap is not None and not max_gap > 0:
            raise ValueError(f"`max_gap` must be above 0, got {max_gap}.")
        if not 0.0 <= price_factor < float("inf"):
            raise ValueError(
                "`price_factor` must be finite and at least 0, got "
                f"{price_factor}."
            )
        self.units = units
        self.grid = grid
        self.max_gap = max_gap
        self.price_factor = price_factor
        self.probe = probe

    def build(
        self,
        activation_shapes: Sequence[Shape],
        num_modules: Sequence[int],
        num_gammas: int,
        has_prices: bool = False,
        output_row_shape: Sequence[int | None] = (),
    ) -> None:
        """Creates the weights for a given sequence of metalayers.

        Args:
            activation_shapes: n shapes with the batch axis, those of the input
                of each metalayer.
            num_modules: Numbers of modules m_1, ..., m_n.
            num_gammas: Number k of gammas that steer the policy.
            has_prices: Whether one of them charges for modules.
            output_row_shape: Shape of one row of the model's output, which
                probes guess.

        Raises:
            ValueError: If it is already built for something else, activations
                cannot be summarized, images have channels first, or there is
                nothing for probes to guess.
        """
        arguments = {
            "activation_shapes": [list(shape) for shape in activation_shapes],
            "num_modules": list(num_modules),
            "num_gammas": num_gammas,
            "has_prices": has_prices,
            "output_row_shape": list(output_row_shape),
        }
        if self.built:
            if arguments != self._build_arguments:
                raise ValueError(
                    f"Controller {self.name!r} is built for "
                    f"{self._build_arguments}, but this model needs "
                    f"{arguments}: make a controller of its own."
                )
            return
        are_images = any(len(shape) > 3 for shape in activation_shapes)
        if are_images and keras.config.image_data_format() != "channels_last":
            raise ValueError(
                "The controller needs activations with channels last: call "
                "`keras.config.set_image_data_format('channels_last')`."
            )
        self._build_arguments = arguments
        self._shapes = [tuple(shape) for shape in activation_shapes]
        self._build_observation(output_row_shape)
        self.build_steps(
            [self.feature_size(i) for i in range(len(num_modules))],
            list(num_modules),
            num_gammas,
        )
        self.price_scale = None
        if has_prices and self.price_factor:
            self.price_scale = self.add_weight(
                name="price_scale",
                shape=(),
                initializer=keras.initializers.Constant(self.price_factor),
                autocast=False,  # `finalize_logits` is not a part of `call`.
            )
        self.built = True
        if not self.trainable:  # Otherwise layers made here would be.
            self.trainable = False

    def _build_observation(
        self, output_row_shape: Sequence[int | None]
    ) -> None:
        """Creates the weights of `observe`."""
        if self.probe and (
            len(output_row_shape) != 1 or output_row_shape[0] is None
        ):
            raise ValueError(
                "A controller with `probe=True` needs a classifier, whose "
                "outputs are [batch, classes], got "
                f"{['batch', *output_row_shape]}."
            )
        self.norms: list[keras.layers.LayerNormalization] = []
        self.probes: list[keras.layers.Dense] = []
        for i, shape in enumerate(self._shapes):
            size = summary_size(shape, self.grid)
            norm = keras.layers.LayerNormalization(
                dtype="float32", name=f"norm_{i}"
            )
            norm.build((None, size))
            self.norms.append(norm)
            if self.probe:
                probe = keras.layers.Dense(
                    output_row_shape[0], dtype="float32", name=f"probe_{i}"
                )
                probe.build((None, size))
                self.probes.append(probe)

    @abc.abstractmethod
    def build_steps(
        self,
        feature_sizes: Sequence[int],
        num_modules: Sequence[int],
        num_gammas: int,
    ) -> None:
        """Creates the weights, given the size of each step's features."""

    @abc.abstractmethod
    def initial_state(self, batch_size: tf.Tensor) -> tf.Tensor:
        """The state before the first metalayer, of size s >= 0.

        Returns:
            float32 `[B, s]`, or `[1, s]` for all rows.
        """

    @abc.abstractmethod
    def call(
        self,
        features: tf.Tensor,
        previous_choices: tf.Tensor | None,
        gamma: tf.Tensor,
        state: tf.Tensor,
        index: int,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """p_i = g_i(a_{i-1}, c_{i-1}), equation (2), as logits.

        Args:
            features: float32 `[B, d]`, the features that `observe` returns for
                a_{i-1}.
            previous_choices: int32 `[B]`, c_{i-1}, or `None` at the first.
            gamma: float32 `[B, k]`, scaled to [-1, 1].
            state: float32 `[B, s]`, or the result of `initial_state`.
            index: Index of the metalayer, 0 for the first.

        Returns:
            Logits float32 `[B, m_i]` and the next state, float32 `[B, s]`.
        """

    def finalize_logits(
        self, logits: tf.Tensor, price: tf.Tensor | None
    ) -> tf.Tensor:
        """Subtracts the price, and bounds the gaps below the greatest logit.

        Args:
            logits: float32 `[B, m_i]`, from `call`.
            price: float32 `[B, m_i]`, what gamma charges
                (`PreferenceCollection.price_table`), or `None`.
        """
        if price is not None and self.price_scale is not None:
            logits -= self.price_scale * price
        if self.max_gap is None:
            return logits
        return floor_gaps(logits, self.max_gap)

    def observe(self, activations: tf.Tensor, index: int) -> Observation:
        """What the controller sees of the input of metalayer `index`.

        Args:
            activations: `[B, ...]`.
            index: Index of the metalayer, 0 for the first.
        """
        averages = summarize(activations, self._shapes[index], self.grid)
        # A baseline reads it too. Inputs that no stem scales would make that
        # so large that its gradient drowns all others.
        summary = normalize(self.norms[index], averages)
        if not self.probe:
            return Observation(summary, summary, None)
        guess = self.probes[index](tf.stop_gradient(averages))
        log_probs = tf.nn.log_softmax(tf.stop_gradient(guess))
        probs = tf.exp(log_probs)  # [B, classes]
        highest = tf.reduce_max(probs, axis=-1, keepdims=True)
        entropy = -tf.reduce_sum(probs * log_probs, axis=-1, keepdims=True)
        seen = tf.concat([summary, probs, highest, entropy], axis=-1)
        return Observation(summary, seen, guess)

    def feature_size(self, index: int) -> int:
        """Size d of the features that `observe` returns."""
        size = summary_size(self._shapes[index], self.grid)
        return size + (self.probes[index].units + 2 if self.probe else 0)

    def all_steps(self, *activations: tf.Tensor) -> list[tf.Tensor]:
        """The logits of every step, as if module 0 were always chosen.

        Args:
            *activations: n tensors `[B, ...]`, the input of each metalayer.

        Returns:
            n tensors float32 `[B, m_i]`.
        """
        batch_size = tf.shape(activations[0])[0]
        state = self.initial_state(batch_size)
        gamma = tf.zeros([batch_size, self._build_arguments["num_gammas"]])
        previous, all_logits = None, []
        for index, inputs in enumerate(activations):
            features = self.observe(inputs, index).features
            logits, state = self(features, previous, gamma, state, index=index)
            previous = tf.zeros([batch_size], tf.int32)
            all_logits.append(self.finalize_logits(logits, None))
        return all_logits

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["dtype"]
        return {
            **config,
            "units": self.units,
            "grid": self.grid,
            "max_gap": self.max_gap,
            "price_factor": self.price_factor,
            "probe": self.probe,
        }

    def get_build_config(self) -> dict[str, Any] | None:
        return self._build_arguments if self.built else None

    def build_from_config(self, config: dict[str, Any]) -> None:
        self.build(**config)


def one_hot(choices: tf.Tensor, depth: int) -> tf.Tensor:
    """Maps int32 `[B]` to float32 `[B, depth]` by a gather, for all targets."""
    return tf.gather(tf.constant(np.eye(depth, dtype=np.float32)), choices)
