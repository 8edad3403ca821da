import itertools

import numpy as np
import pytest
import tensorflow as tf

from composer_tf.policy import Policy
from composer_tf.preferences import (
    BatchEntropyPreference,
    EntropyPreference,
    Uniform,
)


def make_policy(*probabilities, choices=None):
    probabilities = [np.asarray(p, np.float32) for p in probabilities]
    batch_shape = probabilities[0].shape[:-1]
    if choices is None:
        choices = np.zeros([*batch_shape, len(probabilities)])
    return Policy(
        logits=tuple(tf.math.log(p) for p in probabilities),
        choices=tf.constant(choices, tf.int32),
        module_costs=tuple(tf.ones(p.shape[-1]) for p in probabilities),
    )


def random_probabilities(*shape, seed=0):
    logits = np.random.default_rng(seed).normal(size=shape)
    return np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)


PREFERENCE = BatchEntropyPreference(Uniform(0.0, 1.0))


def test_is_the_squared_norm_of_the_batchs_mean():
    """Equation (7), by hand: the means are (0.5, 0.5) and (0.4, 0.6)."""
    policy = make_policy([[1.0, 0.0], [0.0, 1.0]], [[0.2, 0.8], [0.6, 0.4]])
    cost = PREFERENCE.cost(policy, tf.constant([0.3, 0.3]))
    np.testing.assert_allclose(cost, [-0.3 * (0.5 + 0.52)] * 2, rtol=1e-6)


def test_examples_weigh_the_batchs_norm_by_their_own_gamma():
    policy = make_policy([[1.0, 0.0], [0.0, 1.0]], [[0.2, 0.8], [0.6, 0.4]])
    cost = PREFERENCE.cost(policy, tf.constant([0.0, 2.0]))
    np.testing.assert_allclose(cost, [0.0, -2.04], rtol=1e-6)


def test_each_of_k_paths_has_its_own_mean():
    sure_and_mixed = [[1.0, 0.0], [0.0, 1.0]]
    sure_and_equal = [[1.0, 0.0], [1.0, 0.0]]
    policy = make_policy([sure_and_mixed, sure_and_equal])
    cost = PREFERENCE.cost(policy, tf.constant([1.0, 2.0]))
    np.testing.assert_allclose(cost, [[-0.5, -1.0], [-1.0, -2.0]], rtol=1e-6)


def test_a_batch_of_one_is_the_unbatched_preference():
    policy = make_policy([[0.2, 0.8]], [[0.5, 0.3, 0.2]])
    gamma = tf.constant([0.7])
    np.testing.assert_allclose(
        PREFERENCE.cost(policy, gamma),
        EntropyPreference(1.0).cost(policy, gamma),
        rtol=1e-6,
    )


@pytest.mark.parametrize("num_paths", [1, 3])
def test_credit_is_the_batchs_cost_with_less_without_the_example(num_paths):
    batch = 4
    gamma = np.array([0.1, 0.9, 0.4, 0.2], np.float32)
    first = random_probabilities(num_paths, batch, 2)
    second = random_probabilities(num_paths, batch, 3, seed=1)

    def mean_cost(members):
        """Mean over the batch of (7), with only some members' p in it."""
        norms = sum(
            np.sum((probs[:, members].sum(1) / batch) ** 2, axis=-1)
            for probs in (first, second)
        )
        return -gamma.mean() * norms  # [K]

    everyone = list(range(batch))
    expected = [
        batch
        * (mean_cost(everyone) - mean_cost([k for k in everyone if k != j]))
        for j in everyone
    ]
    credit = PREFERENCE.credit(make_policy(first, second), tf.constant(gamma))
    np.testing.assert_allclose(credit, np.transpose(expected), rtol=1e-4)


def test_expected_cost_is_that_of_all_paths_of_all_examples():
    """Two metalayers, the second one's p depending on the first choice."""
    batch, paths = 2, list(itertools.product(range(2), range(2)))
    first = random_probabilities(batch, 2)  # [B, m]
    second = random_probabilities(batch, 2, 2, seed=1)  # [B, c_1, m]
    gamma = np.array([0.5, 2.0], np.float32)

    expected = np.zeros(batch)
    for joint in itertools.product(paths, repeat=batch):
        chance = np.prod(
            [first[j, c] * second[j, c, d] for j, (c, d) in enumerate(joint)]
        )
        p_1 = first.mean(0)
        p_2 = np.mean([second[j, c] for j, (c, _) in enumerate(joint)], axis=0)
        expected -= chance * gamma * (np.sum(p_1**2) + np.sum(p_2**2))

    every_path = make_policy(
        np.stack([first for _ in paths]),
        np.stack([second[:, c] for c, _ in paths]),
        choices=[[path] * batch for path in paths],
    )
    np.testing.assert_allclose(
        PREFERENCE.expected_cost(every_path, tf.constant(gamma)),
        expected,
        rtol=1e-4,
    )


def test_gradient_spreads_a_batch_that_prefers_one_module():
    logits = tf.constant([[2.0, 0.0], [1.0, 0.0]])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        policy = Policy((logits,), tf.zeros([2, 1], tf.int32), (tf.ones(2),))
        cost = tf.reduce_mean(PREFERENCE.cost(policy, tf.ones([2])))
    gradient = tape.gradient(cost, logits).numpy()
    assert np.all(gradient[:, 0] < 0.0)
    np.testing.assert_allclose(gradient.sum(axis=-1), 0.0, atol=1e-6)


def test_gamma_is_one_for_the_whole_batch_by_default():
    gamma = PREFERENCE.sample(5, tf.constant([1, 2]))
    assert len(np.unique(gamma)) == 1
