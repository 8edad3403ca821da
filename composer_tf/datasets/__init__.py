"""Data sets: the TFDS builder of Wide-MNIST, and fast pipelines."""

from composer_tf.datasets.epoch_shuffle import EpochShuffle as EpochShuffle
from composer_tf.datasets.loading import NAMES as NAMES
from composer_tf.datasets.loading import (
    DataUnavailableError as DataUnavailableError,
)
from composer_tf.datasets.loading import label_names as label_names
from composer_tf.datasets.loading import load as load
from composer_tf.datasets.loading import load_arrays as load_arrays
from composer_tf.datasets.pipelines import batches as batches
