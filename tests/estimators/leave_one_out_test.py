import keras
import numpy as np
import pytest
import tensorflow as tf

import composer_tf as ct
from composer_tf.estimators import LeaveOneOut
from composer_tf.preferences import PreferenceCollection


def _surrogate(losses, choices, logits):
    """Of one choice per example; all `[K, B, ...]`."""
    policy = ct.Policy(
        logits=(logits,),
        choices=tf.constant(choices)[..., tf.newaxis],
        module_costs=(tf.zeros([2]),),
    )
    batch_size = len(losses[0])
    return LeaveOneOut(num_samples=len(losses))(
        tf.constant(losses),
        policy=policy,
        preferences=PreferenceCollection([]),
        gamma=tf.zeros([batch_size, 0]),
        context=tf.zeros([batch_size, 1]),
    )


def test_takes_so_many_sampled_paths():
    assert LeaveOneOut().paths([2, 3]) == [(-1, -1)] * 4
    assert len(LeaveOneOut(num_samples=7).paths([2, 3])) == 7


def test_paths_count_alike_in_the_logs():
    weights = LeaveOneOut().path_weights(tf.zeros([4, 2]))
    np.testing.assert_array_equal(weights, np.full([4, 2], 0.25))


def test_the_baseline_is_the_mean_of_the_other_paths():
    losses = [[1.0, 0.0], [2.0, 0.0], [6.0, 3.0]]
    surrogate = _surrogate(
        losses, [[0, 1], [1, 1], [0, 0]], tf.zeros([3, 2, 2])
    )
    # Example 0 has rewards -1, -2, -6 and so advantages 3, 1.5, -4.5; example
    # 1 has 0, 0, -3 and 1.5, 1.5, -3. Either sum to 0 and p(c) is the same for
    # all paths, so the mean loss is left.
    np.testing.assert_allclose(surrogate, [3.0, 1.0], rtol=1e-6)


def test_the_score_is_weighed_by_the_advantage():
    logits = tf.Variable(tf.zeros([2, 1, 2]))
    with tf.GradientTape() as tape:
        loss = _surrogate([[1.0], [4.0]], [[0], [1]], logits)
    # Advantages 3 and -3, scores (1/2, -1/2) and (-1/2, 1/2), mean of two.
    np.testing.assert_allclose(
        tape.gradient(loss, logits), [[[-0.75, 0.75]], [[-0.75, 0.75]]]
    )


def test_paths_of_equal_reward_do_not_move_the_policy():
    logits = tf.Variable([[[0.3, -0.2]], [[0.3, -0.2]]])
    with tf.GradientTape() as tape:
        loss = _surrogate([[2.0], [2.0]], [[0], [1]], logits)
    np.testing.assert_array_equal(
        tape.gradient(loss, logits), np.zeros((2, 1, 2))
    )


@pytest.mark.parametrize("num_samples", [1, 0, -2])
def test_fewer_than_two_samples_are_refused(num_samples):
    with pytest.raises(ValueError, match="`num_samples` must be at least 2"):
        LeaveOneOut(num_samples=num_samples)


def test_config_round_trip():
    estimator = LeaveOneOut(num_samples=3, name="estimator")
    config = keras.saving.serialize_keras_object(estimator)
    copy = keras.saving.deserialize_keras_object(config)
    assert isinstance(copy, LeaveOneOut)
    assert copy.get_config() == estimator.get_config()
    assert copy.num_samples == 3
