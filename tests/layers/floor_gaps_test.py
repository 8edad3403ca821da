"""A floor under logits that lets them up again."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from composer_tf.layers.floor_gaps import floor_gaps


def test_gaps_are_floored_and_the_best_stays_the_best():
    logits = tf.constant([[1.0, 0.5, -9.0], [-3.0, 40.0, 39.0]])
    floored = floor_gaps(logits, 4.0)
    np.testing.assert_allclose(
        floored, [[0.0, -0.5, -4.0], [-4.0, 0.0, -1.0]], atol=1e-6
    )


def test_no_floor_changes_neither_probabilities_nor_gradient():
    logits = tf.random.stateless_normal([6, 3], [1, 2])
    targets = tf.nn.softmax(tf.random.stateless_normal([6, 3], [3, 4]))

    def loss(logits):
        return -tf.reduce_sum(targets * tf.nn.log_softmax(logits))

    (plain, expected), (bounded, actual) = (
        tfp.math.value_and_gradient(function, logits)
        for function in (loss, lambda x: loss(floor_gaps(x, 50.0)))
    )
    np.testing.assert_allclose(bounded, plain, rtol=1e-6)
    np.testing.assert_allclose(actual, expected, atol=1e-6)


@pytest.mark.parametrize("wanted", [0, 1, 2])
def test_a_floored_logit_may_come_up_and_go_no_further_down(wanted):
    """Of three logits, the first is the best and the last at the floor."""
    logits = tf.constant([[5.0, 4.0, -5.0]])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        log_probs = tf.nn.log_softmax(floor_gaps(logits, 4.0))
        loss = -log_probs[0, wanted]
    descent = -tape.gradient(loss, logits).numpy()[0]
    assert descent[wanted] > 0.0
    assert descent[2] > 0.0 if wanted == 2 else descent[2] == 0.0
    # What the floor drops, the best does not get either.
    assert descent.sum() == pytest.approx(0.0, abs=1e-6)
