"""Training by policy gradients with the usual Keras methods."""

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
from composer_tf.layers import routing_checks
from composer_tf.objectives import losses as losses_lib
from composer_tf.objectives import rewards as rewards_lib
from composer_tf.objectives.sandwich import Sandwich
from composer_tf.policy import Composition

_LOGGED = ("loss", "cost", "reward", "entropy")
_FUSED_FROM = 1_000_000  # Weights; for fewer, compiling takes too long.


class PolicyGradientModel(ModularModel):
    """A Keras model that samples a path per example and learns which to take.

    A subclass has a `call` that takes `paths` and `return_composition`.

    Args:
        estimator: Estimator of the gradient, or its name.
        sandwich: `Sandwich`, which trains more paths than the sampled ones, or
            `None`.
        **kwargs: Arguments of `ModularModel`.

    Attributes:
        reward: Reward that was given to `compile`.
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
        """Same as `keras.Model.compile`, for a model with one output.

        The reward of an example is minus its loss, unless another reward is
        given: then the modules are trained on the loss and the policy on the
        reward, which need not be differentiable. Besides loss and metrics, the
        logs hold `cost` (fraction of full cost), `reward` (with all costs, in
        its own unit: nats, for cross-entropy) and `entropy` (of the policy, in
        nats). The logged `loss` is the data loss plus regularization, without
        what else is trained (sandwich, distillation, probes, baseline); but in
        training it is not finite if any of these is not. Sample weights weigh
        the loss, as in Keras, but not cost, reward, entropy or `metrics`. Where
        an estimator takes several paths, the logs are means over these, but
        `metrics` see one in training: the first sample, or the likeliest.

        Args:
            optimizer: Keras optimizer of modules and controller. Defaults to
                Adam.
            loss: Any Keras loss or a function that keeps the batch axis.
                Defaults to sparse categorical cross-entropy from logits. The
                mean over examples of weight times loss is minimized.
            metrics: Keras metrics or names, none named like one that is logged
                anyway.
            reward: Reward that the policy maximizes besides the costs, in place
                of minus the loss (`"log_probability"`): for a classifier of
                integer labels on logits, its `"accuracy"` or the label's
                `"probability"`; or a function of `y_true`, `y_pred` that
                returns `[B]`, the larger the better. Gamma is in its unit.
            **kwargs: Other arguments of `keras.Model.compile`, except
                `loss_weights`. With `jit_compile="auto"` (default) XLA compiles
                only the optimizer's update, for models of a million weights or
                more, on GPUs too and with any routing; with `False`, nothing.

        Raises:
            TypeError: If there are several losses, the reward is a loss, or a
                subclass overrides `compute_loss`.
            ValueError: If `loss_weights` is given, a loss that sums over the
                batch or that a sandwich cannot distil, one of logits for
                modules that end in a softmax or sigmoid, an unknown reward, or
                a metric with a name that is taken.
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
        for layer in self._last_layers():
            losses_lib.check_activation(loss, layer)
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
        """Same as `keras.Model.fit`; checks data in memory before training.

        Args:
            x: Same as in Keras. It may hold `"gamma"` besides the input, which
                is then used instead of a sample.
            y: Same as in Keras.
            *args: Same as in Keras.
            **kwargs: Same as in Keras.

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
        """Same as `keras.Model.train_on_batch`, with gammas as in `fit`.

        Args:
            x: Same as in `fit`.
            *args: Same as in Keras.
            **kwargs: Same as in Keras.
        """
        return super().train_on_batch(
            self._with_gamma_by_row(x), *args, **kwargs
        )

    def evaluate(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any):
        """Same as in the base classes, with checks of targets and weights.

        Args:
            x: Same as in Keras.
            y: Same as in Keras.
            *args: Same as in Keras.
            **kwargs: Same as in `SteerableModel.evaluate`.

        Raises:
            TypeError: If targets are not one array.
            ValueError: If sample weights are not one per example, or not
                finite, or modules add losses that only dense routing collects.
        """
        # A step that was traced for other shapes may not know these.
        validation.check_targets((x, y, kwargs.get("sample_weight")))
        return super().evaluate(x, y, *args, **kwargs)

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        x, y, sample_weight = _unpack(data)
        if not self.built:  # The sandwich needs the costs.
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
        for metalayer in self.routed_layers:  # The loss includes theirs.
            routing_checks.check_no_leaked_losses(
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

        With many weights that takes longer than a few modules on their rows: an
        optimizer passes over all weights several times, but only once if XLA
        compiles it.
        """
        fuses = (
            self._may_fuse
            and self.count_params() >= _FUSED_FROM
            and not tf.distribute.has_strategy()
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
            batch: Batch of all replicas.
            rows: Rows of this replica, along the estimator's paths.
            others: Rows of this replica, along the sandwich's paths.
            probe_losses: float32 `[B]`, of the controller's probes.
            sample_weight: `[B]` or `[B, 1]`, of this replica, or `None`.
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
        """Regularization and what layers added with `add_loss`."""
        penalties = [tf.cast(loss, tf.float32) for loss in self.losses]
        return tf.add_n([tf.zeros([]), *penalties])

    def _track(self, batch: Batch, applied: tf.Tensor | None = None) -> None:
        """Updates loss, cost, reward and entropy.

        Args:
            batch: Batch of all replicas.
            applied: Scalar loss that is trained, if any. Guards see only the
                logged loss, so that is made non-finite where this one is.
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
        """Checks labels in arrays; data sets are read only in training."""
        if y is None or isinstance(x, tf.data.Dataset):
            return
        if losses_lib.takes_labels(self.loss):
            if not self.built:
                with self.distribute_strategy.scope():
                    self(tf.nest.map_structure(lambda array: array[:1], x))
            losses_lib.check_labels(self.loss, y, self.output_row_shape)


def _unpack(data: Any) -> tuple[Any, Any, Any]:
    validation.check_targets(data)
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    if y is None:
        raise ValueError(
            "The data must be (inputs, targets) or (inputs, targets, sample "
            "weights), got inputs only."
        )
    return x, y, sample_weight
