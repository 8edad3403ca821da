import numpy as np
import tensorflow as tf

from composer_tf.policy import Policy
from composer_tf.preferences import GlimpsePreference, Uniform

COSTS = (tf.constant([0.1, 0.5]), tf.constant([0.05, 0.2, 0.3]))


def make_policy(choices):
    shape = np.shape(choices)[:-1]
    return Policy(
        logits=tuple(tf.zeros([*shape, len(costs)]) for costs in COSTS),
        choices=tf.constant(choices, tf.int32),
        module_costs=COSTS,
    )


def test_is_minus_each_examples_gamma_times_its_path_cost():
    """Equation (6), by hand."""
    cost = GlimpsePreference(Uniform(-2.0, 6.0)).cost(
        make_policy([[0, 0], [1, 2], [0, 1]]), tf.constant([1.0, 2.0, -3.0])
    )
    np.testing.assert_allclose(
        cost,
        [-1.0 * (0.1 + 0.05), -2.0 * (0.5 + 0.3), 3.0 * (0.1 + 0.2)],
        rtol=1e-6,
    )


def test_each_of_k_paths_has_its_own_cost():
    cost = GlimpsePreference(1.0).cost(
        make_policy([[[0, 0], [1, 2]], [[1, 0], [0, 2]]]),
        tf.constant([1.0, 10.0]),
    )
    np.testing.assert_allclose(cost, [[-0.15, -8.0], [-0.55, -4.0]], rtol=1e-6)


def test_expected_cost_weighs_every_path_by_its_probability():
    """One metalayer: gamma * sum_j p_j beta_j."""
    beta = np.array([0.1, 0.4, 1.0], np.float32)
    probs = np.array([[0.2, 0.3, 0.5], [0.7, 0.2, 0.1]], np.float32)  # [B, m]
    every_path = Policy(
        logits=(tf.math.log(tf.stack([probs] * 3)),),  # [P, B, m]
        choices=tf.constant([[[j], [j]] for j in range(3)]),
        module_costs=(tf.constant(beta),),
    )
    expected = GlimpsePreference(1.0).expected_cost(
        every_path, tf.constant([2.0, -1.0])
    )
    np.testing.assert_allclose(
        expected, [-2.0, 1.0] * (probs @ beta), rtol=1e-5
    )


def test_joins_each_examples_own_reward():
    policy = make_policy([[0, 0]])
    assert GlimpsePreference(1.0).credit(policy, tf.ones([1])) is None
