import numpy as np
import pytest
import tensorflow as tf

from composer_tf.datasets.augmentation import shift_and_flip

SEED = tf.constant([3, 5], tf.int64)


def some_images(size=64):
    random = np.random.default_rng(0)
    return random.integers(1, 255, [size, 6, 8, 3]).astype(np.uint8)


def views_of(image, max_shift, flip):
    """Every view that there is."""
    height, width, _ = image.shape
    margin = (max_shift, max_shift)
    padded = np.pad(image, [margin, margin, (0, 0)])
    shifted = [
        padded[top : top + height, left : left + width]
        for top in range(2 * max_shift + 1)
        for left in range(2 * max_shift + 1)
    ]
    return shifted + [view[:, ::-1] for view in shifted] * flip


@pytest.mark.parametrize("flip", [False, True])
def test_every_image_becomes_one_of_its_own_views(flip):
    images = some_images()
    views = shift_and_flip(images, SEED, 2, flip).numpy()
    seen = set()
    for image, view in zip(images, views, strict=True):
        matches = [
            i
            for i, candidate in enumerate(views_of(image, 2, flip))
            if np.array_equal(candidate, view)
        ]
        assert len(matches) == 1
        seen.update(matches)
    assert len(seen) > 15  # Of 25 or 50, by 64 draws.
    assert views.dtype == np.uint8


def test_the_seed_decides():
    images = some_images()
    again = [shift_and_flip(images, SEED).numpy() for _ in range(2)]
    np.testing.assert_array_equal(*again)
    other = shift_and_flip(images, SEED + 1).numpy()
    assert not np.array_equal(again[0], other)


def test_no_shift_and_no_flip_is_the_image():
    images = some_images()
    np.testing.assert_array_equal(
        shift_and_flip(images, SEED, 0, False), images
    )


def test_half_of_the_images_are_mirrored():
    images = tf.tile([[[[1], [2]]]], [2000, 1, 1, 1])
    views = shift_and_flip(images, SEED, max_shift=0, flip=True)
    share = float(tf.reduce_mean(tf.cast(views[:, 0, 0, 0] == 2, tf.float32)))
    assert abs(share - 0.5) < 0.05
