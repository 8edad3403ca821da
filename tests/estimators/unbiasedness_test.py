"""The mean of each estimator's gradient is the gradient of equation (10).

The truth comes from enumerating the joint paths of a whole batch, so that a
cost over the batch is averaged over what all of its examples choose.
"""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from composer_tf import (
    BatchEntropyPreference,
    EntropyPreference,
    GlimpsePreference,
    Policy,
    Uniform,
)
from composer_tf.estimators import Exact, LeaveOneOut, Reinforce, functional
from composer_tf.preferences import PreferenceCollection

NUM_EXAMPLES = 3
NUM_MODULES = (2, 3)
PATHS = list(itertools.product(*map(range, NUM_MODULES)))
BETA = (np.float32([0.1, 0.4]), np.float32([0.0, 0.2, 0.6]))
GAMMA = np.float32([[1.0, 0.5, 4.0], [-1.0, 0.8, 6.0], [2.0, 0.2, 2.0]])
WEIGHTS = np.float32([0.5, 3.0, 1.0])
CONTEXT = np.float32([[1.0, 0.0], [0.0, 1.0], [1.0, -1.0]])
MAX_Z = 4.5

PREFERENCES = PreferenceCollection(
    [
        GlimpsePreference(Uniform(-2.0, 4.0)),
        EntropyPreference(Uniform(0.0, 4.0)),
        BatchEntropyPreference(Uniform(0.0, 8.0), per="example"),
    ]
)


class Table:
    """Logits per example, the second ones by the first choice; no network."""

    def __init__(self):
        rng = np.random.default_rng(0)

        def table(*shape):
            shape = [NUM_EXAMPLES, *shape]
            return rng.normal(scale=1.5, size=shape).astype("float32")

        self.first = tf.Variable(table(2))  # [B, m_1]
        self.second = tf.Variable(table(2, 3))  # [B, m_1, m_2]
        self.weight = tf.Variable(0.5)
        self.targets = tf.constant(table(2, 3))  # [B, m_1, m_2]
        self.variables = [self.first, self.second, self.weight]

    def run(self, choices):
        """Losses `[K, B]` and the policy, for choices int32 `[K, B, 2]`."""
        first = tf.one_hot(choices[..., 0], 2)  # [K, B, m_1]
        second = tf.one_hot(choices[..., 1], 3)  # [K, B, m_2]

        def at_first(table):
            return tf.reduce_sum(first[..., tf.newaxis] * table, axis=2)

        logits = (self.first + tf.zeros_like(first), at_first(self.second))
        targets = tf.reduce_sum(second * at_first(self.targets), axis=2)
        losses = (self.weight - targets) ** 2
        return losses, Policy(logits, choices, tuple(map(tf.constant, BETA)))

    def sample(self, num_samples):
        """Independent choices, int32 `[N, B, 2]`."""
        second = tf.nn.log_softmax(self.second)  # [B, m_1, m_2]
        log_probs = tf.nn.log_softmax(self.first)[..., tf.newaxis] + second
        paths = tf.random.stateless_categorical(
            tf.reshape(log_probs, [NUM_EXAMPLES, -1]), num_samples, seed=[1, 2]
        )
        return tf.gather(tf.constant(PATHS), tf.transpose(paths))


class NoDirectTerm(Reinforce):
    """Wrong: C adds to the reward but is not differentiated itself."""

    def call(self, losses, policy, preferences, gamma, **kwargs):
        surrogate = super().call(losses, policy, preferences, gamma, **kwargs)
        return surrogate + WEIGHTS * preferences.cost(policy, gamma)[0]


@pytest.fixture
def table():
    return Table()


@pytest.fixture
def truth(table):
    return _true_gradient(table)


def test_exact_is_the_true_gradient(table, truth):
    paths = np.repeat(np.int32(PATHS)[:, np.newaxis], NUM_EXAMPLES, axis=1)
    gradient = _estimate(Exact(), table, tf.constant(paths))
    np.testing.assert_allclose(gradient, truth, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "estimator",
    [
        Reinforce(baseline="none"),
        Reinforce(baseline="batch_mean"),
        Reinforce(baseline="learned"),
        LeaveOneOut(num_samples=3),
    ],
)
def test_unbiased(estimator, table, truth):
    z_scores = _z_scores(_estimates(estimator, table), truth)
    assert np.all(np.abs(z_scores) < MAX_Z)


def test_moving_average_is_unbiased(table, truth):
    estimator = Reinforce(baseline="moving_average", decay=0.5)
    z_scores = _z_scores(_estimates_in_turn(estimator, table), truth)
    assert np.all(np.abs(z_scores) < MAX_Z)


def test_a_missing_direct_term_is_detected(table, truth):
    _check_biased(NoDirectTerm(baseline="none"), table, truth)


@pytest.mark.parametrize(
    "estimator", [Reinforce(baseline="batch_mean"), LeaveOneOut(num_samples=3)]
)
def test_an_own_reward_in_the_baseline_is_detected(
    estimator, table, truth, monkeypatch
):
    def mean_of_all(rewards, axis):
        return tf.reduce_mean(rewards, axis=axis, keepdims=True)

    monkeypatch.setattr(functional, "mean_of_others", mean_of_all)
    _check_biased(estimator, table, truth)


def test_a_missing_credit_for_the_batch_is_detected(table, truth, monkeypatch):
    monkeypatch.setattr(BatchEntropyPreference, "credit", lambda *_, **__: None)
    _check_biased(Reinforce(baseline="none"), table, truth)


def _objective(table):
    """E[mean_j w_j (-loss_j + C_j)] over all 6^3 joint paths, by (10)."""
    joint = itertools.product(PATHS, repeat=NUM_EXAMPLES)
    choices = tf.constant(list(joint), tf.int32)  # [J, B, 2]
    losses, policy = table.run(choices)
    rewards = -losses  # [J, B]
    log_probs = tf.zeros_like(losses)
    for i, logits in enumerate(policy.logits):
        chosen = choices[..., i]
        probs = tf.nn.softmax(logits)  # [J, B, m_i]
        log_probs += tf.math.log(tf.gather(probs, chosen, batch_dims=2))
        batch = tf.reduce_mean(probs, axis=1, keepdims=True)  # [J, 1, m_i]
        rewards -= GAMMA[:, 0] * tf.gather(BETA[i], chosen)
        rewards -= GAMMA[:, 1] * tf.reduce_sum(probs**2, axis=-1)
        rewards -= GAMMA[:, 2] * tf.reduce_sum(batch**2, axis=-1)
    joint_probs = tf.exp(tf.reduce_sum(log_probs, axis=1))  # [J]
    return tf.reduce_sum(
        joint_probs * tf.reduce_mean(WEIGHTS * rewards, axis=1)
    )


def _true_gradient(table):
    with tf.GradientTape() as tape:
        objective = _objective(table)
    return _flat(tape.gradient(objective, table.variables)).numpy()


def _estimate(estimator, table, choices):
    """The gradient `[d]` that an estimator makes of one batch."""
    with tf.GradientTape() as tape:
        losses, policy = table.run(choices)
        surrogate = estimator(
            losses,
            policy=policy,
            preferences=PREFERENCES,
            gamma=tf.constant(GAMMA),
            context=tf.constant(CONTEXT),
            sample_weight=tf.constant(WEIGHTS),
        )
        objective = -tf.reduce_mean(surrogate)
    return _flat(tape.gradient(objective, table.variables))


def _estimates(estimator, table, num_samples=50_000):
    """Gradients `[N, d]` of independent samples of the batch's paths."""
    num_paths = len(estimator.paths(NUM_MODULES))
    estimator.build(CONTEXT.shape)
    choices = table.sample(num_samples * num_paths)
    choices = tf.reshape(choices, [-1, num_paths, NUM_EXAMPLES, 2])

    @tf.function(autograph=False)
    def estimates():
        return tf.vectorized_map(
            lambda c: _estimate(estimator, table, c), choices
        )

    return estimates().numpy()


def _estimates_in_turn(estimator, table, num_samples=10_000):
    """The same for an estimator with a state, one sample after the other."""
    estimator.build(CONTEXT.shape)
    choices = table.sample(num_samples)[:, tf.newaxis]  # [N, 1, B, 2]

    @tf.function(autograph=False)
    def estimates():
        return tf.map_fn(
            lambda c: _estimate(estimator, table, c),
            choices,
            fn_output_signature=tf.float32,
            parallel_iterations=1,
        )

    return estimates().numpy()


def _z_scores(estimates, truth):
    """How many standard errors the mean of `[N, d]` is from the truth."""
    error = estimates.std(axis=0, ddof=1) / np.sqrt(len(estimates))
    return (estimates.mean(axis=0) - truth) / error


def _check_biased(estimator, table, truth):
    z_scores = _z_scores(_estimates(estimator, table), truth)
    assert np.max(np.abs(z_scores)) > MAX_Z


def _flat(tensors):
    return tf.concat([tf.reshape(tensor, [-1]) for tensor in tensors], axis=0)
