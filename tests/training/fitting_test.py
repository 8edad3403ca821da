"""The data that all networks of a run share."""

import numpy as np
import tensorflow as tf

from composer_tf.config import Config, DataConfig
from composer_tf.training import fitting


def load(tmp_path, augment):
    data = DataConfig(
        "wide_mnist/digits", augment=augment, data_dir=str(tmp_path)
    )
    return fitting.load(Config(data, None), tf.distribute.get_strategy())


def first_images(run):
    run.shuffle.on_epoch_begin(0)
    images, _ = next(iter(run.train))
    return images


def test_a_run_goes_on_without_augmentation(tmp_path):
    plain, augmented = load(tmp_path, False), load(tmp_path, True)
    expected = first_images(plain)
    assert np.any(first_images(augmented) != expected)
    images = first_images(fitting.without_augmentation(augmented))
    np.testing.assert_array_equal(images, expected)
    assert fitting.without_augmentation(plain) is plain
