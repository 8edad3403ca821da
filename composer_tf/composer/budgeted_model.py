"""Calibration: finds the gamma that a budget stands for."""

import zlib
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from composer_tf import validation
from composer_tf.calibration import Budget, Calibration, measure
from composer_tf.composer.policy_gradient_model import PolicyGradientModel
from composer_tf.composer.steerable_model import Decision
from composer_tf.preferences import Gamma

_STORED = (  # With the weights: all four, or none.
    "calibration",
    "calibration_preference",
    "calibration_terms",
    "calibration_weights",
)


class BudgetedModel(PolicyGradientModel):
    """A model that also takes a budget, its mean cost, in place of gamma.

    Attributes:
        calibration: Measured cost of each gamma, or `None`. It is saved with
            the weights, and holds for just these: while the model has others,
            however they came to be, it is `None`.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.calibration = None

    @property
    def calibration(self) -> Calibration | None:
        if self._calibration is None:
            return None
        is_current = self._calibrated_weights == self._checksum()
        return self._calibration if is_current else None

    @calibration.setter
    def calibration(self, calibration: Calibration | None) -> None:
        self._calibration = calibration
        self._calibrated_weights = (
            None if calibration is None else self._checksum()
        )

    def calibrate(
        self,
        data: Any,
        preference: str | None = None,
        num_gammas: int = 33,
        batch_size: int | None = None,
    ) -> Calibration:
        """Measures what each gamma costs, so that a budget can be given.

        `budget`, a fraction of full cost, then stands for the gamma with that
        mean cost (`Calibration.gamma`). The mean is kept over data like `data`,
        not by each example, for budgets of at least the cheapest cost. It holds
        for the decision `"mode"`, which artifacts use too. Calibrate again
        after training, which changes the choices.

        Args:
            data: Inputs that `predict` takes, or a tuple of inputs and labels,
                which are ignored. It is read once for each gamma.
            preference: Name of the steerable preference whose gamma a budget
                stands for; the others keep their defaults. Defaults to the
                first that charges for modules, or else to the first.
            num_gammas: Most gammas of its support to measure, 2 or more.
            batch_size: Batch size for arrays. Defaults to that of Keras.

        Returns:
            Calibration, which the model keeps.

        Raises:
            ValueError: If the model is not built, there is no such preference,
                there are too few gammas, or the data can be read only once.

        Example:
            >>> import keras, tensorflow as tf, composer_tf as ct
            >>> model = ct.Composer(
            ...     [ct.Metalayer([keras.layers.Dense(3),
            ...                    keras.layers.Dense(3)])],
            ...     preferences=[ct.GlimpsePreference(ct.Uniform(-1.0, 1.0))])
            >>> model.build((None, 2))
            >>> model.calibrate(tf.ones([4, 2])).preference
            'glimpse'
            >>> model.predict(tf.ones([4, 2]), budget=0.5, verbose=0).shape
            (4, 3)
        """
        if not self.built:
            raise ValueError(
                "The model has no weights yet: call `fit`, or the model on an "
                "example, before `calibrate`."
            )
        if not self.preferences.steerable:
            raise ValueError(
                "The model has no preference whose gamma varies: there is "
                "nothing to calibrate."
            )
        swept = self.preferences.swept(preference)
        name = swept.name
        validation.check_rereadable(data)
        if num_gammas < 2:
            raise ValueError(
                f"`num_gammas` must be 2 or more, got {num_gammas}."
            )
        if isinstance(data, tuple):
            data, *_ = data
        costs = _Costs(self, name)

        def cost_at(gamma: float) -> float:
            costs.gamma.assign(gamma)
            spent = costs.predict(data, batch_size, 0)  # type: ignore[arg-type]
            return float(np.mean(spent))

        unscale = swept.gamma.unscale
        calibration = measure(name, cost_at, unscale, num_gammas)
        self.calibration = calibration
        return calibration

    def save_own_variables(self, store: dict[str, Any]) -> None:
        super().save_own_variables(store)
        calibration = self.calibration
        if calibration is not None:
            name, *curve = calibration
            index = self.preferences.names.index(name)
            values = curve, index, self._terms(), self._calibrated_weights
            for key, value in zip(_STORED, values, strict=True):
                store[key] = np.array(value)  # The curve is [2, gammas].

    def load_own_variables(self, store: dict[str, Any]) -> None:
        own = {name: store[name] for name in store.keys()}  # noqa: SIM118
        stored = {k: own.pop(k) for k in [*own] if k.startswith("calibration")}
        super().load_own_variables(own)
        self.calibration = None  # It was that of other weights.
        if stored.keys() != {*_STORED}:
            return
        curve, index, terms, checksum = (np.array(stored[k]) for k in _STORED)
        if np.array_equal(terms, self._terms()):
            name = self.preferences.names[int(index)]
            gammas, costs = curve.tolist()
            self.calibration = Calibration(name, tuple(gammas), tuple(costs))
            # Of weights that Keras loads only now.
            self._calibrated_weights = int(checksum)

    def _checksum(self) -> int:
        """A checksum of all weights that decide what a gamma costs."""
        checksum = 0
        with tf.init_scope():  # A traced function may ask too.
            for layer in (*self._steps(), self.controller):
                for weight in layer.weights:
                    values = np.asarray(keras.ops.convert_to_numpy(weight))
                    checksum = zlib.crc32(values.tobytes(), checksum)
        return checksum

    def _terms(self) -> np.ndarray:
        """What decides, besides the weights, what a gamma costs."""
        gammas = [
            (*p.gamma.support, p.default) for p in self.preferences.steerable
        ]
        parts = [*gammas, *self.cost_table.fractions, (self.overhead,)]
        return np.concatenate(parts).astype(np.float64)

    def _gamma_of(
        self,
        gamma: Gamma | None,
        budget: Budget | None,
        decision: Decision | None,
    ) -> Gamma | None:
        """The gamma that was given, or the one that the budget stands for."""
        if budget is None:
            return gamma
        if gamma is not None:
            raise ValueError("`gamma` and `budget` were given: give one.")
        if (decision or self.decision) != "mode":
            raise ValueError(
                "`budget` is kept by the decision 'mode' only, which was "
                "calibrated; give a gamma for 'sample'."
            )
        calibration = self.calibration  # Once: it reads all weights.
        if calibration is None:
            raise ValueError(
                "`budget` needs a calibrated model: call "
                "`model.calibrate(data)` first, and again after training."
            )
        return {calibration.preference: calibration.gamma(budget)}


class _Costs(keras.Model):
    """What a model spends on each example, float32 `[B]`, at one gamma.

    As a Keras model it has `predict`, which takes any kind of data.

    Args:
        model: Model to measure.
        preference: Name of the preference that takes the gamma; the others keep
            their defaults.
    """

    def __init__(self, model: PolicyGradientModel, preference: str) -> None:
        super().__init__(name="costs", autocast=False)
        self.model = model
        self.preference = preference
        self.gamma = tf.Variable(tf.zeros([]), trainable=False)

    def call(self, inputs: Any) -> tf.Tensor:
        composition = self.model(
            inputs,
            gamma={self.preference: self.gamma},
            decision="mode",
            training=False,
            return_composition=True,
        )
        return composition.cost
