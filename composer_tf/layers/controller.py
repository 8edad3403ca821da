"""What every controller shares: how it sees activations, and its contract."""

import abc
import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

Shape = tuple[int | None, ...]


class Controller(keras.layers.Layer, abc.ABC):
    """The functions g_1, ..., g_n of equation (2), given gamma too.

    The Composer asks it once per metalayer, in order. Activations of any rank
    are summarised to one float32 vector: spatial axes are average-pooled to at
    most `grid` cells each. All of the controller computes in float32, under
    mixed precision too.

    How far a logit lies below the greatest is bounded, so that every module
    keeps a chance of being tried: a policy that is certain too early would
    never learn that another module has become better. With the default of 4 and
    two modules that chance is at least 1.8 %. Being tried is not enough, if
    what is learned of it does not arrive: far beyond its bound a tanh passes no
    gradient, and the policy stays where it is. This bound (`floor_gaps`) always
    passes the gradient that leads back.

    What gamma charges for a module is known, so it is not left to be learned: a
    multiple of the price is taken off the logits. Else a policy whose gammas
    favour cheap modules on average may settle on them before it notices gamma.

    A subclass implements `build_steps`, `initial_state` and `call`; prices and
    the bound are applied to what it returns (`settle`).

    Args:
        units: Size of the hidden representation, int >= 1. Defaults to 32.
        grid: Cells per spatial axis that the activations are pooled to, int
            >= 1. Defaults to 4. More shows the controller finer detail and
            makes it dearer.
        max_gap: How far a logit may lie below the greatest, float > 0, or
            `None` for no bound. Defaults to 4.
        price_factor: By how many nats the gap between the logits of the dearest
            and the cheapest module grows, before training, from one end of
            gamma's support to the other, float >= 0; there is none at 0. It is
            trained; 0 leaves prices to be learned. Defaults to 16.

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

    def build(
        self,
        activation_shapes: Sequence[Shape],
        num_modules: Sequence[int],
        num_gammas: int,
        has_prices: bool = False,
    ) -> None:
        """Creates the weights for a given sequence of metalayers.

        Args:
            activation_shapes: n shapes, of the input of each metalayer, with
                the batch axis.
            num_modules: m_1, ..., m_n.
            num_gammas: k, how many gammas the policy is steered by.
            has_prices: Whether one of them charges for modules.

        Raises:
            ValueError: If it is built for something else already.
        """
        arguments = {
            "activation_shapes": [list(shape) for shape in activation_shapes],
            "num_modules": list(num_modules),
            "num_gammas": num_gammas,
            "has_prices": has_prices,
        }
        if self.built:
            if arguments != self._build_arguments:
                raise ValueError(
                    f"Controller {self.name!r} is built for "
                    f"{self._build_arguments}, but this model needs "
                    f"{arguments}: make a controller of its own."
                )
            return
        self._build_arguments = arguments
        self.build_steps(
            [self.summary_size(shape) for shape in activation_shapes],
            list(num_modules),
            num_gammas,
        )
        self.price_scale = None
        if has_prices and self.price_factor:
            self.price_scale = self.add_weight(
                name="price_scale",
                shape=(),
                initializer=keras.initializers.Constant(self.price_factor),
            )
        self.built = True

    @abc.abstractmethod
    def build_steps(
        self,
        summary_sizes: Sequence[int],
        num_modules: Sequence[int],
        num_gammas: int,
    ) -> None:
        """Creates the weights, given the length of each step's summary."""

    @abc.abstractmethod
    def initial_state(self, batch_size: tf.Tensor) -> tf.Tensor:
        """The state before the first metalayer, s >= 0.

        Returns:
            float32 `[B, s]`, or `[1, s]` for all rows.
        """

    @abc.abstractmethod
    def call(
        self,
        activations: tf.Tensor,
        previous_choices: tf.Tensor | None,
        gamma: tf.Tensor,
        state: tf.Tensor,
        index: int,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """p_i = g_i(a_{i-1}, c_{i-1}), equation (2), as logits.

        Args:
            activations: `[B, ...]`, a_{i-1}.
            previous_choices: int32 `[B]`, c_{i-1}, or `None` at the first.
            gamma: float32 `[B, k]`, scaled to [-1, 1].
            state: float32 `[B, s]`, or what `initial_state` returns.
            index: Which metalayer, 0 for the first.

        Returns:
            Logits float32 `[B, m_i]` and the next state.
        """

    def settle(self, logits: tf.Tensor, price: tf.Tensor | None) -> tf.Tensor:
        """Takes the price off, and holds all logits near the greatest.

        Args:
            logits: float32 `[B, m_i]`, as `call` returns them.
            price: float32 `[B, m_i]`, what gamma charges
                (`PreferenceCollection.price_table`), or `None`.
        """
        if price is not None and self.price_scale is not None:
            logits -= self.price_scale * price
        if self.max_gap is None:
            return logits
        return floor_gaps(logits, self.max_gap)

    def summarize(self, activations: tf.Tensor, index: int) -> tf.Tensor:
        """The input `[B, ...]` of metalayer `index` as float32 `[B, d]`."""
        activations = tf.cast(activations, tf.float32)
        shape = self._build_arguments["activation_shapes"][index]
        if len(shape) == 2:
            return activations
        windows = self._windows(shape)
        if windows is None:
            return tf.reduce_mean(
                activations, axis=range(1, activations.shape.rank - 1)
            )  # [B, C]
        return _average(activations, shape, windows)

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
            logits, state = self(inputs, previous, gamma, state, index=index)
            previous = tf.zeros([batch_size], tf.int32)
            all_logits.append(self.settle(logits, None))
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
        }

    def get_build_config(self) -> dict[str, Any] | None:
        return self._build_arguments if self.built else None

    def build_from_config(self, config: dict[str, Any]) -> None:
        self.build(**config)

    def _windows(self, shape: Sequence[int | None]) -> list[int] | None:
        """Pooling window per spatial axis; `None` if a size is unknown."""
        sizes = [size for size in shape[1:-1] if size is not None]
        if len(sizes) < len(shape) - 2:
            return None
        return [math.ceil(size / self.grid) for size in sizes]

    def summary_size(self, shape: Sequence[int | None]) -> int:
        """Length of the summary of activations of a shape."""
        if not 2 <= len(shape) <= 5:
            raise ValueError(
                "A metalayer's input must have 2 to 5 axes, batch and "
                f"channels included, got shape {tuple(shape)}."
            )
        channels = shape[-1]
        if channels is None:
            raise ValueError(
                "A metalayer's input needs a known size of its last axis, got "
                f"shape {tuple(shape)}."
            )
        cells = 1
        for axis, window in enumerate(self._windows(shape) or [], start=1):
            cells *= math.ceil((shape[axis] or 0) / window)
        return cells * channels


def _average(
    activations: tf.Tensor, shape: Sequence[int | None], windows: Sequence[int]
) -> tf.Tensor:
    """Means over windows of the spatial axes, float32 `[B, cells * C]`.

    Windows that do not fit an axis are smaller at both its ends. Sums, one axis
    at a time, take a tenth of the time of TensorFlow's average pooling when the
    channels are few.
    """
    rest = math.prod(shape[1:])  # type: ignore[arg-type]
    counts = np.ones([])
    for size, window in zip(shape[1:-1], windows, strict=True):
        assert size is not None
        rest //= size
        missing = -size % window
        padding = (missing // 2, missing - missing // 2)
        real = np.pad(np.ones(size), padding).reshape(-1, window)
        counts = np.multiply.outer(counts, real.sum(axis=1))
        if window > 1:
            rows = tf.reshape(activations, [-1, size, rest])
            if missing:
                rows = tf.pad(rows, [[0, 0], padding, [0, 0]])
            # With an axis of one at the end LiteRT sums number by number.
            row = [window, rest] if rest > 1 else [window]
            rows = tf.reshape(rows, [-1, *row])
            activations = tf.reduce_sum(rows, axis=1)  # [B * cells, ...]
    counts = np.repeat(counts.ravel(), rest).astype(np.float32)
    return tf.reshape(activations, [-1, counts.size]) * (1.0 / counts)


def floor_gaps(logits: tf.Tensor, depth: float) -> tf.Tensor:
    """Logits below the greatest one, no deeper than `depth`.

    Shifting all logits alike changes no probability, so only these gaps matter,
    and the greatest stays the greatest. A gap at the floor passes the gradient
    that leads it up again, and drops the one that leads further down: an
    ordinary floor would hold it there for good.

    That gradient is exact above the floor. At the floor it is one-sided: of the
    noise of a sampled gradient it keeps what leads up, so a module there is
    tried a little more often than an unbiased estimate would have it.

    Args:
        logits: float32 `[..., m]`.
        depth: Above 0.

    Returns:
        Same shape, in [-depth, 0].
    """

    def with_gradient(gaps: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            downwards = tf.logical_and(gaps <= -depth, upstream > 0.0)
            return tf.where(downwards, tf.zeros_like(upstream), upstream)

        return tf.maximum(gaps, -depth), gradient

    floor: Any = tf.custom_gradient(with_gradient)
    return floor(logits - tf.reduce_max(logits, axis=-1, keepdims=True))


def one_hot(choices: tf.Tensor, depth: int) -> tf.Tensor:
    """Int32 `[B]` to float32 `[B, depth]`, by a gather: every target has it."""
    return tf.gather(tf.constant(np.eye(depth, dtype=np.float32)), choices)
