"""All preferences of a model, and the gammas that users give for them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from composer_tf.policy import Policy
from composer_tf.preferences.preference import Preference

Gamma = float | Sequence[float] | np.ndarray | tf.Tensor | Mapping[str, Any]


class PreferenceCollection:
    """An ordered set of preferences with different names.

    The k steerable ones (those whose Gamma is not constant) make up the model's
    gamma: float32 `[B, k]`, one column each, in order.

    Args:
        preferences: Preferences of the model, in order.

    Raises:
        ValueError: If two have the same name.
        TypeError: If one is not a `Preference`.
    """

    def __init__(self, preferences: Sequence[Preference]) -> None:
        if isinstance(preferences, Preference):
            raise TypeError(
                "`preferences` must be a list of Preference objects, got one, "
                f"{preferences.name!r}."
            )
        for preference in preferences:
            if not isinstance(preference, Preference):
                raise TypeError(
                    "`preferences` must hold Preference objects, got "
                    f"{preference!r}."
                )
        names = [preference.name for preference in preferences]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(
                    f"`preferences` holds {name!r} more than once; give each "
                    "its own `name`."
                )
        self.all = tuple(preferences)
        self.steerable = tuple(p for p in self.all if p.steerable)

    def __iter__(self) -> Iterator[Preference]:
        return iter(self.all)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the steerable preferences, in the order of gamma."""
        return tuple(preference.name for preference in self.steerable)

    @property
    def default(self) -> tf.Tensor:
        """The test-time default gamma, float32 `[k]`."""
        return tf.constant([p.default for p in self.steerable], tf.float32)

    def sample(
        self, batch_size: tf.Tensor, seeds: Sequence[tf.Tensor]
    ) -> tf.Tensor:
        """Samples gamma, float32 `[B, k]`, by one int32 `[2]` seed each."""
        if not self.steerable:
            return tf.zeros([batch_size, 0])
        columns = [
            preference.sample(batch_size, seed)
            for preference, seed in zip(self.steerable, seeds, strict=True)
        ]
        return tf.stack(columns, axis=-1)

    def parse(self, gamma: Gamma) -> tf.Tensor:
        """Turns a gamma in any form that users may give into a tensor.

        Args:
            gamma: Number or `[B]` with one steerable preference; `[k]` or
                `[B, k]` with several; or a mapping from name to a number or
                `[B]`, where missing preferences take their defaults.

        Returns:
            float32 `[1, k]` or `[B, k]`.

        Raises:
            ValueError: If the shape or a name does not fit, or a value that is
                known now is no finite number.
        """
        if not self.steerable:
            raise ValueError(
                "`gamma` was given, but the model has no preference whose "
                "gamma varies in training."
            )
        if isinstance(gamma, Mapping):
            return self._parse_mapping(gamma)
        tensor = self._numbers(gamma)
        k = len(self.steerable)
        rank = tensor.shape.rank
        if rank is None:  # A traced function met several ranks.
            return tf.reshape(tensor, [-1, k])
        if rank == 0 and k == 1:
            return tf.reshape(tensor, [1, 1])
        if rank == 1 and k == 1:
            return tensor[:, tf.newaxis]
        if rank == 1 and tensor.shape[0] == k:
            return tensor[tf.newaxis, :]
        if rank == 2 and tensor.shape[1] == k:
            return tensor
        wanted = (
            "a number or one value per example"
            if k == 1
            else f"{k} values {self.names}, [batch, {k}], or a mapping by name"
        )
        raise ValueError(f"`gamma` must be {wanted}, got shape {tensor.shape}.")

    def clean(self, gamma: tf.Tensor) -> tf.Tensor:
        """Clips `[B, k]` to the support; non-finite values become the default.

        A bad value in one row never affects another row.
        """
        supports = [preference.gamma.support for preference in self.steerable]
        low = tf.constant([low for low, _ in supports], tf.float32)
        high = tf.constant([high for _, high in supports], tf.float32)
        gamma = finite_or(gamma, self.default)
        return tf.clip_by_value(gamma, low, high)

    def scale(self, gamma: tf.Tensor) -> tf.Tensor:
        """Maps each column of `[B, k]` from its support to [-1, 1]."""
        if not self.steerable:
            return gamma
        if len(self.steerable) == 1:
            return self.steerable[0].gamma.scale(gamma)
        columns = [
            preference.gamma.scale(gamma[:, i : i + 1])
            for i, preference in enumerate(self.steerable)
        ]
        return tf.concat(columns, axis=-1)

    @property
    def charging(self) -> tuple[Preference, ...]:
        """The steerable preferences that override `module_prices`."""
        return tuple(
            preference
            for preference in self.steerable
            if type(preference).module_prices is not Preference.module_prices
        )

    def swept(self, name: str | None = None) -> Preference:
        """The steerable preference whose gamma is varied or measured.

        Args:
            name: Name of the preference. Defaults to the first that is
                `charging`, or otherwise to the first.

        Raises:
            ValueError: If there is no such preference.
        """
        default = next(iter((*self.charging, *self.steerable)), None)
        wanted = name or (default and default.name)
        for preference in self.steerable:
            if preference.name == wanted:
                return preference
        raise ValueError(
            "`preference` must be a steerable one of the model, "
            f"{self.names}, got {name!r}."
        )

    def price_table(
        self, module_costs: Sequence[Sequence[float]]
    ) -> np.ndarray | None:
        """What each gamma charges for each module of all metalayers.

        The unit is such that the difference between the dearest and the
        cheapest module, in the metalayer where it is widest, grows by 1 from
        one end of gamma's support to the other.

        Args:
            module_costs: beta, n rows of m_i numbers.

        Returns:
            float32 `[k, m_1 + ... + m_n]`, a matrix to multiply gamma `[B, k]`
            by, or `None` if no steerable preference is `charging`.

        Raises:
            ValueError: If a preference's prices are not n rows of m_i finite
                numbers.
        """
        sizes = [len(costs) for costs in module_costs]
        if not self.charging:
            return None
        table = np.zeros([len(self.steerable), sum(sizes)], np.float32)
        for row, preference in zip(table, self.steerable, strict=True):
            prices = preference.module_prices(module_costs)
            if prices is not None:
                _check_prices(prices, sizes, preference.name)
                low, high = preference.gamma.support
                widest = max(max(costs) - min(costs) for costs in prices)
                row[:] = np.concatenate(prices) / (
                    (widest or 1.0) * (high - low)
                )
        return table

    def split(self, gamma: tf.Tensor) -> list[tuple[Preference, tf.Tensor]]:
        """Every preference, including constant ones, with its gamma `[B]`."""
        columns = tf.unstack(gamma, num=len(self.steerable), axis=-1)
        steered = dict(zip(self.names, columns, strict=True))
        batch_size = tf.shape(gamma)[:1]
        return [
            (
                p,
                steered[p.name]
                if p.steerable
                else tf.fill(batch_size, p.default),
            )
            for p in self.all
        ]

    def cost(self, policy: Policy, gamma: tf.Tensor) -> tf.Tensor:
        """The sum of all C(p, c, gamma), float32 `[..., B]`."""
        costs = [p.checked_cost(policy, g) for p, g in self.split(gamma)]
        return sum(costs, tf.zeros([]))

    def _parse_mapping(self, gamma: Mapping[str, Any]) -> tf.Tensor:
        unknown = sorted(set(gamma) - set(self.names))
        if unknown:
            raise ValueError(
                f"`gamma` names {unknown}, but the steerable preferences are "
                f"{list(self.names)}."
            )
        columns = []
        for preference in self.steerable:
            value = gamma.get(preference.name, preference.default)
            column = self._numbers(value)
            if column.shape.rank not in (0, 1):
                raise ValueError(
                    f"`gamma[{preference.name!r}]` must be a number or one "
                    f"value per example, got shape {column.shape}."
                )
            columns.append(tf.reshape(column, [-1]))
        lengths = {column.shape[0] for column in columns} - {1, None}
        if len(lengths) > 1:
            raise ValueError(
                "`gamma` must hold a number or one value per example of each "
                f"preference, got lengths {sorted(lengths)}."
            )
        rows = tf.reduce_max([tf.shape(column)[0] for column in columns])
        columns = [tf.broadcast_to(column, [rows]) for column in columns]
        return tf.stack(columns, axis=-1)

    def _numbers(self, gamma: Any) -> tf.Tensor:
        """Gamma as float32; checked to be finite where it is known."""
        tensor = tf.convert_to_tensor(gamma)
        if not (tensor.dtype.is_floating or tensor.dtype.is_integer):
            raise ValueError(
                f"`gamma` must be numbers, got {tensor.dtype.name}, {gamma!r}."
            )
        tensor = tf.cast(tensor, tf.float32)
        if tf.executing_eagerly() and not np.all(np.isfinite(tensor)):
            raise ValueError(f"`gamma` must be finite, got {tensor.numpy()}.")
        return tensor


def finite_or(gamma: tf.Tensor, default: tf.Tensor) -> tf.Tensor:
    """`gamma` `[B, k]`, or `default` `[k]` where it is NaN or infinite.

    LiteRT has no operator `is_finite`, and tf2onnx selects by multiplying,
    which keeps NaN and infinity, unless it sees `x != x`.
    """
    zero = gamma - gamma  # NaN where gamma is not finite.
    return tf.where(tf.not_equal(zero, zero), default, gamma)


def _check_prices(
    prices: Sequence[Sequence[float]], sizes: Sequence[int], name: str
) -> None:
    fits = [np.size(row) for row in prices] == list(sizes)
    if not (fits and all(np.all(np.isfinite(row)) for row in prices)):
        raise ValueError(
            f"`module_prices` of preference {name!r} must give one finite "
            f"number per module, {list(sizes)} of them, got {prices!r}."
        )
