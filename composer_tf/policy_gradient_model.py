"""Training by policy gradients behind the usual Keras verbs."""

import abc
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from composer_tf import losses, validation
from composer_tf.costs import CostTable
from composer_tf.estimators import Estimator
from composer_tf.policy import Composition, Policy, tile_rows
from composer_tf.sandwich import Sandwich
from composer_tf.steerable_model import SteerableModel, without_gamma


class PolicyGradientModel(SteerableModel, abc.ABC):
    """A Keras model that samples a path per example and learns which to take.

    A subclass has the attributes below, and its `call` takes `num_paths`,
    `paths` and `return_composition`.

    Attributes:
        estimator: How the gradient is estimated.
        sandwich: What is trained beside the sampled paths, or `None`.
        cost_table: Cost of each part, once built.
        output_row_shape: Shape of one row of the output, once built.
    """

    estimator: Estimator
    sandwich: Sandwich | None
    cost_table: CostTable
    output_row_shape: tuple[int | None, ...]

    @property
    @abc.abstractmethod
    def num_modules(self) -> list[int]:
        """m_1, ..., m_n."""

    @abc.abstractmethod
    def along(
        self, inputs: Any, path: Sequence[int], training: bool = False
    ) -> tf.Tensor:
        """Outputs `[B, ...]` of one path c_1, ..., c_n, asking no controller.

        Args:
            inputs: As of the model, without gamma.
            path: A module of each metalayer.
            training: As of a Keras layer.
        """

    @property
    def overhead(self) -> float:
        """Stem, fixed steps and controller, as a fraction of full cost."""
        return self.cost_table.overhead

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.cost_metric = keras.metrics.Mean("cost")
        self.reward_metric = keras.metrics.Mean("reward")
        self.entropy_metric = keras.metrics.Mean("entropy")

    def compile(
        self,
        optimizer: Any = "adam",
        loss: Any = None,
        metrics: Any = None,
        **kwargs: Any,
    ) -> None:
        """As `keras.Model.compile`, for a model with one output.

        The reward of an example is minus its loss. The logs hold, beside loss
        and metrics, `cost` (fraction of full cost), `reward` (nats, for
        cross-entropy) and `entropy` (of the policy, in nats).

        Args:
            optimizer: Of modules and controller.
            loss: Any Keras loss or a function that keeps the batch axis.
                Defaults to sparse categorical cross-entropy from logits.
            metrics: Keras metrics or names.
            **kwargs: The other arguments of `keras.Model.compile`, but for
                `loss_weights`.

        Raises:
            TypeError: If there are several losses.
            ValueError: If `loss_weights` is given.
        """
        if kwargs.get("loss_weights") is not None:
            raise ValueError("`loss_weights` needs several outputs; got one.")
        if loss is None:
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        self._per_example_loss = losses.per_example(loss)
        super().compile(optimizer, loss=loss, metrics=metrics, **kwargs)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        config = keras.saving.deserialize_keras_object(config)
        self.compile(**config)
        if self.built:
            self.optimizer.build(self.trainable_variables)

    def fit(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any):
        """As `keras.Model.fit`; bad data is refused before training starts.

        Args:
            x: As of Keras. May hold `"gamma"` beside the input, which is then
                used instead of a sample.
            y: As of Keras.
            *args: As of Keras.
            **kwargs: As of Keras.

        Raises:
            ValueError: If arrays hold NaN or infinity or labels out of range,
                or the loss stops being finite.
        """
        self._check_arrays(x, y)
        if isinstance(x, tf.data.Dataset):
            kwargs.setdefault("shuffle", False)  # Keras would warn of it.
        callbacks = kwargs.pop("callbacks", None)
        if not isinstance(callbacks, keras.callbacks.CallbackList):
            callbacks = [validation.NonFiniteLossGuard(), *_as_list(callbacks)]
        return super().fit(x, y, *args, callbacks=callbacks, **kwargs)

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        num_paths = self.estimator.num_paths(self.num_modules)
        with tf.GradientTape() as tape:
            composition: Composition = self(
                x,
                num_paths=num_paths,
                paths=self.estimator.paths(self.num_modules),
                training=True,
                return_composition=True,
            )
            data_losses, policy = self._by_path(y, composition, num_paths)
            surrogate = self.estimator(
                data_losses,
                policy=policy,
                preferences=self.preferences,
                gamma=composition.gamma,
                context=composition.context,
                sample_weight=_weights(sample_weight, data_losses[0]),
            )  # [B]
            surrogate += self._sandwich_loss(x, y, composition, sample_weight)
            total = tf.reduce_mean(surrogate) + self._penalty()
            total = self.optimizer.scale_loss(total)
        variables = self.trainable_variables
        self.optimizer.apply(tape.gradient(total, variables), variables)
        path_weights = self.estimator.path_weights(policy.log_prob)  # [K, B]
        self._track(
            data_losses, policy, path_weights, composition.gamma, sample_weight
        )
        y_pred = _heaviest_path(composition.outputs, path_weights)
        return self.compute_metrics(x, y, y_pred, sample_weight)

    def test_step(self, data: Any) -> dict[str, tf.Tensor]:
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        composition = self(x, training=False, return_composition=True)
        data_losses, policy = self._by_path(y, composition, num_paths=1)
        self._track(
            data_losses,
            policy,
            tf.ones_like(data_losses),
            composition.gamma,
            sample_weight,
        )
        return self.compute_metrics(x, y, composition.outputs, sample_weight)

    def _by_path(
        self, y: Any, composition: Composition, num_paths: int
    ) -> tuple[tf.Tensor, Policy]:
        """Losses float32 `[K, B]` and the policy of batch shape `[K, B]`."""
        targets = tile_rows(tf.convert_to_tensor(y), num_paths)
        data_losses = self._per_example_loss(targets, composition.outputs)
        data_losses = tf.reshape(data_losses, [num_paths, -1])
        return data_losses, composition.policy.split_paths(num_paths)

    def _sandwich_loss(
        self,
        x: Any,
        y: Any,
        composition: Composition,
        sample_weight: tf.Tensor | None,
    ) -> tf.Tensor | float:
        """Of the dearest and the cheapest path, float32 `[B]`, or 0."""
        if self.sandwich is None:
            return 0.0
        if self.sandwich.distillation:
            losses.check_logits(self.loss)
        inputs, targets = without_gamma(x), tf.convert_to_tensor(y)
        ends = [
            self.along(inputs, path, training=True)
            for path in (self.cost_table.dearest, self.cost_table.cheapest)
        ]
        added = self.sandwich.loss(
            [self._per_example_loss(targets, outputs) for outputs in ends],
            ends,
            composition.outputs,
        )
        return _weights(sample_weight, added) * added

    def _penalty(self) -> tf.Tensor:
        """Regularisation and what layers added with `add_loss`."""
        penalties = [tf.cast(loss, tf.float32) for loss in self.losses]
        return tf.add_n([tf.zeros([]), *penalties])

    def _track(
        self,
        data_losses: tf.Tensor,
        policy: Policy,
        path_weights: tf.Tensor,
        gamma: tf.Tensor,
        sample_weight: tf.Tensor | None,
    ) -> None:
        """Updates loss, cost, reward and entropy."""

        def over_paths(values: tf.Tensor) -> tf.Tensor:
            return tf.reduce_sum(path_weights * values, axis=0)  # [B]

        rewards = self.preferences.cost(policy, gamma) - data_losses
        self.cost_metric.update_state(
            over_paths(policy.path_cost + self.overhead)
        )
        self.reward_metric.update_state(over_paths(rewards))
        self.entropy_metric.update_state(over_paths(policy.entropy))
        expected = over_paths(data_losses)  # [B]
        loss = tf.reduce_mean(_weights(sample_weight, expected) * expected)
        loss_metric = next(m for m in self.metrics if m.name == "loss")
        loss_metric.update_state(
            loss + self._penalty(), sample_weight=tf.shape(data_losses)[1]
        )

    def _check_arrays(self, x: Any, y: Any) -> None:
        """Checks what is in memory; data sets are read only while training."""
        if y is None and _in_memory(x):
            raise ValueError("`y` must be given with `x`, got None.")
        if y is None or isinstance(x, tf.data.Dataset):
            return
        arrays = x if isinstance(x, Mapping) else {"x": x}
        for name, array in arrays.items():
            validation.check_finite(name, array)
        validation.check_finite("y", y)
        if self._has_sparse_loss():
            if not self.built:
                self(tf.nest.map_structure(lambda array: array[:1], x))
            labels = np.asarray(y)
            ignored = getattr(self.loss, "ignore_class", None)
            if ignored is not None:
                labels = labels[labels != ignored]
            validation.check_labels(labels, self.output_row_shape[-1])

    def _has_sparse_loss(self) -> bool:
        loss = keras.losses.get(self.loss)
        return loss is keras.losses.sparse_categorical_crossentropy or (
            isinstance(loss, keras.losses.SparseCategoricalCrossentropy)
        )


def _in_memory(x: Any) -> bool:
    values = x.values() if isinstance(x, Mapping) else [x]
    return all(hasattr(value, "shape") for value in values)


def _weights(sample_weight: tf.Tensor | None, values: tf.Tensor) -> tf.Tensor:
    """Sample weights float32 `[B]`, 1 where none are given."""
    if sample_weight is None:
        return tf.ones_like(values)
    return tf.reshape(tf.cast(sample_weight, tf.float32), tf.shape(values))


def _heaviest_path(outputs: tf.Tensor, path_weights: tf.Tensor) -> tf.Tensor:
    """`[K * B, ...]` to `[B, ...]`: of each example the path of most weight."""
    num_paths = path_weights.shape[0]
    if num_paths == 1:
        return outputs
    by_path = tf.reshape(outputs, [num_paths, -1, *outputs.shape[1:]])
    path = tf.argmax(path_weights, axis=0, output_type=tf.int32)  # [B]
    rows = tf.stack([path, tf.range(tf.shape(path)[0])], axis=-1)
    return tf.gather_nd(by_path, rows)


def _as_list(callbacks: Any) -> list[keras.callbacks.Callback]:
    if callbacks is None:
        return []
    return list(callbacks) if isinstance(callbacks, Sequence) else [callbacks]
