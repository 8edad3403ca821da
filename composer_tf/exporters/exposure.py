"""Choice of the gammas that are inputs of an artifact."""

import numbers
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np
import tensorflow as tf

from composer_tf.calibration import Calibration
from composer_tf.exporters.routed_model import GammaInput
from composer_tf.preferences.collection import finite_or

SteerBy = Literal["gamma", "budget"]  # The input that steers a signature.
STEER_BY = get_args(SteerBy)
Gammas = Mapping[str, float] | float  # By name; a number if there is one.


class Exposure(NamedTuple):
    """Which gammas of a model are inputs of its artifact, and which are fixed.

    Attributes:
        gammas: All gammas of the model.
        fixed: Values of the gammas that are no inputs, by name.
        has_own_default: Whether any default differs from the model's.
        calibration: Calibration that gives the gamma of a budget, if that gamma
            is free; `None` otherwise.
    """

    gammas: Sequence[GammaInput]
    fixed: Mapping[str, float]
    has_own_default: bool
    calibration: Calibration | None = None

    @property
    def free(self) -> list[GammaInput]:
        """The gammas that are inputs, in order."""
        return [g for g in self.gammas if g.name not in self.fixed]

    @property
    def default(self) -> np.ndarray:
        """The default of the input `gamma`, for one row."""
        return self._row([gamma.default for gamma in self.free])

    def default_of(self, steer_by: SteerBy) -> np.ndarray:
        """The default of an input; NaN for `budget` means the default gamma."""
        return self._row([np.nan]) if steer_by == "budget" else self.default

    def at_share(
        self, share: float | np.ndarray, steer_by: SteerBy = "gamma"
    ) -> np.ndarray:
        """One row of `gamma`, a share in [0, 1] of the way along its support.

        Or one row of `budget`, from the cheapest to the dearest cost.

        Args:
            share: Share for all gammas, or one for each that is an input.
            steer_by: Name of the input, `"gamma"` or `"budget"`.
        """
        shares = np.broadcast_to(share, [len(self.free)])
        if steer_by == "budget":
            assert self.calibration is not None
            high, *_, low = self.calibration.costs
            return self._row([low + shares[0] * (high - low)])
        return self._row(
            [g.at_share(s) for g, s in zip(self.free, shares, strict=True)]
        )

    @staticmethod
    def _row(values: Sequence[float]) -> np.ndarray:
        """float32 `[1]` for one value, `[1, k]` for k values."""
        row = np.array(values, np.float32)
        return row if len(values) == 1 else row[np.newaxis]

    def spec(
        self, batch_size: int | None, steer_by: SteerBy = "gamma"
    ) -> tf.TensorSpec | None:
        """Spec of `gamma`: float32 `[batch]` for one, `[batch, k]` for more.

        Or spec of `budget`: float32 `[batch]`.

        Raises:
            ValueError: If it is `budget` and there is no calibration.
        """
        if steer_by == "budget" and self.calibration is None:
            raise ValueError(
                "`steer_by='budget'` needs a calibrated model, its gamma not "
                "fixed and the other defaults as they were: call "
                "`model.calibrate(data)` before `export`."
            )
        if not self.free:
            return None
        columns = self.default_of(steer_by).shape[1:]
        return tf.TensorSpec([batch_size, *columns], tf.float32, steer_by)

    def gamma_of(self, budget: tf.Tensor) -> tf.Tensor:
        """The gammas for a budget `[rows]`, the others at their defaults.

        Returns:
            float32 `[rows, k]`; NaN, which stands for the default, where a
            budget is NaN or infinite.
        """
        assert self.calibration is not None  # Otherwise there is no such input.
        gamma = self.calibration.gamma(budget)
        columns = [
            gamma
            if g.name == self.calibration.preference
            else tf.fill(tf.shape(budget), float(g.default))
            for g in self.free
        ]
        return tf.stack(columns, axis=1)

    def complete(self, gamma: tf.Tensor | None) -> tf.Tensor | None:
        """The full gamma `[rows, k]` of the model, made from the input.

        Args:
            gamma: Tensor of the shape in `spec`, or `None` for the defaults.
        """
        if not self.free:
            fixed = [self.fixed[gamma.name] for gamma in self.gammas]
            return tf.constant([fixed], tf.float32) if fixed else None
        default = tf.constant(self.default)
        table = default if gamma is None else gamma
        table = tf.reshape(table, [-1, len(self.free)])
        if self.has_own_default:  # The model handles its own defaults.
            table = finite_or(table, tf.reshape(default, [-1]))
        if not self.fixed:
            return table
        columns = iter(tf.split(table, len(self.free), axis=1))
        rows = tf.shape(table)[0]
        return tf.concat(
            [
                tf.fill([rows, 1], float(self.fixed[g.name]))
                if g.name in self.fixed
                else next(columns)
                for g in self.gammas
            ],
            axis=1,
        )


def expose(
    gammas: Sequence[GammaInput],
    fix: Gammas | None = None,
    default: Gammas | None = None,
    calibration: Calibration | None = None,
) -> Exposure:
    """Decides which gammas are inputs, and their defaults.

    Args:
        gammas: All gammas of the model.
        fix: Values of gammas to fix, so that they are no inputs, by name; or a
            number if there is only one gamma.
        default: Defaults to use in place of the model's, in the same form.
        calibration: Calibration of the model, or `None`. It is dropped if its
            gamma is fixed, or another gamma's value differs from the default
            at which it was measured.

    Raises:
        ValueError: If a name is unknown or in both mappings, a value is outside
            the support, or a number is given and there is not exactly one
            gamma.
        TypeError: If an argument is neither a mapping of numbers nor a number.

    Example:
        >>> exposure = expose([GammaInput("glimpse", -4.0, 6.0, 0.0)],
        ...                   default=2.0)
        >>> exposure.default.tolist()
        [2.0]
    """
    known = {gamma.name: gamma for gamma in gammas}
    fix = _by_name("fix", fix, known)
    default = _by_name("default_gamma", default, known)
    for name in fix.keys() & default.keys():
        raise ValueError(
            f"{name!r} is in `fix` and in `default_gamma`; it is no input if "
            "it is fixed, and needs no default."
        )
    replaced = [
        g._replace(default=default.get(g.name, g.default)) for g in gammas
    ]
    moved = {
        name
        for name, value in (default | fix).items()
        if value != known[name].default
    }
    if calibration is not None and (
        calibration.preference in fix or moved - {calibration.preference}
    ):
        calibration = None
    return Exposure(replaced, fix, replaced != list(gammas), calibration)


def _by_name(
    argument: str, values: Gammas | None, known: Mapping[str, GammaInput]
) -> dict[str, float]:
    """Checked values of an argument of `expose`, by name."""
    if values is None:
        return {}
    if isinstance(values, numbers.Real):
        if len(known) != 1:
            raise ValueError(
                f"`{argument}` must map names of {tuple(known)} to numbers, "
                f"got {values}."
            )
        values = dict.fromkeys(known, float(values))
    if not isinstance(values, Mapping):
        raise TypeError(
            f"`{argument}` must map names to numbers, or be a number, got "
            f"{values!r}."
        )
    for name, value in values.items():
        if name not in known:
            raise ValueError(
                f"`{argument}` must name steerable preferences, "
                f"{tuple(known)}, got {name!r}."
            )
        if not isinstance(value, numbers.Real):
            raise TypeError(
                f"`{argument}` of {name!r} must be a number, got {value!r}."
            )
        low, high = known[name].low, known[name].high
        if not low <= value <= high:
            raise ValueError(
                f"`{argument}` of {name!r} must be in its trained support "
                f"[{low:g}, {high:g}], got {value}."
            )
    return dict(values)
