"""The base class of all policy preferences."""

import abc
import inspect
import math
from collections.abc import Sequence
from typing import Any, Literal, Self

import keras
import tensorflow as tf

from composer_tf import replicas, validation
from composer_tf.policy import Policy
from composer_tf.preferences.distributions import (
    Constant,
    GammaDistribution,
    as_distribution,
)


class Preference(abc.ABC):
    """A cost C(p, c, gamma), added to the reward, and the Gamma of its gamma.

    A subclass implements `cost`. That is enough for a cost of an example's own
    path; a cost over the batch must override `credit` and `expected_cost` too,
    or its gradient is biased.

    Args:
        gamma: Distribution of gamma in training, or a number for a constant.
        per: `"example"` to sample a gamma for each example, `"batch"` to sample
            one for all. Defaults to `"example"`.
        default: Gamma at test time if none is given, within the support.
            Defaults to 0, or to the nearest bound of the support.
        name: Name of the preference, the key in a mapping of gammas. Defaults
            to the class name in snake case without "preference".

    Raises:
        ValueError: If `per` is unknown or `default` is outside the support.
        TypeError: If `gamma` is neither a number nor a distribution.

    Example:
        A preference against changing the module from one metalayer to the
        next:

        >>> import tensorflow as tf
        >>> class SwitchPreference(Preference):
        ...     def cost(self, policy, gamma):
        ...         c = policy.choices
        ...         switches = tf.cast(c[..., 1:] != c[..., :-1], tf.float32)
        ...         return -gamma * tf.reduce_sum(switches, axis=-1)
        >>> SwitchPreference(0.5).name
        'switch'
    """

    def __init__(
        self,
        gamma: GammaDistribution | float,
        per: Literal["example", "batch"] = "example",
        default: float | None = None,
        name: str | None = None,
    ) -> None:
        validation.check_choice("per", per, ("example", "batch"))
        self.gamma = as_distribution(gamma)
        self.per = per
        low, high = self.gamma.support
        if default is None:
            default = min(max(0.0, low), high)
        if not (math.isfinite(default) and low <= default <= high):
            raise ValueError(
                f"`default` must be in the support [{low}, {high}] of gamma, "
                f"got {default}."
            )
        self.default = float(default)
        self.name = name or _snake_case(type(self).__name__)

    @property
    def steerable(self) -> bool:
        """Whether gamma varies in training, and so is an input at test time."""
        return not isinstance(self.gamma, Constant)

    @abc.abstractmethod
    def cost(self, policy: Policy, gamma: tf.Tensor) -> tf.Tensor:
        """C(p, c, gamma), added to the reward and in its unit, equation (10).

        Args:
            policy: Policy of batch shape `[..., B]`.
            gamma: float32 `[B]`.

        Returns:
            float32 `[..., B]`, differentiable in `policy.logits` where C
            depends on p.
        """

    def checked_cost(self, policy: Policy, gamma: tf.Tensor) -> tf.Tensor:
        """The result of `cost`, as float32.

        Raises:
            ValueError: If it is not one number per example.
        """
        cost = self.cost(policy, gamma)
        wanted = policy.choices.shape[:-1]
        if cost is not None:
            cost = tf.cast(cost, tf.float32)
            rank = cost.shape.rank
            if rank is None or (
                0 < rank <= wanted.rank
                and cost.shape[-1:].is_compatible_with(wanted[-1:])
            ):
                return cost
        raise ValueError(
            f"`cost` of preference {self.name!r} must return one number per "
            "example, of the shape of `policy.choices` without its last axis, "
            f"here {wanted}, got {cost if cost is None else cost.shape}."
        )

    def credit(self, policy: Policy, gamma: tf.Tensor) -> tf.Tensor | None:
        """The part of a cost over the batch due to an example's own choices.

        With `None`, the default, `cost` is added to each example's reward. A
        cost over the batch returns float32 `[..., B]`, linear in gamma: B times
        the mean cost, minus what that would be without the example. It
        multiplies grad log p(c|x) without a baseline, so the estimate stays
        unbiased and does not drown in the noise of other examples' choices.
        """
        return None

    def module_prices(
        self, module_costs: Sequence[Sequence[float]]
    ) -> Sequence[Sequence[float]] | None:
        """What a gamma of 1 charges for each module, in units of the reward.

        The default is `None`, for a cost that is not a sum over a path's
        modules. If it is one, the policy need not learn what gamma does: the
        prices are subtracted from its logits (`Controller`). Along a path they
        must add up to minus `cost`.

        Args:
            module_costs: beta, n rows of m_i numbers, fractions of full cost.

        Returns:
            n rows of m_i numbers, or `None`.
        """
        return None

    def expected_cost(self, policy: Policy, gamma: tf.Tensor) -> tf.Tensor:
        """E_c[C], float32 `[B]`; axis 0 of the policy runs over all paths."""
        path_probs = tf.exp(policy.log_prob)  # [P, B]
        return tf.reduce_sum(
            path_probs * self.checked_cost(policy, gamma), axis=0
        )

    def sample(self, batch_size: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Draws gamma, float32 `[B]`, by a stateless int32 `[2]` seed."""
        distribution = self.gamma.distribution()
        if self.per == "batch":
            gamma = distribution.sample([1], seed=seed)
        else:
            gamma = replicas.draw(
                lambda rows: distribution.sample(tf.shape(rows)[:-1], seed),
                tf.zeros([batch_size, 1]),
            )
        return tf.broadcast_to(tf.cast(gamma, tf.float32), [batch_size])

    def get_config(self) -> dict[str, Any]:
        return {
            "gamma": keras.saving.serialize_keras_object(self.gamma),
            "per": self.per,
            "default": self.default,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        gamma = keras.saving.deserialize_keras_object(config["gamma"])
        return cls(**{**config, "gamma": gamma})


def serialize(preference: Preference) -> Any:
    """The config of a preference in the form that Keras saves.

    Raises:
        NotImplementedError: If arguments of a subclass would be lost.
    """
    arguments = inspect.signature(type(preference)).parameters.values()
    named = (
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        inspect.Parameter.KEYWORD_ONLY,
    )
    config = preference.get_config()
    lost = [
        a.name for a in arguments if a.kind in named and a.name not in config
    ]
    if lost:
        raise NotImplementedError(
            f"{type(preference).__name__} must override `get_config` to return "
            f"its arguments {lost} too: they would be lost."
        )
    return keras.saving.serialize_keras_object(preference)


def _snake_case(class_name: str) -> str:
    stem = class_name.removesuffix("Preference") or class_name
    return "".join(
        f"_{letter.lower()}" if letter.isupper() else letter for letter in stem
    ).lstrip("_")
