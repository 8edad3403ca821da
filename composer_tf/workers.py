"""The processes that train one model together, and which of them writes."""

import json
import os
from typing import Literal, get_args

import numpy as np
import tensorflow as tf

from composer_tf import validation

StrategyName = Literal["one", "mirrored", "multi_worker"]


class WorkersError(RuntimeError):
    """Workers that cannot work together."""


def make_strategy(name: StrategyName) -> tf.distribute.Strategy:
    """A strategy of `tf.distribute`, before any other use of TensorFlow.

    Args:
        name: `"one"` device; `"mirrored"` over all GPUs of this machine; or
            `"multi_worker"`, over the machines that the environment variable
            `TF_CONFIG` names.

    Raises:
        ValueError: If the name is another one.
        WorkersError: If `TF_CONFIG` is needed and does not name them, or names
            several where it is not needed.
    """
    validation.check_choice("name", name, get_args(StrategyName))
    environment = os.environ.get("TF_CONFIG", "")
    if name == "multi_worker":
        _check_environment(environment)
        return tf.distribute.MultiWorkerMirroredStrategy()
    if _names_others(environment):
        raise WorkersError(
            "TF_CONFIG names several workers, each of which would train alone "
            f"with {name!r}: choose 'multi_worker', or unset it."
        )
    if name == "mirrored":
        return tf.distribute.MirroredStrategy()
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
    """Returns when every process has called it."""
    _mean(strategy, tf.constant(0.0, tf.float64))


def check_agreement(
    strategy: tf.distribute.Strategy, number: int, what: str
) -> None:
    """Raises `WorkersError` in all processes unless their numbers are equal.

    Args:
        strategy: Strategy of all processes.
        number: Number of this process.
        what: Name of the number in the error message.
    """
    powers = tf.constant([number, number**2], tf.float64)
    mean, mean_square = np.asarray(_mean(strategy, powers))
    if mean_square - mean**2 > 1e-6:  # The variance.
        raise WorkersError(
            f"The workers disagree about {what}: this one has {number}, all "
            f"have {mean:g} on average. They must share one config and one "
            "workdir."
        )


@tf.function
def _mean(strategy: tf.distribute.Strategy, number: tf.Tensor) -> tf.Tensor:
    """Mean over all replicas; returns when every process has called it."""
    numbers = strategy.run(tf.identity, args=(number,))
    return strategy.reduce(tf.distribute.ReduceOp.MEAN, numbers, axis=None)


def _names_others(environment: str) -> bool:
    try:
        cluster = json.loads(environment)["cluster"]
        return sum(map(len, cluster.values())) > 1
    except (AttributeError, KeyError, TypeError, ValueError):
        return False  # It is for something else.


def _check_environment(value: str) -> None:
    try:
        role = json.loads(value)
        task = role["task"]
        addresses = role["cluster"][task["type"]]
        ports = [int(address.rpartition(":")[2]) for address in addresses]
        complete = (
            task["type"] in ("chief", "worker")
            and int(task["index"]) in range(len(addresses))
            and all(0 < port < 2**16 for port in ports)
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        complete = False
    if not complete:
        raise WorkersError(
            "Several workers need the environment variable TF_CONFIG, such as "
            '{"cluster": {"worker": ["host0:2222", "host1:2222"]}, "task": '
            f'{{"type": "worker", "index": 0}}}}, got {value!r}.'
        )
