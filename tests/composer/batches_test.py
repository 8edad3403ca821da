"""What came of a batch, against sums and choices by hand."""

import numpy as np
import pytest
import tensorflow as tf

from composer_tf.composer.batches import Rows, example_weights, whole_batch
from composer_tf.policy import Composition, Policy

# Two paths of three examples, one after the other.
OUTPUTS = tf.constant([[0.0], [1.0], [2.0], [10.0], [11.0], [12.0]])
TARGETS = tf.constant([[1.0], [1.0], [1.0]])
LOSSES = [[1.0, 0.0, 1.0], [81.0, 100.0, 121.0]]


def composition():
    policy = Policy(
        logits=(tf.zeros([6, 2]),),
        choices=tf.constant([[0], [0], [0], [1], [1], [1]]),
        module_costs=(tf.constant([0.25, 0.75]),),
    )
    return Composition(OUTPUTS, policy, tf.zeros([3, 1]), tf.zeros([3, 4]))


def square(targets, outputs):
    return tf.reduce_sum((outputs - targets) ** 2, axis=-1)


def rows(reward=None):
    return Rows.of(composition(), TARGETS, 2, square, reward)


def test_rows_are_told_apart_by_path_with_their_losses():
    both = rows()
    np.testing.assert_array_equal(both.outputs[1, :, 0], [10.0, 11.0, 12.0])
    np.testing.assert_array_equal(both.losses, LOSSES)
    np.testing.assert_array_equal(both.rewards, -np.array(LOSSES))
    np.testing.assert_array_equal(
        both.policy.path_cost, [[0.25] * 3, [0.75] * 3]
    )


def test_a_reward_stands_in_place_of_minus_the_loss():
    rewarded = rows(lambda targets, outputs: targets[:, 0] + outputs[:, 0])
    np.testing.assert_array_equal(
        rewarded.rewards, [[1.0, 2.0, 3.0], [11.0, 12.0, 13.0]]
    )
    np.testing.assert_array_equal(rewarded.losses, LOSSES)


def test_some_paths_are_taken_with_all_that_is_theirs():
    second = rows().take(slice(1, None))
    np.testing.assert_array_equal(second.outputs[0, :, 0], [10.0, 11.0, 12.0])
    np.testing.assert_array_equal(second.losses, LOSSES[1:])
    np.testing.assert_array_equal(second.rewards, -np.array(LOSSES[1:]))
    np.testing.assert_array_equal(second.policy.choices[..., 0], [[1, 1, 1]])


def test_each_example_shows_its_path_of_most_weight():
    weights = tf.constant([[0.9, 0.2, 0.4], [0.1, 0.8, 0.6]])
    np.testing.assert_array_equal(
        rows().most_weighted_outputs(weights)[:, 0], [0.0, 11.0, 12.0]
    )


@pytest.mark.parametrize("shape", [[3], [3, 1]])
def test_sample_weights_come_in_any_shape_or_not_at_all(shape):
    values = tf.zeros([3])
    given = tf.reshape(tf.constant([1, 2, 3]), shape)
    weights = example_weights(given, values)
    assert weights.dtype == tf.float32
    np.testing.assert_array_equal(weights, [1.0, 2.0, 3.0])
    np.testing.assert_array_equal(example_weights(None, values), [1.0] * 3)


def test_on_one_replica_the_batch_is_its_rows():
    path_weights = tf.constant([[0.75] * 3, [0.25] * 3])
    batch = whole_batch(rows(), composition(), None, path_weights)
    np.testing.assert_array_equal(batch.losses, LOSSES)
    np.testing.assert_array_equal(batch.weights, [1.0, 1.0, 1.0])
    np.testing.assert_allclose(
        batch.over_paths(batch.losses), [21.0, 25.0, 31.0]
    )
