"""When a model keeps its calibration, and when it forgets it."""

import copy

import keras
import numpy as np
import pytest
import tensorflow as tf

import composer_tf as ct
from tests.composer.budgeted import QUIET, X, Y, build, calibrated

layers = keras.layers


@pytest.fixture(scope="module", name="model")
def _model():
    return calibrated()


@pytest.fixture(name="trained")
def _trained():
    """One that a test may change."""
    return calibrated(num_gammas=3)


def test_training_forgets_it_and_nothing_else_does(trained):
    model = trained
    calibration = model.calibration
    model.predict(X, verbose=0)
    model.evaluate(X, Y, verbose=0)
    model.compile("sgd")
    with pytest.raises(ValueError, match="data holds labels"):
        model.fit(X, Y + 5, verbose=0)
    assert model.calibration == calibration
    model.fit(X, Y, verbose=0)
    assert model.calibration is None
    model.calibrate(X, num_gammas=2)
    model.train_on_batch(X, Y)
    assert model.calibration is None


def test_what_was_measured_amid_training_is_forgotten_too(trained):
    model = trained

    class Calibrate(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 0:
                model.calibrate(X, num_gammas=2, batch_size=200)
                assert model.calibration is not None

    model.fit(X, Y, epochs=2, callbacks=[Calibrate()], verbose=0)
    assert model.calibration is None
    with pytest.raises(ValueError, match="needs a calibrated model"):
        model.predict(X, budget=0.5)


def apply_gradients(model):
    variables = model.trainable_variables
    model.optimizer.apply([tf.ones_like(v) for v in variables], variables)


def test_a_loop_of_ones_own_forgets_it_for_good(trained, tmp_path):
    model = trained
    assert model.calibration is not None
    apply_gradients(model)
    assert model.calibration is None
    with pytest.raises(ValueError, match="needs a calibrated model"):
        model(X, budget=0.5)
    model.compile("sgd")  # Its count is 0 again.
    assert model.calibration is None
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.calibration is None


def test_it_is_kept_with_another_optimizer_or_none(trained, tmp_path):
    model = trained
    model.fit(X, Y, verbose=0)
    wanted = model.calibrate(X, num_gammas=3, batch_size=200)
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    whole = keras.models.load_model(tmp_path / "model.keras")
    assert int(whole.optimizer.iterations) > 0
    bare = keras.models.load_model(tmp_path / "model.keras", compile=False)
    assert bare.calibration == wanted
    bare.compile("adam")
    other = build(seed=1)
    apply_gradients(other)
    other.load_weights(tmp_path / "model.weights.h5")
    copied = copy.deepcopy(model)
    model.compile("adam")
    for kept in (model, whole, bare, other, copied):
        assert kept.calibration == wanted
        apply_gradients(kept)
        assert kept.calibration is None


def test_it_is_saved_with_the_model_and_not_cloned(model, tmp_path):
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.calibration == model.calibration
    np.testing.assert_array_equal(
        loaded(X, budget=0.5).numpy(), model(X, budget=0.5).numpy()
    )
    assert keras.models.clone_model(model).calibration is None


def test_weights_bring_theirs_or_none(trained, tmp_path):
    model = trained
    model.save_weights(tmp_path / "calibrated.weights.h5")
    other = build(seed=1)
    other.save_weights(tmp_path / "other.weights.h5")
    other.load_weights(tmp_path / "calibrated.weights.h5")
    assert other.calibration == model.calibration
    model.load_weights(tmp_path / "other.weights.h5")
    assert model.calibration is None


def test_weights_that_are_set_have_none(trained):
    model = trained
    wanted = build(seed=1)
    model.set_weights(wanted.get_weights())
    np.testing.assert_array_equal(model(X), wanted(X))
    with pytest.raises(ValueError, match="needs a calibrated model"):
        model.predict(X, budget=0.5)


@pytest.mark.parametrize(
    "options",
    [{"costs": (0.2, 1.0)}, {"gamma": ct.Uniform(-2.0, 5.0)}],
    ids=("costs", "gamma"),
)
def test_weights_of_other_costs_or_gammas_bring_none(
    trained, tmp_path, options
):
    trained.save_weights(tmp_path / "calibrated.weights.h5")
    other = build(seed=1, **options)
    other.calibrate(X, num_gammas=2)
    other.load_weights(tmp_path / "calibrated.weights.h5")
    assert other.calibration is None


@pytest.mark.filterwarnings("ignore:Gradients do not exist")
def test_weights_that_change_in_any_way_have_none(trained):
    model = trained
    calibration = model.calibration
    before = model.controller.get_weights()
    model.controller.set_weights([weight + 1.0 for weight in before])
    assert model.calibration is None
    model.controller.set_weights(before)
    assert model.calibration == calibration
    inputs = keras.Input([4])
    outer = keras.Model(inputs, model(inputs))
    outer.compile("sgd", "mse")
    outer.fit(X, np.zeros([len(X), 3]), verbose=0)
    assert model.calibration is None


def test_weights_that_are_loaded_in_part_bring_none(trained, tmp_path):
    path = tmp_path / "calibrated.weights.h5"
    trained.save_weights(path)
    other = build(seed=1)
    other.load_weights(path, skip_mismatch=True)  # It has them all.
    assert other.calibration == trained.calibration
    narrow = ct.Composer(
        [ct.Metalayer([layers.Dense(3), layers.Dense(3)])],
        preferences=[ct.GlimpsePreference(ct.Uniform(-2.0, 6.0))],
        costs=[[0.1, 1.0]],
    )
    narrow.build((None, 4))
    with pytest.raises(ValueError):  # noqa: PT011  Of Keras.
        narrow.load_weights(path)
    assert narrow.calibration is None


def test_the_best_weights_that_training_restores_have_none(trained):
    model = trained
    stop = keras.callbacks.EarlyStopping(
        "val_loss", patience=1, restore_best_weights=True
    )
    losses = model.fit(
        X, Y, validation_data=(X, Y), epochs=5, callbacks=[stop], verbose=0
    ).history["val_loss"]
    loss = model.evaluate(X, Y, **QUIET)["loss"]
    assert loss == pytest.approx(min(losses), abs=1e-5)
    assert model.calibration is None
