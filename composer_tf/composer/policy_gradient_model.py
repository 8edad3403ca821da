"""Training by policy gradients behind the usual Keras verbs."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from composer_tf import estimators, replicas, validation
from composer_tf.composer.batches import (
    Batch,
    Rows,
    example_weights,
    whole_batch,
)
from composer_tf.composer.modular_model import ModularModel
from composer_tf.layers import routing
from composer_tf.objectives import losses as losses_lib
from composer_tf.objectives import rewards as rewards_lib
from composer_tf.objectives.sandwich import Sandwich
from composer_tf.policy import Composition

_LOGGED = ("loss", "cost", "reward", "entropy")
_FUSED_FROM = 1_000_000  # Weights: for fewer, compiling takes too long.


class PolicyGradientModel(ModularModel):
    """A Keras model that samples a path per example and learns which to take.

    A subclass has a `call` that takes `paths` and `return_composition`.

    Args:
        estimator: How the gradient is estimated.
        sandwich: What is trained beside the sampled paths, or `None`.
        **kwargs: Of `ModularModel`.

    Attributes:
        reward: As given to `compile`.
    """

    def __init__(
        self,
        estimator: str | estimators.Estimator,
        sandwich: Sandwich | None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if sandwich is not None and not isinstance(sandwich, Sandwich):
            raise TypeError(
                f"`sandwich` must be a Sandwich or None, got {sandwich!r}."
            )
        self.estimator = estimators.get(estimator)
        self.sandwich = sandwich
        self.reward: rewards_lib.Reward = None
        self._reward: rewards_lib.RewardFunction | None = None
        self.cost_metric = keras.metrics.Mean("cost")
        self.reward_metric = keras.metrics.Mean("reward")
        self.entropy_metric = keras.metrics.Mean("entropy")

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        table = self.cost_table
        equal = table.dearest == table.cheapest
        if equal and self.sandwich is not None and self.sandwich.runs_both_ends:
            raise ValueError(
                "A sandwich of dearest and cheapest path needs modules of "
                f"different costs, got {table.modules}."
            )
        self._build_estimator()

    def _build_estimator(self) -> None:
        shape = (None, self._context_size)
        if not self.estimator.built:
            self.estimator.build(shape)
            return
        known = (self.estimator.get_build_config() or {}).get("input_shape")
        if known is not None and tuple(known) != shape:
            raise ValueError(
                f"`estimator` {self.estimator.name!r} is built for contexts "
                f"{tuple(known)}, but this model needs {shape}: make an "
                "estimator of its own."
            )

    def compile(
        self,
        optimizer: Any = "adam",
        loss: Any = None,
        *,
        metrics: Any = None,
        reward: rewards_lib.Reward = None,
        **kwargs: Any,
    ) -> None:
        """As `keras.Model.compile`, for a model with one output.

        The reward of an example is minus its loss, unless another one is given:
        modules are trained on the loss then, and the policy on the reward,
        which need not be differentiable. The logs hold, beside loss and
        metrics, `cost` (fraction of full cost), `reward` (with all costs, in
        its own unit: nats, for cross-entropy) and `entropy` (of the policy, in
        nats). The logged `loss` is that of the data and of regularisation, not
        of what else is trained (sandwich, distillation, probes, baseline); but
        in training it is not finite either where any of that is not. Sample
        weights weigh the loss, as of Keras, and neither cost, reward, entropy
        nor `metrics`.

        Args:
            optimizer: Optimizer of modules and controller. Defaults to Adam.
            loss: Any Keras loss or a function that keeps the batch axis.
                Defaults to sparse categorical cross-entropy from logits. What
                is trained is the mean over examples of weight times loss.
            metrics: Keras metrics or names, none named as what is logged
                anyway.
            reward: What the policy maximises beside the costs, in place of
                minus the loss (`"log_probability"`): for a classifier of
                integer labels on logits, its `"accuracy"` or the label's
                `"probability"`; or a function of `y_true`, `y_pred` that
                returns `[B]`, the larger the better. Gamma is in its unit.
            **kwargs: The other arguments of `keras.Model.compile`, but for
                `loss_weights`. With `jit_compile="auto"` (default) XLA compiles
                the optimizer's update alone, for models of a million weights or
                more, on GPUs too and with any routing; with `False` nothing.

        Raises:
            TypeError: If there are several losses, or one is the reward, or a
                subclass overrides `compute_loss`.
            ValueError: If `loss_weights` is given, a loss that sums over the
                batch or that a sandwich cannot distil, an unknown reward, or a
                metric with a name that is taken.
        """
        if type(self).compute_loss is not keras.Model.compute_loss:
            raise TypeError(
                "`compute_loss` of a subclass would not be called, as each "
                "example needs a loss of its own: give `loss` or `reward`."
            )
        for given in (metrics, kwargs.get("weighted_metrics")):
            validation.check_metric_names(given, _LOGGED)
        if kwargs.get("loss_weights") is not None:
            raise ValueError("`loss_weights` needs several outputs; got one.")
        if loss is None:
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        self._per_example_loss = losses_lib.per_example(loss)
        if self.sandwich is not None and self.sandwich.distillation:
            losses_lib.check_logits(loss, "Distillation")
        self._may_fuse = kwargs.get("jit_compile", "auto") == "auto"
        if self._may_fuse:  # Keras may compile the whole step otherwise.
            kwargs["jit_compile"] = False
        self.reward = reward
        self._reward = rewards_lib.get(reward, loss)
        super().compile(optimizer, loss=loss, metrics=metrics, **kwargs)

    def get_compile_config(self) -> dict[str, Any] | None:
        config = super().get_compile_config()
        if not self.compiled:
            return config
        serialize = keras.saving.serialize_keras_object
        as_given = {"jit_compile": "auto"} if self._may_fuse else {}
        return {**config, **as_given, "reward": serialize(self.reward)}

    def fit(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any):
        """As `keras.Model.fit`; bad data is refused before training starts.

        Args:
            x: As of Keras. May hold `"gamma"` beside the input, which is then
                used instead of a sample.
            y: As of Keras.
            *args: As of Keras.
            **kwargs: As of Keras.

        Raises:
            TypeError: If targets are not one array.
            ValueError: If arrays hold NaN or infinity or labels out of range,
                sample weights are not one per example, or the loss stops being
                finite.
        """
        x = self._with_gamma_by_row(x)
        validation.check_arrays(x, y)
        validation.check_targets((x, y, kwargs.get("sample_weight")))
        validation_data = kwargs.get("validation_data")
        validation.check_targets(validation_data)
        if isinstance(validation_data, tuple | list):
            first, *rest = validation_data
            validation_data = (self._with_gamma_by_row(first), *rest)
            kwargs["validation_data"] = validation_data
        self._check_labels(x, y)
        return super().fit(x, y, *args, **kwargs)

    def train_on_batch(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """As `keras.Model.train_on_batch`; `x` may hold `"gamma"`, as in `fit`.

        Args:
            x: As of Keras.
            *args: As of Keras.
            **kwargs: As of Keras.
        """
        return super().train_on_batch(
            self._with_gamma_by_row(x), *args, **kwargs
        )

    def evaluate(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any):
        """As of the base classes.

        Args:
            x: As of Keras.
            y: As of Keras.
            *args: As of Keras.
            **kwargs: As of `SteerableModel.evaluate`.

        Raises:
            TypeError: If targets are not one array.
            ValueError: If sample weights are not one per example, or not
                finite, or modules add losses that are known in dense routing
                only.
        """
        # A step that was traced for other shapes may not know these.
        validation.check_targets((x, y, kwargs.get("sample_weight")))
        return super().evaluate(x, y, *args, **kwargs)

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        x, y, sample_weight = _unpack(data)
        if not self.built:  # The sandwich needs its costs.
            self.build(tf.nest.map_structure(lambda array: array.shape, x))
        paths = self.estimator.paths(self.num_modules)
        beside = []
        if self.sandwich is not None:
            table = self.cost_table
            beside = self.sandwich.paths(table.dearest, table.cheapest)
        with tf.GradientTape() as tape:
            composition: Composition = self(
                x,
                paths=[*paths, *beside],
                training=True,
                return_composition=True,
            )
            num_paths = len(paths) + len(beside)
            all_rows = self._rows(y, composition, num_paths)
            rows = all_rows.take(slice(len(paths)))
            others = all_rows.take(slice(len(paths), None))
            path_weights = self.estimator.path_weights(rows.policy.log_prob)
            batch = whole_batch(rows, composition, sample_weight, path_weights)
            probe_losses = losses_lib.probe_losses(
                self._per_example_loss,
                y,
                composition.guesses,
                like=rows.losses[0],
            )
            loss = self._loss_to_apply(
                batch, rows, others, probe_losses, sample_weight
            )
            scaled_loss = self.optimizer.scale_loss(loss)
        variables = self.trainable_variables
        self._update(tape.gradient(scaled_loss, variables), variables)
        self._track(batch, loss)
        y_pred = rows.most_weighted_outputs(path_weights)
        return self.compute_metrics(x, y, y_pred, sample_weight)

    def test_step(self, data: Any) -> dict[str, tf.Tensor]:
        x, y, sample_weight = _unpack(data)
        composition = self(
            x,
            **self._steering_of_step(x),
            training=False,
            return_composition=True,
        )
        for metalayer in self.routed_layers:  # The loss has theirs in it.
            routing.check_no_leaked_losses(
                metalayer.modules, composition.outputs
            )
        rows = self._rows(y, composition, num_paths=1)
        path_weights = tf.ones_like(rows.losses)
        self._track(whole_batch(rows, composition, sample_weight, path_weights))
        return self.compute_metrics(x, y, composition.outputs, sample_weight)

    def _update(
        self,
        gradients: Sequence[Any],
        variables: Sequence[keras.Variable],
    ) -> None:
        """Lets the optimizer update the weights.

        Of many weights that takes longer than a few modules do on their rows:
        an optimizer goes over all of them several times, and as XLA compiles it
        once.
        """
        fuses = (
            self._may_fuse
            and self.count_params() >= _FUSED_FROM
            and replicas.count() == 1
            and not self.run_eagerly
            and not isinstance(
                self.optimizer, keras.optimizers.LossScaleOptimizer
            )
            and not any(isinstance(g, tf.IndexedSlices) for g in gradients)
        )
        if not fuses:
            self.optimizer.apply(gradients, variables)
            return

        @tf.function(jit_compile=True, autograph=False)
        def update(*gradients: Any) -> None:
            self.optimizer.apply(gradients, variables)

        update(*gradients)

    def _loss_to_apply(
        self,
        batch: Batch,
        rows: Rows,
        others: Rows,
        probe_losses: tf.Tensor,
        sample_weight: tf.Tensor | None,
    ) -> tf.Tensor:
        """This replica's share of the loss; the gradients are summed.

        Args:
            batch: Of all replicas.
            rows: Of this one, along the estimator's paths.
            others: Of this one, along the sandwich's.
            probe_losses: float32 `[B]`, of the controller's probes.
            sample_weight: Of this one.
        """
        surrogate = self.estimator(
            batch.losses,
            policy=batch.policy,
            preferences=self.preferences,
            gamma=batch.gamma,
            context=batch.context,
            sample_weight=batch.weights,
            rewards=None if self._reward is None else batch.rewards,
        )  # [B]
        added = probe_losses  # Of this replica's rows.
        if self.sandwich is not None:
            added += self.sandwich.loss(
                tf.unstack(others.losses),
                tf.unstack(others.outputs),
                rows.outputs,
            )
        total = tf.reduce_sum(surrogate)
        total += tf.reduce_sum(example_weights(sample_weight, added) * added)
        total /= tf.cast(tf.shape(surrogate)[0], tf.float32)
        return total + self._penalty() / replicas.count()

    def _rows(self, y: Any, composition: Composition, num_paths: int) -> Rows:
        return Rows.of(
            composition, y, num_paths, self._per_example_loss, self._reward
        )

    def _penalty(self) -> tf.Tensor:
        """Regularisation and what layers added with `add_loss`."""
        penalties = [tf.cast(loss, tf.float32) for loss in self.losses]
        return tf.add_n([tf.zeros([]), *penalties])

    def _track(self, batch: Batch, applied: tf.Tensor | None = None) -> None:
        """Updates loss, cost, reward and entropy.

        Args:
            batch: Of all replicas.
            applied: The scalar that is trained, if any. Guards look at the
                logged loss only, so it tells them where that is not finite.
        """
        policy = batch.policy
        rewards = self.preferences.cost(policy, batch.gamma) + batch.rewards
        self.cost_metric.update_state(
            batch.over_paths(policy.path_cost + self.overhead)
        )
        self.reward_metric.update_state(batch.over_paths(rewards))
        self.entropy_metric.update_state(batch.over_paths(policy.entropy))
        losses = batch.weights * batch.over_paths(batch.losses)  # [B]
        losses += self._penalty()
        if applied is not None:
            losses = tf.where(tf.math.is_finite(applied), losses, applied)
        loss_metric = next(m for m in self.metrics if m.name == "loss")
        loss_metric.update_state(losses)

    def _check_labels(self, x: Any, y: Any) -> None:
        """Of arrays; data sets are read only while training."""
        if y is None or isinstance(x, tf.data.Dataset):
            return
        if losses_lib.takes_labels(self.loss):
            if not self.built:
                with self.distribute_strategy.scope():
                    self(tf.nest.map_structure(lambda array: array[:1], x))
            losses_lib.check_labels(self.loss, y, self.output_row_shape[-1])


def _unpack(data: Any) -> tuple[Any, Any, Any]:
    validation.check_targets(data)
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    if y is None:
        raise ValueError(
            "The data must be (inputs, targets) or (inputs, targets, sample "
            "weights), got inputs only."
        )
    return x, y, sample_weight
