"""Shared set-up: quiet TensorFlow, and the same random stream everywhere."""

import gc
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import pytest
import tensorflow as tf

# One would do for all but the tests of `tf.distribute`.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration()] * 2,
)


@pytest.fixture(scope="session")
def two_replicas():
    """One for all: TensorFlow mixes up the collectives of several."""
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


@pytest.fixture(autouse=True)
def _fixed_seed():
    keras.utils.set_random_seed(0)
    yield
    keras.backend.clear_session(free_memory=False)  # Or each test collects.


@pytest.fixture(scope="module", autouse=True)
def _cheap_collections():
    """What is alive when a module ends is not looked through again."""
    yield
    gc.collect()
    gc.freeze()
