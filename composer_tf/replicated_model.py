"""A Keras model that trains under `tf.distribute` too."""

from typing import Any

import keras
import tensorflow as tf

_CLIPPING = ("clipnorm", "global_clipnorm", "clipvalue")


class ReplicatedModel(keras.Model):
    """What Keras 3 needs to `fit` a model of several replicas.

    Make and compile it in the scope of a `MirroredStrategy` (several devices)
    or a `MultiWorkerMirroredStrategy` (several machines); all else is as on one
    device. With several machines build it there too.
    """

    def compile(
        self, optimizer: Any = "rmsprop", *args: Any, **kwargs: Any
    ) -> None:
        """As `keras.Model.compile`.

        Raises:
            ValueError: If the model has several replicas, and an argument is
                given that Keras does not keep its word on then.
        """
        if self.distribute_strategy.num_replicas_in_sync > 1:
            _check_for_replicas(optimizer, kwargs)
            kwargs["jit_compile"] = False
        super().compile(optimizer, *args, **kwargs)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        config = keras.saving.deserialize_keras_object(config)
        self.compile(**config)
        if self.built:
            self.optimizer.build(self.trainable_variables)

    def compute_metrics(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        logs = super().compute_metrics(*args, **kwargs)
        if self._has_several_workers:  # Keras takes means along the first axis.
            logs = {name: log[tf.newaxis] for name, log in logs.items()}
        return logs

    @property
    def _has_several_workers(self) -> bool:
        return isinstance(
            self.distribute_strategy, tf.distribute.MultiWorkerMirroredStrategy
        )

    def _maybe_symbolic_build(
        self, iterator: Any = None, data_batch: Any = None
    ) -> None:
        """As Keras, which fails with several workers and with uneven shares."""
        if self._has_several_workers:
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


def _check_for_replicas(optimizer: Any, arguments: dict[str, Any]) -> None:
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
    optimizer = keras.optimizers.get(optimizer)
    for name in _CLIPPING:
        if getattr(optimizer, name, None) is not None:
            raise ValueError(
                f"`{name}` of the optimizer clips each replica's share of the "
                "gradient, not their sum. Use a lower learning rate, or one "
                "replica."
            )
    if getattr(optimizer, "gradient_accumulation_steps", None):
        raise ValueError(
            "`gradient_accumulation_steps` does not work with several "
            "replicas; use a larger batch, or one replica."
        )
