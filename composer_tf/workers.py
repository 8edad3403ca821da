"""The processes that train one model together, and which of them writes."""

from typing import Literal

import tensorflow as tf

StrategyName = Literal["one", "mirrored", "multi_worker"]


def make_strategy(name: StrategyName) -> tf.distribute.Strategy:
    """A strategy of `tf.distribute`, before any other use of TensorFlow.

    Args:
        name: `"one"` device; `"mirrored"` over all GPUs of this machine; or
            `"multi_worker"`, over the machines that the environment variable
            `TF_CONFIG` names.
    """
    if name == "mirrored":
        return tf.distribute.MirroredStrategy()
    if name == "multi_worker":
        return tf.distribute.MultiWorkerMirroredStrategy()
    return tf.distribute.get_strategy()


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process is the one that writes."""
    resolver = strategy.cluster_resolver
    if resolver is None or not resolver.cluster_spec().as_dict():
        return True
    if "chief" in resolver.cluster_spec().as_dict():
        return resolver.task_type == "chief"
    return resolver.task_id == 0


def wait_for_all(strategy: tf.distribute.Strategy) -> None:
    """Returns when every process has come here."""

    @tf.function
    def meet() -> tf.Tensor:
        ones = strategy.run(lambda: tf.ones([]))
        return strategy.reduce(tf.distribute.ReduceOp.SUM, ones, axis=None)

    meet()
