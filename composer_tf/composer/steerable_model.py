"""`predict`, `evaluate` and the like at a gamma or within a budget."""

import contextlib
import threading
from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args

import keras
import numpy as np
import tensorflow as tf

from composer_tf import validation
from composer_tf.calibration import Budget
from composer_tf.composer.inputs import check_lengths, join_gamma, without_gamma
from composer_tf.composer.replicated_model import ReplicatedModel
from composer_tf.policy import Composition
from composer_tf.preferences import Gamma, PreferenceCollection

Decision = Literal["mode", "sample"]
_Mode = tuple[Decision, bool]  # And whether `predict` returns compositions.


class SteerableModel(ReplicatedModel):
    """A Keras model that is steered by gamma at test time.

    Args:
        preferences: Preferences that gamma steers.
        decision: `"mode"` or `"sample"` of the policy, outside training.
        **kwargs: Arguments of `keras.Model`.
    """

    def __init__(
        self,
        preferences: PreferenceCollection,
        decision: Decision,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        validation.check_choice("decision", decision, get_args(Decision))
        self.preferences = preferences
        self.decision: Decision = decision
        # For `predict` and `evaluate` while they run. Their compiled functions
        # read the gamma, and whether it takes the place of the data's; they
        # have the decision and what they return built in.
        self._test_gamma = tf.Variable(preferences.default, trainable=False)
        self._is_given = tf.Variable(tf.constant(False), trainable=False)
        self._test_mode: _Mode = (decision, False)
        self._functions: dict[_Mode, tuple[Any, Any]] = {}  # For other modes.
        # Keras copies and pickles a model by its config, without this lock.
        self._steering = threading.RLock()

    def __call__(
        self,
        inputs: Any,
        *args: Any,
        gamma: Gamma | None = None,
        budget: Budget | None = None,
        **kwargs: Any,
    ):
        decision = kwargs.get("decision")
        if decision is None and kwargs.get("training"):
            decision = "sample"
        gamma = self._gamma_of(gamma, budget, decision)
        # Keras takes tensors, but no mixture of tensors and numbers.
        if isinstance(inputs, Mapping) and inputs.get("gamma") is not None:
            inputs = {**inputs, "gamma": self._as_tensor(inputs["gamma"])}
        if gamma is not None:
            kwargs["gamma"] = self._as_tensor(gamma)
        return super().__call__(inputs, *args, **kwargs)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        super().compile(*args, **kwargs)
        self._functions.clear()  # They belong to what was compiled before.

    def predict(
        self,
        x: Any,
        *args: Any,
        gamma: Gamma | None = None,
        budget: Budget | None = None,
        decision: Decision | None = None,
        return_composition: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Same as `keras.Model.predict`, at a given gamma or within a budget.

        Args:
            x: Same as in Keras. A mapping may hold `"gamma"`, in any form of
                the argument.
            *args: Same as in Keras.
            gamma: Number or one value per example with one steerable
                preference; `[k]` or `[N, k]` with several; or a mapping by
                name. Values per example need `x` in memory; a data set yields
                them as `{"image": x, "gamma": gamma}`.
            budget: Number or one value per example, fractions of full cost in
                [0, 1]. It replaces gamma in a calibrated model. A budget below
                the cheapest cost gets the cheapest gamma, which exceeds it.
            decision: `"mode"` or `"sample"`. Defaults to the model's.
            return_composition: Whether to return a `Composition` of all
                examples, with their choices and costs, instead of its outputs.
            **kwargs: Same as in Keras.

        Raises:
            ValueError: If gamma does not fit or is not finite, the budget does
                not fit or is not in [0, 1], both are given, the model is not
                calibrated, or a budget is given and the decision is not
                `"mode"`.
        """
        with self._steered(
            x, gamma, budget, decision, return_composition
        ) as steered:
            rows = super().predict(steered, *args, **kwargs)
        return self._composition_of(rows) if return_composition else rows

    def evaluate(
        self,
        x: Any = None,
        *args: Any,
        gamma: Gamma | None = None,
        budget: Budget | None = None,
        decision: Decision | None = None,
        **kwargs: Any,
    ) -> Any:
        """Same as `keras.Model.evaluate`, steered like `predict`."""
        with self._steered(x, gamma, budget, decision) as steered:
            return super().evaluate(steered, *args, **kwargs)

    def predict_on_batch(
        self,
        x: Any,
        gamma: Gamma | None = None,
        budget: Budget | None = None,
        decision: Decision | None = None,
    ) -> Any:
        """Same as `keras.Model.predict_on_batch`, steered like `predict`."""
        with self._steered(x, gamma, budget, decision) as steered:
            return super().predict_on_batch(steered)

    def test_on_batch(
        self,
        x: Any,
        *args: Any,
        gamma: Gamma | None = None,
        budget: Budget | None = None,
        decision: Decision | None = None,
        **kwargs: Any,
    ) -> Any:
        """Same as `keras.Model.test_on_batch`, steered like `predict`."""
        with self._steered(x, gamma, budget, decision) as steered:
            return super().test_on_batch(steered, *args, **kwargs)

    def predict_step(self, data: Any) -> Any:
        x, *_ = keras.utils.unpack_x_y_sample_weight(data)
        _, whole = self._test_mode
        answer = self(
            x,
            **self._steering_of_step(x),
            training=False,
            return_composition=whole,
        )
        return _by_row(answer) if whole else answer

    def _steering_of_step(self, x: Any) -> dict[str, Any]:
        """Decision and gamma for the call: what was given, or the batch's."""
        gamma = None
        if self.preferences.names:
            gamma = self._test_gamma[tf.newaxis, :]
            if isinstance(x, Mapping) and "gamma" in x:
                of_batch = self.preferences.parse(x["gamma"])
                gamma = tf.where(self._is_given, gamma, of_batch)
        return {"gamma": gamma, "decision": self._test_mode[0]}

    def _resolve_gamma(
        self,
        gamma: Gamma | None,
        batch_size: tf.Tensor,
        sampling_seeds: tf.Tensor | None,
    ) -> tf.Tensor:
        """The gamma of each row, float32 `[B, k]`, clipped to its support.

        Args:
            gamma: Gamma that the user gave, or `None`.
            batch_size: Batch size B.
            sampling_seeds: int32 `[k, 2]` to sample gamma where none is given,
                or `None` for the default.
        """
        num_gammas = len(self.preferences.names)
        if gamma is None and num_gammas == 0:
            return tf.zeros([batch_size, 0])
        if gamma is not None:
            rows = self.preferences.parse(gamma)
            _check_rows(rows, batch_size)
        elif sampling_seeds is not None:
            seeds = tf.unstack(sampling_seeds, num=num_gammas)
            return self.preferences.sample(batch_size, seeds)
        else:
            rows = self.preferences.default[tf.newaxis, :]
        shape = [batch_size, num_gammas]
        # ONNX expands both ways: to more rows than the batch has, or to none.
        rows = tf.reshape(tf.broadcast_to(rows, shape), shape)
        return self.preferences.clean(rows)

    def _gamma_of(
        self,
        gamma: Gamma | None,
        budget: Budget | None,
        decision: Decision | None,
    ) -> Gamma | None:
        """The gamma that was given, or the one that the budget stands for."""
        raise NotImplementedError

    def _composition_of(self, rows: dict[str, Any]) -> Composition:
        """What `_by_row` took apart, of all examples."""
        raise NotImplementedError

    @contextlib.contextmanager
    def _steered(
        self,
        x: Any,
        gamma: Gamma | None,
        budget: Budget | None,
        decision: Decision | None,
        whole: bool = False,
    ) -> Iterator[Any]:
        """Sets gamma and mode for a while; yields the inputs to use.

        One thread runs at a time. A call within another, as in a callback, uses
        the defaults unless it is given others.
        """
        gamma = self._gamma_of(gamma, budget, decision)
        if isinstance(x, Mapping):
            if gamma is None:
                gamma = x.get("gamma")
            x = {name: value for name, value in x.items() if name != "gamma"}
            check_lengths(x)
        with self._steering:
            before = (
                self._test_mode,
                self._test_gamma.numpy(),
                self._is_given.numpy(),
            )
            try:
                x = self._steer(x, gamma)
                self._switch_to(decision or self.decision, whole)
                yield x
            finally:
                self._switch_to(*before[0])
                self._test_gamma.assign(before[1])
                self._is_given.assign(before[2])

    def _steer(self, x: Any, gamma: Gamma | None) -> Any:
        """Sets one gamma for all; joins one for each example to the inputs."""
        self._test_gamma.assign(self.preferences.default)
        self._is_given.assign(False)
        if gamma is None:
            return x
        rows = self.preferences.parse(gamma)
        if rows.shape[0] != 1:
            return join_gamma(x, rows.numpy())
        self._test_gamma.assign(rows[0])
        self._is_given.assign(True)
        return x

    def _with_gamma_by_row(self, x: Any) -> Any:
        """Arrays with one row of gamma per example, if they hold a gamma."""
        if not isinstance(x, Mapping) or x.get("gamma") is None:
            return x
        without_gamma(x)  # It checks that something is left.
        rest = {name: value for name, value in x.items() if name != "gamma"}
        gamma = self.preferences.parse(x["gamma"]).numpy()  # [1, k] or [N, k]
        if len(gamma) == 1:
            num_rows = len(next(iter(rest.values())))
            gamma = np.repeat(gamma, num_rows, axis=0)
        return join_gamma(rest, gamma)

    def _as_tensor(self, gamma: Gamma) -> Any:
        if _is_symbolic_or_tensor(gamma):
            return gamma
        return self.preferences.parse(gamma)

    def _switch_to(self, decision: Decision, whole: bool) -> None:
        """Exchanges the compiled functions for those of another mode."""
        validation.check_choice("decision", decision, get_args(Decision))
        mode = decision, whole
        if mode == self._test_mode:
            return
        compiled = self.predict_function, self.test_function
        self._functions[self._test_mode] = compiled
        self.predict_function, self.test_function = self._functions.pop(
            mode, (None, None)
        )
        self._test_mode = mode


def _by_row(composition: Composition) -> dict[str, Any]:
    """The parts of a composition, whose first axis is that of examples."""
    parts = {
        "outputs": composition.outputs,
        "logits": composition.policy.logits,
        "choices": composition.policy.choices,
        "gamma": composition.gamma,
        "context": composition.context,
    }
    if composition.guesses:  # [D, B, classes]
        parts["guesses"] = [
            tf.experimental.numpy.swapaxes(g, 0, 1) for g in composition.guesses
        ]
    return parts


def _is_symbolic_or_tensor(gamma: Any) -> bool:
    return tf.is_tensor(gamma) or any(
        isinstance(part, keras.KerasTensor)
        for part in keras.tree.flatten(gamma)
    )


def _check_rows(gamma: tf.Tensor, batch_size: tf.Tensor) -> None:
    rows, wanted = gamma.shape[0], tf.get_static_value(batch_size)
    if None not in (rows, wanted) and rows not in (1, wanted):
        raise ValueError(
            "`gamma`, or `budget`, must be one value for all or one per "
            f"example, {wanted}, got {rows}."
        )
