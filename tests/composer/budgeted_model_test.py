"""Calibration of a model, and what it does within a budget."""

import copy

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

import composer_tf as ct

layers = keras.layers
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=[200, 4]).astype("float32")
Y = np.arange(200) % 3
QUIET = {"verbose": 0, "return_dict": True}


def build(*more, seed=0, costs=(0.1, 1.0), gamma=None):
    """Follows gamma, each example in its own way."""
    keras.utils.set_random_seed(seed)
    model = ct.Composer(
        [
            ct.Metalayer(
                [
                    layers.Dense(3),
                    keras.Sequential([layers.Dense(64), layers.Dense(3)]),
                ]
            )
        ],
        preferences=[
            *more,
            ct.GlimpsePreference(gamma or ct.Uniform(-2.0, 6.0)),
        ],
        costs=[costs],
        seed=0,
    )
    model.compile("sgd", metrics=["accuracy"])
    model(X[:1])
    return model


@pytest.fixture(scope="module", name="model")
def _model():
    model = build()
    model.calibrate(X, batch_size=200)
    return model


@pytest.fixture(name="trained")
def _trained():
    """One that a test may change."""
    model = build()
    model.calibrate(X, num_gammas=3, batch_size=200)
    return model


def cost(model, **steering):
    return model.evaluate(X, Y, 200, **steering, **QUIET)["cost"]


def test_it_measures_what_evaluate_measures(model):
    calibration = model.calibration
    assert calibration.preference == "glimpse"
    assert calibration.gammas[0] == -2.0
    assert calibration.gammas[-1] == 6.0
    assert len(calibration.gammas) == 33
    measured = [cost(model, gamma=gamma) for gamma in calibration.gammas]
    assert measured[0] - measured[-1] > 0.5
    monotone = np.maximum.accumulate(measured[::-1])[::-1]
    np.testing.assert_allclose(calibration.costs, monotone, atol=1e-6)


def test_the_mean_cost_is_within_the_budget_and_near_to_it(model):
    costs = model.calibration.costs
    for budget in np.linspace(costs[-1], costs[0], 9):
        spent = cost(model, budget=budget)
        assert budget - 0.05 <= spent <= budget + 0.03
    assert cost(model, budget=0.0) == pytest.approx(costs[-1])
    assert cost(model, budget=1.0) == pytest.approx(costs[0])


def test_budgets_are_kept_on_the_scale_of_the_gamma(monkeypatch):
    """The cost falls over the first of five decades, row after row."""
    model = build(gamma=ct.LogUniform(1e-4, 10.0))

    def call(features, previous_choices, gamma, state, index):
        dear = -0.8 + 0.1 * features[:, :1] - gamma
        return tf.concat([-dear, dear], axis=-1), state

    monkeypatch.setattr(model.controller, "call", call)
    gammas = model.calibrate(X, num_gammas=6, batch_size=200).gammas
    np.testing.assert_allclose(
        sorted(gammas), [1e-4, 1e-3, 0.01, 0.1, 1.0, 10.0]
    )
    model.calibrate(X, batch_size=200)
    for budget in (0.5, 0.9):
        assert cost(model, budget=budget) == pytest.approx(budget, abs=0.04)


def test_a_budget_stands_for_its_gamma(model):
    costs, gammas = model.calibration.costs[::-1], model.calibration.gammas
    gamma = np.interp(0.5, costs, gammas[::-1])
    wanted = model(X, gamma=gamma, return_composition=True)
    np.testing.assert_allclose(
        model(X, budget=0.5, return_composition=True).gamma,
        wanted.gamma,
        atol=2 * np.diff(gammas).max(),
    )
    at = model.calibration.gamma(0.5)
    by_gamma = model(X, gamma=at)
    np.testing.assert_array_equal(model(X, budget=0.5), by_gamma)
    np.testing.assert_allclose(
        model.predict(X, budget=0.5, verbose=0), by_gamma, atol=1e-6
    )
    data = tf.data.Dataset.from_tensor_slices(X).batch(64)
    np.testing.assert_allclose(
        model.predict(data, budget=0.5, verbose=0), by_gamma, atol=1e-6
    )


def test_one_budget_per_example(model):
    budgets = np.linspace(0.0, 1.0, len(X))
    gammas = model.calibration.gamma(budgets)
    given = model(X, budget=budgets)
    np.testing.assert_array_equal(given, model(X, gamma=gammas))
    np.testing.assert_allclose(
        model.predict(X, budget=budgets, verbose=0), given, atol=1e-6
    )
    traced = tf.function(lambda x, budget: model(x, budget=budget))
    bad = np.where(np.arange(len(X)) == 7, np.nan, budgets)
    rows = traced(tf.constant(X), tf.constant(bad, tf.float32)).numpy()
    np.testing.assert_allclose(rows[7], model(X)[7], atol=1e-6)  # The default.
    np.testing.assert_allclose(rows[8:], given[8:], atol=1e-6)


@pytest.mark.parametrize(
    "steering",
    [
        {"gamma": 1.0},
        {"gamma": np.linspace(-2.0, 6.0, len(X))},
        {"budget": 0.5},
        {"budget": np.linspace(0.0, 1.0, len(X))},
    ],
    ids=["gamma", "gammas", "budget", "budgets"],
)
def test_a_batch_is_steered_as_all_data_are(model, steering):
    np.testing.assert_allclose(
        model.predict_on_batch(X, **steering), model(X, **steering), atol=1e-6
    )
    given = model.test_on_batch(X, Y, **steering, return_dict=True)
    wanted = model.evaluate(X, Y, **steering, **QUIET)
    assert given == pytest.approx(wanted, abs=1e-5)
    default = model.predict(X, verbose=0)  # It is back afterwards.
    np.testing.assert_allclose(model.predict_on_batch(X), default, atol=1e-6)


@pytest.mark.parametrize(
    ("steering", "message"),
    [
        ({"budget": 0.5, "gamma": 1.0}, "`gamma` and `budget` were given"),
        ({"budget": np.nan}, "`budget` must be .* from 0 to 1, got nan"),
        ({"budget": 50}, "`budget` must be .* from 0 to 1, got 50"),
        ({"budget": tf.constant(-3.0)}, "`budget` must be .*, got -3"),
        ({"budget": np.linspace(0, 2, 200)}, "`budget` must be .*, got 1.0"),
        ({"budget": "half"}, "`budget` must be a number .*'half'"),
        ({"budget": [[0.5]]}, r"`budget` must be a number or one value"),
        ({"budget": np.ones(3)}, "one per example, 200 of them"),
    ],
)
def test_a_bad_budget_is_refused_early(model, steering, message):
    for use in (model.predict, model.evaluate):
        with pytest.raises(ValueError, match=message):
            use(X, **steering, verbose=0)
    for use in (model.predict_on_batch, model.test_on_batch):
        with pytest.raises(ValueError, match=message):
            use(X, **steering)
    if np.shape(steering["budget"]) != (3,):  # What Keras then says itself.
        with pytest.raises(ValueError, match=message):
            model(X, **steering)


def test_without_a_calibration_there_is_no_budget():
    model = build()
    for use in (model, model.predict, model.evaluate):
        with pytest.raises(ValueError, match=r"call `model.calibrate\(data\)`"):
            use(X, budget=0.5)


def test_any_data_without_or_with_labels(trained):
    model = trained
    wanted = model.calibrate(X, num_gammas=5)
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(64)
    with_gamma = data.map(
        lambda x, y: ({"image": x, "gamma": tf.zeros([tf.shape(x)[0]])}, y)
    )
    for source in (X, (X, Y), {"image": X}, data, with_gamma):
        given = model.calibrate(source, num_gammas=5, batch_size=64)
        np.testing.assert_allclose(given.costs, wanted.costs, atol=1e-6)
        assert given.gammas == wanted.gammas


def test_the_preference_is_the_one_that_charges_or_the_one_given():
    model = build(ct.EntropyPreference(ct.Uniform(0.0, 2.0)))
    assert model.calibrate(X, num_gammas=2).preference == "glimpse"
    wanted = model(X, gamma={"glimpse": model.calibration.gamma(0.6)})
    np.testing.assert_array_equal(model(X, budget=0.6), wanted)
    calibration = model.calibrate(X, "entropy", num_gammas=2)
    assert calibration.preference == "entropy"
    assert sorted(calibration.gammas) == [0.0, 2.0]
    with pytest.raises(ValueError, match=r"\('entropy', 'glimpse'\), got 'x'"):
        model.calibrate(X, "x")
    with pytest.raises(ValueError, match="`num_gammas` must be 2 or more"):
        model.calibrate(X, num_gammas=1)


def test_what_cannot_be_steered_cannot_be_calibrated():
    model = ct.Composer([ct.Metalayer([layers.Dense(3), layers.Dense(3)])])
    with pytest.raises(ValueError, match="no weights yet"):
        model.calibrate(X)
    model(X)
    with pytest.raises(ValueError, match="no preference whose gamma varies"):
        model.calibrate(X)


def test_data_that_can_be_read_once_only_is_refused(trained):
    with pytest.raises(ValueError, match="`data` is read once for each gamma"):
        trained.calibrate((X[i : i + 8], Y[i : i + 8]) for i in (0, 8))


def test_a_sample_keeps_no_budget(model):
    with pytest.raises(ValueError, match="decision 'mode' only"):
        model.predict(X, budget=0.5, decision="sample")


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


def test_a_traced_function_takes_a_budget(trained):
    run = tf.function(lambda x: trained(x, budget=0.5))
    np.testing.assert_allclose(run(X), trained(X, budget=0.5), atol=1e-6)


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


def test_weights_that_are_loaded_in_part_bring_none(trained, tmp_path):
    path = tmp_path / "calibrated.weights.h5"
    trained.save_weights(path)
    other = build(seed=1)
    other.calibrate(X, num_gammas=2)
    other.load_weights(path, skip_mismatch=True)
    assert other.calibration is None
    narrow = ct.Composer(
        [ct.Metalayer([layers.Dense(3), layers.Dense(3)])],
        preferences=[ct.GlimpsePreference(ct.Uniform(-2.0, 6.0))],
        costs=[[0.1, 1.0]],
    )
    narrow.build((None, 4))
    with pytest.raises(ValueError):  # noqa: PT011  Of Keras.
        narrow.load_weights(path)
    assert narrow.calibration is None


def test_files_of_before_terms_were_kept_bring_theirs(trained, tmp_path):
    path = tmp_path / "calibrated.weights.h5"
    trained.save_weights(path)
    with h5py.File(path, "a") as file:
        del file["vars/calibration_terms"]
        del file["vars/calibration_updates"]
    other = build(seed=1)
    other.load_weights(path)
    assert other.calibration == trained.calibration


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


def test_replicas_change_nothing(two_replicas):
    wanted = build().calibrate(X, num_gammas=9)
    with two_replicas.scope():
        model = build()
    given = model.calibrate(X, num_gammas=9)
    np.testing.assert_allclose(given.costs, wanted.costs, atol=1e-6)
    at = model.calibration.costs[4]
    assert cost(model, budget=at) == pytest.approx(at, abs=1e-6)
