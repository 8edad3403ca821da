"""Random views of training images, one batch at a time."""

import tensorflow as tf


def shift_and_flip(
    images: tf.Tensor, seed: tf.Tensor, max_shift: int = 4, flip: bool = True
) -> tf.Tensor:
    """Shifts each image by its own number of pixels, and mirrors some.

    Pixels that move in from outside are 0. An image is mirrored with
    probability 1/2.

    Args:
        images: `[B, H, W, C]`.
        seed: int32 or int64 `[2]`; the same seed gives the same views.
        max_shift: Largest shift in each direction, in pixels, int >= 0.
            Defaults to 4.
        flip: Whether to mirror left and right, which digits must not be.
            Defaults to true.

    Returns:
        `[B, H, W, C]`, same dtype as `images`.

    Example:
        >>> images = tf.ones([2, 5, 5, 1], tf.uint8)
        >>> shift_and_flip(images, tf.constant([0, 1]), max_shift=1).shape
        TensorShape([2, 5, 5, 1])
    """
    batch_size, height, width = tf.unstack(tf.shape(images)[:3])
    margin = [max_shift, max_shift]
    padded = tf.pad(images, [[0, 0], margin, margin, [0, 0]])
    shift_seed, flip_seed = tf.unstack(tf.random.split(seed, 2))
    starts = tf.random.stateless_uniform(
        [batch_size, 2, 1], shift_seed, 0, 2 * max_shift + 1, tf.int32
    )
    rows = starts[:, 0] + tf.range(height)  # [B, H]
    columns = starts[:, 1] + tf.range(width)  # [B, W]
    if flip:
        uniform = tf.random.stateless_uniform([batch_size, 1], flip_seed)
        columns = tf.where(uniform < 0.5, columns[:, ::-1], columns)
    views = tf.gather(padded, rows, axis=1, batch_dims=1)
    views = tf.gather(views, columns, axis=2, batch_dims=1)
    return tf.ensure_shape(views, images.shape)
