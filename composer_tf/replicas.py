"""One batch over several replicas of `tf.distribute`, as if it were on one.

Each replica holds some of the batch's rows. What looks at a batch as a whole (a
cost over it, a baseline) gets the rows of all replicas from here, and knows
nothing of them. Where there is one replica, nothing happens here.
"""

from collections.abc import Callable, Sequence

import tensorflow as tf


def count() -> int:
    """How many replicas share the batch that is being computed."""
    context = _context()
    return 1 if context is None else context.num_replicas_in_sync


def gather(tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """The rows of all replicas, which every replica then has.

    Gradients reach a replica's own rows only. So if each replica differentiates
    one and the same loss of the whole batch, the sum of their gradients is the
    gradient.

    Args:
        tensors: `[B, ...]` of float32, or of integers below 2^24.

    Returns:
        `[sum of all B, ...]`, in the order of the replicas.
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
    """The same, for what every replica computes from gathered rows.

    Its gradient would be there once per replica.
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
    """Samples each row as one device would that holds the whole batch.

    By the same stateless seed every replica draws for the rows of all, and
    keeps its own. So no two rows share their noise, and the number of replicas
    changes no result, as long as all hold equally many rows. Else a few rows of
    neighbouring replicas draw the same.

    Args:
        sample: Maps parameters `[..., d]` to samples `[...]`, by a seed.
        parameters: `[K * B, d]`, of K paths of each of B examples.
        num_paths: K.

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
    """Of the replica that runs this, if there are several."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return None
    return context
