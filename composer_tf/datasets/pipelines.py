"""`tf.data` pipelines over arrays in memory, one operation per batch."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from composer_tf.datasets.epoch_shuffle import EpochShuffle

Augment = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]

_PREFETCHED = 2  # Batches: one in use, one being made.


def batches(
    images: np.ndarray,
    labels: np.ndarray,
    batch_size: int,
    shuffle: EpochShuffle | None = None,
    passes: int = 1,
    augment: Augment | None = None,
) -> tf.data.Dataset:
    """Batches gathered from arrays; the images stay integers until the model.

    Args:
        images: `[N, ...]`.
        labels: `[N]`.
        batch_size: Examples per batch.
        shuffle: Shuffle that gives the order of each epoch; the remainder of
            each pass is dropped. `None` keeps order and remainder.
        passes: Passes over the data in one epoch. Several give a small data set
            epochs of a useful length; they need `shuffle`.
        augment: Function that maps a batch of images and an int64 `[2]` seed,
            a new one for every batch of every epoch, to a batch of views. Needs
            `shuffle`.

    Returns:
        Finite data set of (images, labels) with a known cardinality.

    Raises:
        ValueError: If `batch_size` is not in `[1, N]`, `passes` below 1, or
            `augment` is given without `shuffle`.
    """
    size = len(images)
    if not 1 <= batch_size <= size:
        raise ValueError(
            f"`batch_size` must be from 1 to the {size} examples of the data, "
            f"got {batch_size}."
        )
    if passes < 1:
        raise ValueError(f"`passes` must be at least 1, got {passes}.")
    if len(labels) != size:
        raise ValueError(
            f"`labels` must be one for each of the {size} images, got "
            f"{len(labels)}."
        )
    if shuffle is None:
        for name, given in (("augment", augment), ("passes", passes > 1)):
            if given:
                raise ValueError(f"`{name}` needs `shuffle`, got None.")
        data = tf.data.Dataset.from_tensor_slices((images, labels))
        return _prefetched(data.batch(batch_size))
    per_pass = size // batch_size
    all_images, all_labels = tf.constant(images), tf.constant(labels)

    def gather(step: tf.Tensor, epoch: tf.Tensor):
        turn = step // per_pass
        start = (step - turn * per_pass) * batch_size
        positions = start + tf.range(batch_size, dtype=tf.int64)
        rows = shuffle.permute(positions, size, epoch * passes + turn)
        batch = tf.gather(all_images, rows)
        if augment is not None:
            number = epoch * passes * per_pass + step
            seed = tf.stack([tf.cast(shuffle.seed, tf.int64), number])
            batch = augment(batch, seed)
        return batch, tf.gather(all_labels, rows)

    def one_epoch(_: tf.Tensor) -> tf.data.Dataset:
        epoch = shuffle.next_key()
        steps = tf.data.Dataset.range(passes * per_pass)
        return steps.map(lambda step: gather(step, epoch))

    data = tf.data.Dataset.range(1).flat_map(one_epoch)
    data = data.apply(
        tf.data.experimental.assert_cardinality(passes * per_pass)
    )
    return _prefetched(data)


def _prefetched(data: tf.data.Dataset) -> tf.data.Dataset:
    """Prefetches; each `tf.distribute` worker takes its rows of each batch.

    Autotuning is off: `tf.data` ends a pass only when its tuner wakes up, and
    the tuner sleeps ever longer, so a pass may take twice its time.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    policy = tf.data.experimental.AutoShardPolicy.DATA
    options.experimental_distribute.auto_shard_policy = policy
    return data.prefetch(_PREFETCHED).with_options(options)
