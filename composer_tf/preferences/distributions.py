"""Distributions that gammas are sampled from in training."""

import abc
import math
import numbers
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp


class GammaDistribution(abc.ABC):
    """A distribution over one gamma, with a known bounded support.

    To add a distribution, subclass it and define `support`, `distribution` and
    `get_config`; to save it with a model, register the subclass by
    `keras.saving.register_keras_serializable`. If gammas are not spread evenly,
    define `scale` and its inverse `unscale` too.
    """

    @property
    @abc.abstractmethod
    def support(self) -> tuple[float, float]:
        """Lowest and highest gamma."""

    @abc.abstractmethod
    def distribution(self) -> tfp.distributions.Distribution:
        """The TFP distribution, with scalar float32 events."""

    @abc.abstractmethod
    def get_config(self) -> dict[str, Any]:
        """Arguments of the constructor."""

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "GammaDistribution":
        return cls(**config)

    def scale(self, gamma: tf.Tensor) -> tf.Tensor:
        """Maps the support to [-1, 1], the scale that the controller sees."""
        low, high = self.support
        return 2.0 * (gamma - low) / (high - low) - 1.0

    def unscale(self, scaled: float) -> float:
        """The inverse of `scale`: the gamma for a number in [-1, 1].

        Even steps on this scale are even to the controller; calibration and
        sweeps use it.
        """
        low, high = self.support
        share = (1.0 + scaled) / 2.0
        return low * (1.0 - share) + high * share  # Exact at both ends.

    def sweep(self, size: int) -> tuple[float, ...]:
        """`size` gammas, 2 or more, from the lowest to the highest.

        Example:
            >>> Uniform(-2.0, 6.0).sweep(3)
            (-2.0, 2.0, 6.0)
        """
        steps = np.linspace(-1.0, 1.0, size).tolist()
        return tuple(self.unscale(scaled) for scaled in steps)


@keras.saving.register_keras_serializable(package="composer_tf")
class Uniform(GammaDistribution):
    """Uniform over `[low, high]`.

    Args:
        low: Lowest gamma, a finite float.
        high: Highest gamma, a finite float above `low`.

    Raises:
        ValueError: If the bounds are not finite or not in order.

    Example:
        >>> Uniform(-2.0, 6.0).support
        (-2.0, 6.0)
    """

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = _bounds(low, high)

    @property
    def support(self) -> tuple[float, float]:
        return self.low, self.high

    def distribution(self) -> tfp.distributions.Distribution:
        return tfp.distributions.Uniform(self.low, self.high)

    def get_config(self) -> dict[str, Any]:
        return {"low": self.low, "high": self.high}


@keras.saving.register_keras_serializable(package="composer_tf")
class LogUniform(GammaDistribution):
    """Uniform in log gamma over `[low, high]`, for several magnitudes.

    Args:
        low: Lowest gamma, a finite float above 0.
        high: Highest gamma, a finite float above `low`.

    Raises:
        ValueError: If the bounds are not finite, not in order or not above 0.

    Example:
        >>> LogUniform(0.01, 10.0).support
        (0.01, 10.0)
    """

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = _bounds(low, high)
        if self.low <= 0.0:
            raise ValueError(f"`low` must be above 0, got {low}.")

    @property
    def support(self) -> tuple[float, float]:
        return self.low, self.high

    def distribution(self) -> tfp.distributions.Distribution:
        exponent = tfp.distributions.Uniform(
            math.log(self.low), math.log(self.high)
        )
        return tfp.distributions.TransformedDistribution(
            exponent, tfp.bijectors.Exp()
        )

    def scale(self, gamma: tf.Tensor) -> tf.Tensor:
        low, high = math.log(self.low), math.log(self.high)
        return 2.0 * (tf.math.log(gamma) - low) / (high - low) - 1.0

    def unscale(self, scaled: float) -> float:
        share = (1.0 + scaled) / 2.0
        return self.low ** (1.0 - share) * self.high**share

    def get_config(self) -> dict[str, Any]:
        return {"low": self.low, "high": self.high}


@keras.saving.register_keras_serializable(package="composer_tf")
class Constant(GammaDistribution):
    """Always `value`. A preference with it cannot be steered at test time.

    Args:
        value: Value of gamma, a finite float.

    Raises:
        ValueError: If `value` is not finite.

    Example:
        >>> Constant(0.1).support
        (0.1, 0.1)
    """

    def __init__(self, value: float) -> None:
        self.value = _finite("value", value)

    @property
    def support(self) -> tuple[float, float]:
        return self.value, self.value

    def distribution(self) -> tfp.distributions.Distribution:
        return tfp.distributions.Deterministic(self.value)

    def scale(self, gamma: tf.Tensor) -> tf.Tensor:
        return tf.zeros_like(gamma)

    def get_config(self) -> dict[str, Any]:
        return {"value": self.value}


def as_distribution(gamma: GammaDistribution | float) -> GammaDistribution:
    """The distribution itself, or `Constant` of a number."""
    if isinstance(gamma, GammaDistribution):
        return gamma
    if isinstance(gamma, numbers.Real) and not isinstance(gamma, bool):
        return Constant(float(gamma))
    raise TypeError(
        "`gamma` must be a number or a GammaDistribution such as "
        f"Uniform(-2.0, 6.0), got {gamma!r}."
    )


def _bounds(low: float, high: float) -> tuple[float, float]:
    low, high = _finite("low", low), _finite("high", high)
    if low >= high:
        raise ValueError(f"`low` must be below `high`, got {low} and {high}.")
    return low, high


def _finite(name: str, value: float) -> float:
    if not math.isfinite(value):
        raise ValueError(f"`{name}` must be a finite number, got {value}.")
    return float(value)
