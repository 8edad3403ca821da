"""A Keras model that also trains under `tf.distribute`."""

import inspect
from typing import Any

import keras
import tensorflow as tf

from composer_tf import validation
from composer_tf.composer.compiled_steps import training_function
from composer_tf.non_finite_loss_guard import NonFiniteLossGuard

_CLIPS = "it clips each one's share of the gradient; use a lower rate"
_REFUSED = {
    "clipnorm": _CLIPS,
    "global_clipnorm": _CLIPS,
    "clipvalue": _CLIPS,
    "gradient_accumulation_steps": "use a larger batch",
    "use_ema": "average the weights of saved checkpoints",
}


class ReplicatedModel(keras.Model):
    """Adds what Keras 3 needs to `fit` a model over several replicas.

    On one device, with `jit_compile=True` and several `steps_per_execution`, it
    compiles the loop over these steps too.

    Make and compile the model in the scope of a `MirroredStrategy` (several
    devices) or a `MultiWorkerMirroredStrategy` (several machines); everything
    else is as on one device. With several machines, build it in the scope too.
    Modules with a state of their own, such as dropout or batch normalization,
    keep one on each replica.
    """

    def compile(
        self, optimizer: Any = "rmsprop", loss: Any = None, **kwargs: Any
    ) -> None:
        """Same as `keras.Model.compile`.

        Raises:
            ValueError: If the model has several replicas and an argument is
                given that Keras then ignores or applies wrongly, or a
                `keras.distribution` is set, which does nothing in TensorFlow.
        """
        if keras.distribution.distribution() is not None:
            raise ValueError(
                "`keras.distribution` does nothing in TensorFlow; make and "
                "compile the model in the scope of a strategy of "
                "`tf.distribute`, such as `MirroredStrategy`."
            )
        replicated = self.distribute_strategy.num_replicas_in_sync > 1
        if replicated:
            _check_arguments(kwargs)
            kwargs["jit_compile"] = False
        super().compile(optimizer, loss=loss, **kwargs)
        if replicated:
            _check_optimizer(self.optimizer)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        # Keras compiles a loaded model with its own `compile` in no other way.
        config = keras.saving.deserialize_keras_object(config)
        if self.distribute_strategy.num_replicas_in_sync > 1:
            config |= {"jit_compile": False, "steps_per_execution": 1}
        self.compile(**config)
        if self.built:
            self.optimizer.build(self.trainable_variables)

    def make_train_function(self, force: bool = False) -> None:
        if self.train_function is not None and not force:
            return
        super().make_train_function(force)
        steps = self.steps_per_execution
        if self.jit_compile and steps > 1 and not self.run_eagerly:
            self.train_function = training_function(
                self.train_step, steps, otherwise=self.train_function
            )

    def fit(self, *args: Any, **kwargs: Any) -> keras.callbacks.History:
        """Same as `keras.Model.fit`.

        Raises:
            ValueError: If the loss stops being finite, as it does for labels
                outside the model's classes (the error names them where
                TensorFlow checks them: on CPUs, without XLA); or, with several
                workers, if arrays are to be shuffled, which each worker would
                do in its own way.
        """
        bound = inspect.signature(super().fit).bind_partial(*args, **kwargs)
        arguments = bound.arguments
        if isinstance(arguments.get("x"), tf.data.Dataset):
            arguments.setdefault("shuffle", False)  # Keras would warn about it.
        elif self._is_multi_worker and arguments.get("shuffle", True):
            raise ValueError(
                "With several workers `x` must be a tf.data.Dataset, or "
                "`shuffle` False: each would shuffle arrays its own way."
            )
        callbacks = arguments.pop("callbacks", None) or []
        if not isinstance(callbacks, keras.callbacks.CallbackList):
            guard = NonFiniteLossGuard()
            callbacks = [guard, *tf.nest.flatten(callbacks)]
        with validation.named_labels():
            return super().fit(**arguments, callbacks=callbacks)

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """Same as `keras.Model.evaluate`.

        Raises:
            ValueError: If labels are outside the model's classes, where
                TensorFlow checks them: on CPUs, without XLA.
        """
        with validation.named_labels():
            return super().evaluate(*args, **kwargs)

    @property
    def metrics(self) -> list[keras.Metric]:
        """Metrics of this model and of its layers.

        Without what models among its modules were compiled with: Keras leaves
        that out of models right below a model only, and would log it in place
        of this model's loss.
        """
        foreign = {
            id(metric)
            for layer in self._flatten_layers(include_self=False)
            if isinstance(layer, keras.Model)
            for metric in layer._get_own_metrics()
        }
        return [
            metric for metric in super().metrics if id(metric) not in foreign
        ]

    def compute_metrics(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        logs = super().compute_metrics(*args, **kwargs)
        replicas = self.distribute_strategy.num_replicas_in_sync
        if self._is_multi_worker and replicas > 1:
            # With several workers Keras averages logs over their first axis.
            logs = {name: log[tf.newaxis] for name, log in logs.items()}
        return logs

    @property
    def _is_multi_worker(self) -> bool:
        return isinstance(
            self.distribute_strategy, tf.distribute.MultiWorkerMirroredStrategy
        )

    def _maybe_symbolic_build(
        self, iterator: Any = None, data_batch: Any = None
    ) -> None:
        """As in Keras, which fails with several workers or uneven shares."""
        if self._is_multi_worker:
            if not self.built:
                raise ValueError(
                    "With several workers a model must be built before it is "
                    "used: call `model.build(input_shape)` in the scope of the "
                    "strategy."
                )
            return
        if self.distribute_strategy.num_replicas_in_sync > 1 and iterator:
            local = self.distribute_strategy.experimental_local_results
            _, _, batches = next(iter(iterator))
            data_batch = tf.nest.map_structure(
                lambda values: local(values)[0], next(batches)
            )
            iterator = None
        super()._maybe_symbolic_build(iterator, data_batch)


def _check_arguments(arguments: dict[str, Any]) -> None:
    if arguments.get("jit_compile") is True:
        raise ValueError(
            "`jit_compile=True` does not work with several replicas; use "
            "False, which runs only the chosen modules."
        )
    steps = arguments.get("steps_per_execution", 1)
    if steps != 1:
        raise ValueError(
            "`steps_per_execution` must be 1 with several replicas, got "
            f"{steps}."
        )


def _check_optimizer(optimizer: Any) -> None:
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        raise ValueError(
            "Loss scaling looks at one replica's gradient only, so with "
            "several replicas dtype 'mixed_float16' does not work; use "
            "'mixed_bfloat16'."
        )
    for each in getattr(optimizer, "_inner_optimizers", ()):
        _check_optimizer(each)  # Of a MultiOptimizer.
    for name, reason in _REFUSED.items():
        if getattr(optimizer, name, None):
            raise ValueError(
                f"`{name}` of the optimizer does not work with several "
                f"replicas: {reason}."
            )
