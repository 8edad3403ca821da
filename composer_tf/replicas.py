"""One batch over several replicas of `tf.distribute`, as if it were on one.

Each replica holds some of the batch's rows. Code that needs the whole batch (a
cost over it, a baseline) gets the rows of all replicas from here, and need not
know about replicas. With a single replica, these functions change nothing.
"""

from collections.abc import Callable, Sequence

import tensorflow as tf


def count() -> int:
    """Number of replicas that share the batch that is being computed."""
    context = _context()
    return 1 if context is None else context.num_replicas_in_sync


def gather(tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Gathers the rows of all replicas on every replica.

    Gradients reach only a replica's own rows. So if all replicas differentiate
    the same loss of the whole batch, the sum of their gradients is the
    gradient.

    Args:
        tensors: `[B, ...]` each, float32 or integers below 2^24.

    Returns:
        `[sum of all B, ...]` each, in the order of the replicas.
    """
    context = _context()
    if context is None:
        return list(tensors)
    shapes = [tensor.shape[1:] for tensor in tensors]
    sizes = [tensor.shape[1:].num_elements() for tensor in tensors]
    own = tf.concat(
        [
            tf.reshape(tf.cast(tensor, tf.float32), [-1, size])
            for tensor, size in zip(tensors, sizes, strict=True)
        ],
        axis=-1,
    )  # One collective operation for all.
    size = tf.shape(own)[0]
    starts = tf.cumsum(context.all_gather(size[tf.newaxis], 0), exclusive=True)
    start = starts[context.replica_id_in_sync_group]
    all_rows = context.all_gather(tf.stop_gradient(own), 0)
    all_rows = tf.concat([all_rows[:start], own, all_rows[start + size :]], 0)
    return [
        tf.cast(tf.reshape(columns, [-1, *shape]), tensor.dtype)
        for columns, shape, tensor in zip(
            tf.split(all_rows, sizes, axis=-1), shapes, tensors, strict=True
        )
    ]


def count_once(tensor: tf.Tensor) -> tf.Tensor:
    """The same tensor, with its gradient divided by the number of replicas.

    It is for what every replica computes from gathered rows, whose gradient
    would otherwise be counted once per replica.
    """
    if count() == 1:
        return tensor
    share = 1.0 / count()
    return share * tensor + tf.stop_gradient((1.0 - share) * tensor)


def draw(
    sample: Callable[[tf.Tensor], tf.Tensor],
    parameters: tf.Tensor,
    num_paths: int = 1,
) -> tf.Tensor:
    """Samples each row as one device with the whole batch would.

    With the same stateless seed, every replica draws for the rows of all
    replicas and keeps its own. So no two rows share their noise, and the number
    of replicas changes no result, if all hold equally many rows. Otherwise a
    few rows of neighboring replicas draw the same.

    Args:
        sample: Function that maps parameters `[..., d]` to samples `[...]`, by
            a stateless seed.
        parameters: `[K * B, d]`, for K paths of each of B examples.
        num_paths: Number of paths K.

    Returns:
        `[K * B]`.
    """
    context = _context()
    if context is None:
        return sample(parameters)
    size = parameters.shape[-1]
    own = tf.reshape(parameters, [num_paths, 1, -1, size])
    everyones = tf.tile(own, [1, context.num_replicas_in_sync, 1, 1])
    index = context.replica_id_in_sync_group
    return tf.reshape(sample(everyones)[:, index], [-1])


def _context() -> tf.distribute.ReplicaContext | None:
    """Context of the current replica, or `None` if there is only one."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return None
    return context
