"""Bad data is refused in one line, before it trains anything."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import composer_tf as ct
from tests.small_training import X, Y, compiled, make, state

layers = keras.layers


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_bad_numbers_in_the_data_are_refused_before_training(bad):
    spoiled = X.copy()
    spoiled[5, 2] = bad
    gamma = np.full([64], bad, "float32")
    model = compiled()
    with pytest.raises(ValueError, match=r"`x` must be finite.*\(5, 2\)"):
        model.fit(spoiled, Y, verbose=0)
    with pytest.raises(ValueError, match="`gamma` must be finite"):
        model.fit({"image": X, "gamma": gamma}, Y, verbose=0)


def test_targets_are_asked_for():
    with pytest.raises(ValueError, match="`y` must be given"):
        compiled().fit(X)


@pytest.mark.parametrize("verb", ["fit", "evaluate"])
def test_a_data_set_of_inputs_only_is_refused(verb):
    inputs = tf.data.Dataset.from_tensor_slices(X).batch(16)
    with pytest.raises(ValueError, match="got inputs only"):
        getattr(compiled(), verb)(inputs, verbose=0)


def test_labels_out_of_range_are_refused_before_training():
    model = compiled(
        metalayers=[ct.Metalayer([layers.Dense(2), layers.Dense(2)])]
    )
    with pytest.raises(ValueError, match=r"labels from 0 to 2.*has 2 classes"):
        model.fit(X, Y, verbose=0)


@pytest.mark.parametrize(
    ("label", "reward"), [(-1, None), (3, "probability"), (3, "accuracy")]
)
def test_a_label_out_of_range_in_a_data_set_is_named(label, reward):
    model = make()
    model.compile("sgd", reward=reward)
    bad = tf.data.Dataset.from_tensors((X, np.full_like(Y, label)))
    message = f"data holds label {label}, but the model has 3 classes: 0 to 2"
    with pytest.raises(ValueError, match=message):
        model.fit(bad, verbose=0)
    with pytest.raises(ValueError, match=message):
        model.evaluate(bad, verbose=0)


def test_another_error_of_tensorflow_stays_what_it_is():
    def fail(x, y):
        tf.debugging.assert_none_equal(y, y, message="what the user forbids")
        return x, y

    bad = tf.data.Dataset.from_tensor_slices((X, Y)).batch(16).map(fail)
    with pytest.raises(tf.errors.InvalidArgumentError, match="user forbids"):
        compiled().fit(bad, verbose=0)


@pytest.mark.parametrize("routing", ["partition", "dense"])
def test_a_training_that_diverges_does_not_blame_the_labels(routing):
    model = compiled(keras.optimizers.SGD(1e30), routing=routing)
    with pytest.raises(ValueError, match="The loss became"):
        model.fit(X, Y, epochs=3, verbose=0)


def test_targets_may_lose_their_axis_of_one_between_trainings():
    losses = []
    column = Y[:, None].astype("float32")
    for targets in (column, column[:, 0]):
        keras.utils.set_random_seed(0)
        model = make(
            metalayers=[ct.Metalayer([layers.Dense(1), layers.Dense(1)])]
        )
        model(X[:2])
        model.compile("sgd", lambda y, outputs: tf.square(y - outputs))
        model.fit(X, column, shuffle=False, verbose=0)
        model.fit(X, targets, shuffle=False, verbose=0)
        losses.append(model.evaluate(X, targets, verbose=0))
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)


def test_a_loss_that_is_not_finite_stops_before_it_is_saved(tmp_path):
    spoiled = tf.data.Dataset.from_tensor_slices((X * np.nan, Y)).batch(16)
    model = compiled(jit_compile=True)
    checkpoint = keras.callbacks.ModelCheckpoint(tmp_path / "model.keras")
    with pytest.raises(ValueError, match="loss became nan in epoch 1"):
        model.fit(spoiled, callbacks=[checkpoint], verbose=0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("part", ["value/", "probe_0/"])
def test_what_the_logged_loss_lacks_stops_a_training_all_the_same(part):
    """A baseline and a probe of NaN leave the loss of the data finite."""
    model = compiled(controller=ct.FeedForwardController(4, probe=True))
    model.build((None, 6))
    spoiled = [v for v in model.trainable_variables if part in v.path]
    assert spoiled
    for variable in spoiled:
        variable.assign(np.full(variable.shape, np.nan))
    with pytest.raises(ValueError, match="loss became nan in epoch 1"):
        model.fit(X, Y, batch_size=64, verbose=0)
    logs = model.evaluate(X, Y, verbose=0, return_dict=True)
    assert np.isfinite(logs["loss"])


@pytest.mark.parametrize("shape", [(64, 5), (64, 5, 1), (64, 1, 1)])
def test_weights_within_an_example_are_refused(shape):
    x = np.repeat(X[:, np.newaxis], 5, axis=1)  # [B, T, features]
    y = np.repeat(Y[:, np.newaxis], 5, axis=1)  # [B, T]
    weights = np.ones(shape, "float32")
    weighted = tf.data.Dataset.from_tensor_slices((x, y, weights)).batch(16)
    model = compiled()
    model.fit(x, y, sample_weight=np.ones(64), verbose=0)
    model.evaluate(x, y, sample_weight=np.ones([64, 1]), verbose=0)
    before = state(model)
    for verb in (model.fit, model.evaluate):
        refused(verb, shape, x, y, sample_weight=weights, verbose=0)
        refused(verb, shape, weighted, verbose=0)
    for validation_data in ((x, y, weights), weighted):
        refused(model.fit, shape, x, y, validation_data=validation_data)
    for a, b in zip(before, state(model), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_step_refuses_weights_within_an_example():
    batch = (X, Y, np.ones([64, 5]))
    refused(compiled().train_on_batch, (64, 5), *batch)
    refused(compiled().test_on_batch, (64, 5), *batch)
    # Of a generator nothing is known beforehand.
    batches = (b for b in [batch])
    refused(compiled().fit, (64, 5), batches, shuffle=False, verbose=0)


def refused(verb, shape, *args, **kwargs):
    of_batch = ", ".join(map(str, shape[1:]))
    message = rf"`sample_weight` must be \[B\] or \[B, 1\].* {of_batch}\)"
    with pytest.raises(ValueError, match=message):
        verb(*args, **kwargs)


@pytest.mark.parametrize("y", [{"a": Y, "b": Y}, [Y, Y], (Y, Y)])
def test_targets_are_one_array(y):
    model = compiled()
    with pytest.raises(TypeError, match="The targets must be one array"):
        model.fit(X, y, verbose=0)
    with pytest.raises(TypeError, match="The targets must be one array"):
        model.evaluate(X, y, verbose=0)
    batches = ct.datasets.batches(X, Y, 16)
    several = batches.map(lambda x, y: (x, {"a": y, "b": y}))
    with pytest.raises(TypeError, match="The targets must be one array"):
        model.fit(several, verbose=0)


def test_a_weight_that_is_no_number_is_refused_before_training():
    model = compiled()
    before = state(model)
    weights = np.ones(len(X))
    weights[3] = np.nan
    with pytest.raises(ValueError, match="`sample_weight` must be finite"):
        model.fit(X, Y, sample_weight=weights, verbose=0)
    for a, b in zip(state(model), before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_loss_that_evaluation_cannot_collect_is_told():
    """Of a model that was trained densely, by XLA."""
    regularized = layers.Dense(3, activity_regularizer="l2")
    model = ct.Composer([ct.Metalayer([regularized, layers.Dense(3)])])
    model.compile("sgd", jit_compile=True)
    model.fit(X, Y, verbose=0)
    model.compile("sgd")
    with pytest.raises(ValueError, match=r"routing='dense'"):
        model.evaluate(X, Y, verbose=0)


def test_one_gamma_beside_the_input_is_that_of_all_examples():
    by_row = {"image": X, "gamma": np.full(len(X), 1.5, np.float32)}
    by_number = {"image": X, "gamma": 1.5}
    histories = [
        compiled(seed=1)
        .fit(x, Y, validation_data=(x, Y), epochs=2, verbose=0)
        .history
        for x in (by_row, by_number)
    ]
    for name, values in histories[0].items():
        np.testing.assert_allclose(histories[1][name], values, rtol=1e-5)
    first, second = (
        compiled(seed=1).train_on_batch(x, Y, return_dict=True)
        for x in (by_row, by_number)
    )
    assert first == pytest.approx(second, rel=1e-5)
