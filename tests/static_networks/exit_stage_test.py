import keras
import numpy as np
import pytest
import tensorflow as tf

from composer_tf.static_networks.exit_stage import ExitStage


class NoShape(keras.layers.Layer):
    """As a user writes one, without `compute_output_shape`."""

    def call(self, inputs):
        return inputs[:, ::2]


@pytest.mark.parametrize("num_classes", [None, 7])
def test_shapes_are_known_before_it_runs(num_classes):
    steps = [NoShape(), keras.layers.Dense(5)]
    stage = ExitStage(steps, num_classes)
    stage.build((None, 6, 4))
    expected = ((None, 3, 5), (None, num_classes or 5))
    assert stage.compute_output_shape((None, 6, 4)) == expected
    activations, logits = stage(np.ones([2, 6, 4], np.float32))
    assert activations.shape == (2, 3, 5)
    if num_classes:
        assert logits.shape == (2, num_classes)


def test_logits_are_float32_under_mixed_precision():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        stage = ExitStage([keras.layers.Dense(4)], num_classes=3)
        activations, logits = stage(tf.ones([2, 5]))
    finally:
        keras.config.set_dtype_policy("float32")
    assert (activations.dtype, logits.dtype) == (tf.float16, tf.float32)


def test_a_copy_from_its_config_answers_alike():
    stage = ExitStage([keras.layers.Dense(4, "relu")], num_classes=3)
    x = np.random.default_rng(0).normal(size=[2, 5]).astype(np.float32)
    expected = stage(x)
    copy = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(stage)
    )
    copy(x)
    copy.set_weights(stage.get_weights())
    for actual, wanted in zip(copy(x), expected, strict=True):
        np.testing.assert_array_equal(actual, wanted)
