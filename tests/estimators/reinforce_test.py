import keras
import numpy as np
import pytest
import tensorflow as tf

import composer_tf as ct
from composer_tf.estimators import Reinforce
from composer_tf.preferences import PreferenceCollection

BASELINES = ["none", "batch_mean", "moving_average", "learned"]
LOSSES = np.float32([[1.0, 2.0, 6.0]])
CONTEXT = np.float32([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
LOG_HALF = np.log(0.5)


def _surrogate(estimator, losses=LOSSES, logits=None):
    """Of one fair choice between two modules per example, without costs."""
    if logits is None:
        logits = tf.zeros([1, 3, 2])
    policy = ct.Policy(
        logits=(logits,),
        choices=tf.constant([[[0], [1], [0]]]),
        module_costs=(tf.zeros([2]),),
    )
    return estimator(
        tf.convert_to_tensor(losses),
        policy=policy,
        preferences=PreferenceCollection([]),
        gamma=tf.zeros([3, 0]),
        context=tf.constant(CONTEXT),
    )


def _built(**kwargs):
    estimator = Reinforce(**kwargs)
    estimator.build(CONTEXT.shape)
    return estimator


@pytest.mark.parametrize("baseline", BASELINES)
def test_takes_one_sampled_path(baseline):
    estimator = Reinforce(baseline=baseline)
    assert estimator.paths([2, 3]) == [(-1, -1)]


def test_no_baseline_weighs_the_score_by_the_reward():
    surrogate = _surrogate(_built(baseline="none"))
    np.testing.assert_allclose(
        surrogate, [1 + LOG_HALF, 2 + 2 * LOG_HALF, 6 + 6 * LOG_HALF], 1e-6
    )


def test_batch_mean_is_of_the_other_examples():
    surrogate = _surrogate(_built(baseline="batch_mean"))
    # Rewards -1, -2, -6; the others' means are -4, -3.5, -1.5.
    advantages = np.array([3.0, 1.5, -4.5])
    np.testing.assert_allclose(
        surrogate, LOSSES[0] - advantages * LOG_HALF, rtol=1e-6
    )


def test_moving_average_is_of_past_batches_only():
    estimator = _built(baseline="moving_average", decay=0.9)
    first = _surrogate(estimator)
    np.testing.assert_allclose(
        first, LOSSES[0] + LOSSES[0] * LOG_HALF, rtol=1e-6
    )
    np.testing.assert_allclose(estimator.average, 0.1 * -3.0, rtol=1e-6)
    second = _surrogate(estimator)
    np.testing.assert_allclose(
        second, LOSSES[0] - (-LOSSES[0] + 0.3) * LOG_HALF, rtol=1e-6
    )
    np.testing.assert_allclose(estimator.average, 0.9 * -0.3 - 0.3, rtol=1e-6)


def test_moving_average_moves_in_a_graph():
    estimator = _built(baseline="moving_average", decay=0.5)
    step = tf.function(lambda: _surrogate(estimator))
    step()
    step()
    np.testing.assert_allclose(estimator.average, -1.5 - 0.75, rtol=1e-6)


@pytest.mark.parametrize(
    ("baseline", "num_trained", "num_weights"),
    [
        ("none", 0, 0),
        ("batch_mean", 0, 0),
        ("moving_average", 0, 1),
        ("learned", 4, 4),
    ],
)
def test_weights(baseline, num_trained, num_weights):
    estimator = _built(baseline=baseline)
    assert len(estimator.trainable_weights) == num_trained
    assert len(estimator.weights) == num_weights


def test_learned_baseline_is_trained_by_its_own_loss_only():
    estimator = _built(baseline="learned", units=4)
    with tf.GradientTape(persistent=True) as tape:
        surrogate = tf.reduce_mean(_surrogate(estimator))
        values = estimator.value(CONTEXT)[:, 0]
        own_loss = tf.reduce_mean((values + LOSSES[0]) ** 2)
    weights = estimator.trainable_weights
    for gradient, own in zip(
        tape.gradient(surrogate, weights),
        tape.gradient(own_loss, weights),
        strict=True,
    ):
        np.testing.assert_allclose(gradient, own, rtol=1e-5, atol=1e-6)


def test_learned_baseline_trains_nothing_but_itself():
    estimator = _built(baseline="learned", units=4)
    logits = tf.Variable(tf.zeros([1, 3, 2]))
    losses = tf.Variable(LOSSES)
    with tf.GradientTape() as tape:
        surrogate = tf.reduce_sum(_surrogate(estimator, losses, logits))
    logits_gradient, losses_gradient = tape.gradient(
        surrogate, [logits, losses]
    )
    advantages = -LOSSES[0] - estimator.value(CONTEXT)[:, 0]
    # d log p(c) / d logits is +-1/2 for a fair choice between two.
    np.testing.assert_allclose(
        logits_gradient[0, :, 0],
        -advantages * np.array([0.5, -0.5, 0.5]),
        rtol=1e-5,
    )
    np.testing.assert_allclose(losses_gradient, np.ones([1, 3]))


def test_learned_baseline_comes_to_predict_the_reward():
    estimator = _built(baseline="learned")
    weights = estimator.trainable_weights
    optimizer = keras.optimizers.Adam(0.05)
    optimizer.build(weights)

    @tf.function(autograph=False)
    def step():
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(_surrogate(estimator))
        optimizer.apply(tape.gradient(loss, weights), weights)

    for _ in range(200):
        step()
    np.testing.assert_allclose(
        estimator.value(CONTEXT)[:, 0], -LOSSES[0], atol=0.1
    )


@pytest.mark.parametrize("baseline", ["moving_average", "learned"])
def test_state_is_trained_and_saved_with_the_model(baseline, tmp_path):
    dense = keras.layers.Dense
    model = ct.Composer(
        [ct.Metalayer([dense(3), dense(3)])], estimator=Reinforce(baseline)
    )
    model.compile(run_eagerly=True)
    x = np.random.default_rng(0).normal(size=[8, 3]).astype("float32")
    y = np.zeros([8], int)
    model(x)
    before = model.estimator.get_weights()
    model.fit(x, y, verbose=0)
    after = model.estimator.get_weights()
    assert all(np.any(a != b) for a, b in zip(after, before, strict=True))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for a, b in zip(loaded.estimator.get_weights(), after, strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_unknown_baseline_is_refused():
    with pytest.raises(ValueError, match=r"`baseline` must be one of .*'mean'"):
        Reinforce(baseline="mean")


@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
def test_a_decay_out_of_range_is_refused(decay):
    with pytest.raises(ValueError, match="`decay` must be in"):
        Reinforce(baseline="moving_average", decay=decay)


def test_config_round_trip():
    estimator = Reinforce("learned", decay=0.5, units=7, name="estimator")
    config = keras.saving.serialize_keras_object(estimator)
    copy = keras.saving.deserialize_keras_object(config)
    assert isinstance(copy, Reinforce)
    assert copy.get_config() == estimator.get_config()
    assert (copy.baseline, copy.decay, copy.units) == ("learned", 0.5, 7)
