"""Calibration of a model, and what it does within a budget."""

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
    with pytest.raises(ValueError, match="`data` is read several times"):
        trained.calibrate((X[i : i + 8], Y[i : i + 8]) for i in (0, 8))


def test_a_sample_keeps_no_budget(trained):
    for call in (
        lambda: trained.predict(X, budget=0.5, decision="sample"),
        lambda: trained(X, budget=0.5, decision="sample"),
        lambda: trained(X, budget=0.5, training=True),
    ):
        with pytest.raises(ValueError, match="decision 'mode' only"):
            call()
    trained(X, budget=0.5, decision="mode", training=True)


def test_a_traced_function_takes_a_budget(trained):
    run = tf.function(lambda x: trained(x, budget=0.5))
    np.testing.assert_allclose(run(X), trained(X, budget=0.5), atol=1e-6)


def test_replicas_change_nothing(two_replicas):
    wanted = build().calibrate(X, num_gammas=9)
    with two_replicas.scope():
        model = build()
    given = model.calibrate(X, num_gammas=9)
    np.testing.assert_allclose(given.costs, wanted.costs, atol=1e-6)
    at = model.calibration.costs[4]
    assert cost(model, budget=at) == pytest.approx(at, abs=1e-6)
