"""Made-up inputs."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from composer_tf.exporters.samples import random_inputs
from tests.exporters.small_composer import composer


def drawn(model, rows):
    return random_inputs(model, rows, np.random.default_rng(0))["image"]


def test_rows_have_the_scales_in_turn():
    rows = drawn(composer().routed_model(), 7)
    assert rows.shape == (7, 8, 8, 1)
    assert rows.dtype == np.float32
    wanted = [1.0, 16.0, 255.0, 1.0, 16.0, 255.0, 1.0]
    np.testing.assert_allclose(rows.std(axis=(1, 2, 3)), wanted, rtol=0.3)


def test_integers_are_bytes_or_bits():
    for dtype, highest in (("uint8", 255), ("int32", 1), ("bool", 1)):
        spec = {"image": tf.TensorSpec([None, 8, 8, 1], dtype, "image")}
        model = dataclasses.replace(composer().routed_model(), inputs=spec)
        rows = drawn(model, 20)
        assert rows.dtype == dtype
        assert (rows.min(), rows.max()) == (0, highest)


def test_text_is_not_made_up():
    spec = {"image": tf.TensorSpec([None, 4], tf.string, "image")}
    model = dataclasses.replace(composer().routed_model(), inputs=spec)
    with pytest.raises(ValueError, match=r"'image' is text.*give examples"):
        drawn(model, 2)


def test_a_model_of_bytes_does_not_send_all_rows_the_same_way():
    model = composer()
    model.stem.scale = 1 / 255
    rows = drawn(model.routed_model(), 60)

    def paths(rows):
        choices = model(rows, return_composition=True).policy.choices
        return len(np.unique(choices, axis=0))

    assert paths(rows[::3]) == 1  # Of deviation 1: all but constant.
    assert paths(rows) > 1
