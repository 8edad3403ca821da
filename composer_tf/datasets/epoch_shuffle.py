"""A shuffle whose order is a function of seed and epoch."""

import keras
import tensorflow as tf


class EpochShuffle(keras.callbacks.Callback):
    """A new permutation for each epoch, the same one in every run.

    `tf.data.Dataset.shuffle` starts over from its seed when a run resumes; this
    shuffle does not. Pass the same object to `load` and to the callbacks of
    `fit`, without `steps_per_epoch`, and a run resumed at epoch e sees the
    order that epoch e would have had. Without the callback the order still
    changes with every pass, counted from the start of the process.

    Args:
        seed: Int, seed of all permutations. Defaults to 0.

    Example:
        >>> shuffle = EpochShuffle(seed=1)
        >>> order = shuffle.permute(tf.range(5), size=5, key=shuffle.next_key())
        >>> sorted(order.numpy().tolist())
        [0, 1, 2, 3, 4]
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.seed = seed
        self._epoch = tf.Variable(tf.constant(0, tf.int64), trainable=False)

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self._epoch.assign(epoch)

    def next_key(self) -> tf.Tensor:
        """The key of the epoch that starts now, a scalar int64."""
        return self._epoch.assign_add(1) - 1

    def permute(self, index: tf.Tensor, size: int, key: tf.Tensor) -> tf.Tensor:
        """Where each position of epoch `key` comes from.

        Args:
            index: int64 `[B]`, positions in `[0, size)`.
            size: Length of the data.
            key: Scalar int64, such as `next_key` returns.

        Returns:
            int64 `[B]`, rows in `[0, size)`. Over all positions they are a
            permutation.
        """
        seed = tf.stack([tf.cast(self.seed, tf.int64), key])
        shuffle = tf.random.experimental.index_shuffle  # pyright: ignore[reportAttributeAccessIssue]
        return shuffle(tf.cast(index, tf.int64), seed, size - 1)
