"""Rewards other than minus the loss, and what is trained on which."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

import composer_tf as ct
from composer_tf.objectives import rewards

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
X = np.random.default_rng(0).normal(size=[32, 4]).astype(np.float32)
Y = np.random.default_rng(1).integers(0, 3, 32)


def make(estimator="exact", **options):
    keras.backend.clear_session()  # Paths of variables hold counters.
    keras.utils.set_random_seed(0)
    dense = keras.layers.Dense
    return ct.Composer(
        [ct.Metalayer([dense(3), dense(3)])],
        preferences=[ct.GlimpsePreference(ct.Uniform(-1.0, 1.0))],
        estimator=estimator,
        seed=0,
        **options,
    )


def first_right(y_true, y_pred):
    """1 for label 0, whatever is predicted."""
    return tf.cast(tf.reshape(y_true, [-1]) == 0, tf.float32)


def test_names_are_what_they_say():
    logits = np.random.default_rng(2).normal(size=[32, 3])
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    probability = rewards.get("probability", LOSS)
    np.testing.assert_allclose(
        probability(Y[:, np.newaxis], logits), probs[range(32), Y], rtol=1e-5
    )
    accuracy = rewards.get("accuracy", LOSS)
    np.testing.assert_array_equal(accuracy(Y, logits), probs.argmax(1) == Y)
    assert rewards.get(None, LOSS) is None


@pytest.mark.parametrize("name", ["accuracy", "probability"])
@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ("mse", "needs a softmax"),
        (keras.losses.CategoricalCrossentropy(from_logits=True), "integer"),
        (
            keras.losses.SparseCategoricalCrossentropy(
                from_logits=True, ignore_class=-1
            ),
            "all count",
        ),
    ],
)
def test_names_need_integer_labels_and_logits(name, loss, message):
    with pytest.raises(ValueError, match=rf"`reward='{name}'` .*{message}"):
        make().compile(loss=loss, reward=name)
    with pytest.raises(ValueError, match=r"outputs \[batch, classes\]"):
        rewards.get(name, LOSS)(Y[:4], tf.zeros([4, 2, 3]))


def test_the_papers_reward_has_a_name():
    model = make()
    model.compile(reward="log_probability")
    logs = model.train_on_batch(
        {"x": X, "gamma": np.zeros(32, np.float32)}, Y, return_dict=True
    )
    assert logs["reward"] == pytest.approx(-logs["loss"], rel=1e-5)


def test_what_is_no_reward_is_refused():
    with pytest.raises(ValueError, match=r"`reward` must be one of .*'gain'"):
        make().compile(reward="gain")
    cross_entropy = keras.losses.sparse_categorical_crossentropy
    for wrong in (
        3,
        keras.losses.MeanSquaredError(),
        keras.losses.MeanSquaredError,
        cross_entropy,
        functools.partial(cross_entropy, from_logits=True),
    ):
        with pytest.raises(
            TypeError, match=r"`reward` must be one of .*larger"
        ):
            make().compile(reward=wrong)
    model = make()
    model.compile(reward=lambda y_true, y_pred: tf.reduce_mean(y_pred))
    with pytest.raises(ValueError, match=r"`reward` .* returns a scalar"):
        model.fit(X, Y, verbose=0)


def test_a_function_gets_the_labels_as_they_are():
    def reward(y_true, y_pred):
        assert y_true.dtype == tf.int64
        assert y_pred.dtype == tf.float32
        return tf.cast(y_true, tf.float32)

    function = rewards.get(reward, LOSS)
    np.testing.assert_array_equal(function(Y, tf.zeros([32, 3])), Y)


def trained_step(estimator, reward, labels=Y):
    """Gradients of one step, by variable path, through plain descent."""
    model = make(estimator)
    model.build((None, 4))
    model.compile(keras.optimizers.SGD(1.0), reward=reward)
    before = {v.path: v.numpy() for v in model.trainable_variables}
    x = {"x": X, "gamma": np.linspace(-1.0, 1.0, 32, dtype=np.float32)}
    model.train_on_batch(x, labels)
    return {
        v.path: before[v.path] - v.numpy() for v in model.trainable_variables
    }


def of_controller(gradients):
    return {k: v for k, v in gradients.items() if "controller" in k}


def test_minus_the_loss_as_a_reward_changes_nothing():
    def reward(y_true, y_pred):
        return -LOSS.call(y_true, y_pred)

    plain, own = (trained_step("exact", r) for r in (None, reward))
    for path, gradient in plain.items():
        np.testing.assert_allclose(own[path], gradient, atol=1e-6, err_msg=path)


def test_the_loss_trains_the_modules_and_the_reward_the_policy():
    plain, own = (trained_step("exact", r) for r in (None, "accuracy"))
    for path, gradient in plain.items():
        same = np.allclose(own[path], gradient, atol=1e-6)
        assert same != ("controller" in path and bool(np.any(gradient))), path


def test_a_reward_that_no_choice_changes_leaves_costs_to_the_policy():
    """Its gradient is then that of the costs: none of the labels matter."""
    own = of_controller(trained_step("exact", first_right))
    others = of_controller(trained_step("exact", first_right, (Y + 1) % 3))
    for path, gradient in others.items():
        np.testing.assert_allclose(gradient, own[path], atol=1e-6)


@pytest.mark.parametrize("estimator", ["reinforce", "leave_one_out", "exact"])
def test_the_log_of_the_reward_is_the_reward_with_its_costs(estimator):
    model = make(estimator)
    model.build((None, 4))
    model.compile(keras.optimizers.SGD(0.0), reward=first_right)
    x = {"x": X, "gamma": np.zeros(32, np.float32)}
    logs = model.train_on_batch(x, Y, return_dict=True)
    assert logs["reward"] == pytest.approx(np.mean(Y == 0), abs=1e-6)


def test_a_policy_learns_from_a_reward_without_a_gradient():
    """Both modules are as good; the reward is for the second one's sign."""
    dense = keras.layers.Dense
    modules = [
        dense(1, use_bias=True, kernel_initializer="zeros", trainable=False)
        for _ in range(2)
    ]
    model = ct.Composer([ct.Metalayer(modules)], costs=[[1.0, 1.0]], seed=0)
    model.build((None, 4))
    modules[1].bias.assign([1.0])

    def reward(y_true, y_pred):
        return tf.cast(y_pred[:, 0] > 0.5, tf.float32)

    model.compile(keras.optimizers.Adam(0.05), loss="mse", reward=reward)
    model.fit(X, np.zeros([32, 1]), epochs=60, batch_size=32, verbose=0)
    chosen = model(X, return_composition=True).policy.choices
    np.testing.assert_array_equal(chosen, np.ones([32, 1]))


def test_a_loaded_model_goes_on_with_its_reward(tmp_path):
    model = make()
    model.compile(reward="accuracy")
    model.fit(X, Y, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.reward == "accuracy"
    logs = [m.train_on_batch(X, Y, return_dict=True) for m in (model, loaded)]
    assert logs[0] == pytest.approx(logs[1])
