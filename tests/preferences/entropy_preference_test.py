import numpy as np
import tensorflow as tf

from composer_tf.policy import Policy
from composer_tf.preferences import EntropyPreference


def make_policy(*probabilities):
    probabilities = [np.asarray(p, np.float32) for p in probabilities]
    batch_shape = probabilities[0].shape[:-1]
    return Policy(
        logits=tuple(tf.math.log(p) for p in probabilities),
        choices=tf.zeros([*batch_shape, len(probabilities)], tf.int32),
        module_costs=tuple(tf.ones(p.shape[-1]) for p in probabilities),
    )


FIRST = [[0.5, 0.5], [0.9, 0.1]]
SECOND = [[0.2, 0.3, 0.5], [1 / 3, 1 / 3, 1 / 3]]


def test_is_minus_each_examples_gamma_times_its_squared_norms():
    cost = EntropyPreference(1.0).cost(
        make_policy(FIRST, SECOND), tf.constant([1.0, -2.0])
    )
    np.testing.assert_allclose(
        cost, [-(0.5 + 0.38), 2.0 * (0.82 + 1 / 3)], rtol=1e-5
    )


def test_each_of_k_paths_has_its_own_cost():
    cost = EntropyPreference(1.0).cost(
        make_policy([FIRST, FIRST[::-1]]), tf.constant([1.0, 10.0])
    )
    np.testing.assert_allclose(cost, [[-0.5, -8.2], [-0.82, -5.0]], rtol=1e-5)


def test_a_flat_distribution_costs_least():
    costs = EntropyPreference(1.0).cost(
        make_policy([[0.25] * 4, [0.3, 0.3, 0.2, 0.2], [0.97] + [0.01] * 3]),
        tf.ones([3]),
    )
    assert costs[0] > costs[1] > costs[2]
