import numpy as np
import pytest
import tensorflow as tf

from composer_tf.estimators import functional


def test_reinforce_loss_is_loss_less_cost_less_scored_advantage():
    loss = functional.reinforce_loss(
        losses=tf.constant([1.0, 2.0]),
        costs=tf.constant([-0.5, 0.25]),
        advantages=tf.constant([2.0, -4.0]),
        log_probs=tf.constant([-0.5, -1.0]),
    )
    # 1 + 0.5 + 2 * 0.5 and 2 - 0.25 - 4 * 1.
    np.testing.assert_allclose(loss, [2.5, -2.25])


def test_reinforce_loss_keeps_the_axis_of_paths():
    values = tf.ones([3, 2])
    loss = functional.reinforce_loss(values, values, values, values)
    assert loss.shape == [3, 2]


def test_reinforce_gradient_is_equation_11():
    # A softmax policy over two modules of p = (1/4, 3/4), choice c = 1,
    # loss w^2 at w = 1, and C = -2 ||p||^2, which is differentiable in p.
    #
    # ||p||^2 = 1/16 + 9/16 = 5/8, so C = -5/4 and log p(y|x,c) + C = -9/4.
    # d log p(c) / d theta_k = [k = c] - p_k = (-1/4, 1/4).
    # d ||p||^2 / d theta_k = 2 p_k (p_k - ||p||^2) = (-3/16, 3/16), so the
    # direct term dC / d theta is (3/8, -3/8).
    # (11) for theta: direct + (-9/4) (-1/4, 1/4) = (15/16, -15/16).
    # (11) for w: -2 w = -2.
    theta = tf.Variable([0.0, np.log(3.0)])
    w = tf.Variable(1.0)
    with tf.GradientTape() as tape:
        loss = w**2
        cost = -2.0 * tf.reduce_sum(tf.nn.softmax(theta) ** 2)
        surrogate = functional.reinforce_loss(
            losses=loss,
            costs=cost,
            advantages=cost - loss,
            log_probs=tf.nn.log_softmax(theta)[1],
        )
    theta_gradient, w_gradient = tape.gradient(surrogate, [theta, w])
    np.testing.assert_allclose(theta_gradient, [-15 / 16, 15 / 16], rtol=1e-5)
    np.testing.assert_allclose(w_gradient, 2.0)


def test_reinforce_advantage_carries_no_gradient():
    advantage = tf.Variable(3.0)
    with tf.GradientTape() as tape:
        loss = functional.reinforce_loss(0.0, 0.0, advantage, -0.5)
    assert tape.gradient(loss, advantage) is None


def test_exact_loss_is_minus_the_objective():
    # p = (1/4, 3/4), losses (1, 3): E[loss] = 2.5. E[C] = 0.5.
    # d E[loss] / d theta_k = p_k (loss_k - E[loss]) = (-3/8, 3/8).
    theta = tf.Variable([[0.0], [np.log(3.0)]])
    with tf.GradientTape() as tape:
        loss = functional.exact_loss(
            losses=tf.constant([[1.0], [3.0]]),
            expected_costs=tf.constant([0.5]),
            log_probs=tf.nn.log_softmax(theta, axis=0),
        )
    np.testing.assert_allclose(loss, [2.0], rtol=1e-6)
    gradient = tape.gradient(loss, theta)
    np.testing.assert_allclose(gradient, [[-3 / 8], [3 / 8]], rtol=1e-5)


@pytest.mark.parametrize(
    ("axis", "expected"),
    [
        (0, [[4.0, 8.0, 3.0], [1.0, 2.0, 6.0]]),
        (-1, [[4.0, 3.5, 1.5], [5.5, 3.5, 6.0]]),
    ],
)
def test_mean_of_others(axis, expected):
    rewards = tf.constant([[1.0, 2.0, 6.0], [4.0, 8.0, 3.0]])
    np.testing.assert_allclose(
        functional.mean_of_others(rewards, axis), expected
    )


def test_mean_of_others_of_one_is_zero():
    alone = functional.mean_of_others(tf.constant([[5.0]]), axis=-1)
    np.testing.assert_array_equal(alone, [[0.0]])
