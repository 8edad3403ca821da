import keras
import numpy as np
import pytest
import tensorflow as tf

import composer_tf as ct
from composer_tf.estimators import Exact
from composer_tf.preferences import PreferenceCollection


def _composer(num_modules):
    model = ct.Composer(
        [
            ct.Metalayer([keras.layers.Dense(2) for _ in range(m)])
            for m in num_modules
        ],
        preferences=[ct.GlimpsePreference(ct.Uniform(0.0, 1.0))],
        estimator="exact",
    )
    model.compile()
    return model


def test_takes_every_path_once():
    paths = Exact().paths([2, 3])
    assert paths == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    assert len(Exact().paths([2, 3])) == 6


def test_paths_count_by_their_probability_in_the_logs():
    log_probs = tf.math.log([[0.1, 0.6], [0.9, 0.4]])
    np.testing.assert_allclose(
        Exact().path_weights(log_probs), [[0.1, 0.6], [0.9, 0.4]], rtol=1e-6
    )


def test_is_minus_the_objective():
    # One choice between two modules for each of two examples, with p of
    # (1/4, 3/4) and (1/2, 1/2), so that the batch's mean is (3/8, 5/8).
    logits = tf.math.log([[0.25, 0.75], [0.5, 0.5]])
    policy = ct.Policy(
        logits=(tf.stack([logits, logits]),),
        choices=tf.constant([[[0], [0]], [[1], [1]]]),
        module_costs=(tf.constant([0.2, 1.0]),),
    )
    uniform = ct.Uniform(0.0, 2.0)
    preferences = [
        ct.GlimpsePreference(uniform),
        ct.BatchEntropyPreference(0.5),
    ]
    surrogate = Exact()(
        tf.constant([[4.0, 1.0], [2.0, 3.0]]),
        policy=policy,
        preferences=PreferenceCollection(preferences),
        gamma=tf.constant([[1.0], [2.0]]),
        context=tf.zeros([2, 1]),
    )
    # E[loss] is 2.5 and 2; E[beta] is 0.8 and 0.6, times gamma 0.8 and 1.2;
    # the batch entropy costs 0.5 (9 + 25) / 64.
    batch = 0.5 * 34 / 64
    np.testing.assert_allclose(
        surrogate, [2.5 + 0.8 + batch, 2.0 + 1.2 + batch], rtol=1e-6
    )


def test_a_reward_has_the_gradient_of_its_expectation():
    """And each path's loss its probability, as a constant."""
    theta = tf.Variable([[0.3, -0.2], [0.1, 0.4]])
    w = tf.Variable(2.0)
    rewards = np.array([[1.0, 0.0], [0.0, 3.0]], np.float32)  # [P, B]
    with tf.GradientTape() as tape:
        policy = ct.Policy(
            logits=(tf.stack([theta, theta]),),
            choices=tf.constant([[[0], [0]], [[1], [1]]]),
            module_costs=(tf.constant([0.2, 1.0]),),
        )
        surrogate = Exact()(
            w * tf.constant([[4.0, 1.0], [2.0, 3.0]]),
            policy=policy,
            preferences=PreferenceCollection(
                [ct.GlimpsePreference(ct.Uniform(0.0, 2.0))]
            ),
            gamma=tf.constant([[1.0], [2.0]]),
            context=tf.zeros([2, 1]),
            sample_weight=tf.constant([1.0, 0.5]),
            rewards=tf.constant(rewards),
        )
    of_theta, of_w = tape.gradient(surrogate, [theta, w])
    p = np.exp(theta) / np.exp(theta).sum(axis=1, keepdims=True)  # [B, 2]
    worth = rewards.T - np.array([[1.0], [2.0]]) * [0.2, 1.0]  # [B, 2]
    expected = p * (worth - (p * worth).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(-of_theta, expected * [[1.0], [0.5]], atol=1e-6)
    losses = np.array([[4.0, 2.0], [1.0, 3.0]])
    np.testing.assert_allclose(
        of_w, ((p * losses).sum(axis=1) * [1.0, 0.5]).sum(), rtol=1e-6
    )


def test_up_to_256_paths_are_taken():
    assert len(Exact().paths([2] * 8)) == 256
    with pytest.raises(ValueError, match=r"At most 256 .* make 257"):
        Exact().paths([257])


def test_too_many_paths_are_refused_in_training_only():
    model = _composer([2] * 9)
    x = np.ones([4, 2], "float32")
    assert model(x).shape == (4, 2)
    with pytest.raises(ValueError, match="Use 'reinforce' or 'leave_one_out'"):
        model.fit(x, np.zeros([4], int), verbose=0)


def test_one_gamma_for_a_whole_batch():
    model = _composer([2, 3])
    x = {"x": np.ones([4, 2], "float32"), "gamma": np.float32([0.5])}
    logs = model.train_on_batch(x, np.zeros([4], int), return_dict=True)
    assert np.isfinite(logs["loss"])


def test_config_round_trip():
    estimator = Exact(name="estimator")
    config = keras.saving.serialize_keras_object(estimator)
    copy = keras.saving.deserialize_keras_object(config)
    assert isinstance(copy, Exact)
    assert copy.get_config() == estimator.get_config()
