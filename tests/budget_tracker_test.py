"""A stream's mean cost, and what keeps it at the budget."""

import keras
import numpy as np
import pytest

import composer_tf as ct


def test_what_was_saved_or_overspent_is_spread_over_the_horizon():
    tracker = ct.BudgetTracker(0.5, horizon=10)
    assert tracker.budget == 0.5
    tracker.update([0.2, 0.3])
    assert tracker.balance == pytest.approx(0.5)
    assert tracker.budget == pytest.approx(0.55)
    tracker.update(1.0)
    assert tracker.budget == pytest.approx(0.5)
    tracker.update(np.zeros([0]))
    assert tracker.budget == pytest.approx(0.5)


def drifting(rng, hardness):
    """Costs of examples at a budget: any, but for the two ends of the range."""

    def spend(budget, rows):
        if budget <= 0.1:
            return np.full(rows, 0.1)
        if budget >= 0.9:
            return np.full(rows, 0.9)
        return rng.uniform(0.1, 0.9, rows) if rng.random() < 0.5 else hardness

    return spend


@pytest.mark.parametrize("seed", range(20))
def test_the_mean_cost_is_kept_whatever_data_come(seed):
    rng = np.random.default_rng(seed)
    budget = rng.uniform(0.15, 0.85)
    horizon = int(rng.integers(32, 500))
    spend = drifting(rng, rng.choice([0.1, 0.9]))
    tracker = ct.BudgetTracker(budget, horizon)
    costs = []
    for _ in range(300):
        rows = int(rng.integers(1, 33))
        spent = np.broadcast_to(spend(tracker.budget, rows), [rows])
        tracker.update(spent)
        costs.extend(spent)
        bound = horizon / len(costs) + 1e-9
        assert abs(np.mean(costs) - budget) <= bound
    assert abs(np.mean(costs) - budget) < 0.15


def test_what_cannot_be_kept_is_forgotten_after_a_horizon():
    tracker = ct.BudgetTracker(0.2, horizon=50)
    for _ in range(1000):
        tracker.update(0.4)  # The cheapest costs more than the budget.
    assert tracker.budget == 0.0
    assert tracker.balance == -50.0
    for _ in range(400):
        tracker.update(0.05)
    assert tracker.budget > 0.0


def dear_where_the_first_input_is_larger():
    controller = ct.FeedForwardController(units=1)
    model = ct.Composer(
        [ct.Metalayer([keras.layers.Dense(2), keras.layers.Dense(2)])],
        controller=controller,
        preferences=[ct.GlimpsePreference(ct.Uniform(-4.0, 4.0))],
        costs=[[1.0, 9.0]],
    )
    model.build((None, 2))
    first = np.array([[1.0], [0.0], [0.0]])  # Of two inputs and gamma.
    second = np.array([[0.0, 3.0]])
    (network,) = controller.networks
    network.set_weights([first, np.zeros([1]), second, np.zeros([2])])
    return model


def test_a_model_keeps_its_budget_on_data_that_it_was_not_calibrated_on():
    model = dear_where_the_first_input_is_larger()
    rng = np.random.default_rng(0)
    model.calibrate(rng.normal(size=(1024, 2)))
    shifted = rng.normal(size=(64, 32, 2)) + np.array([4.0, 0.0])
    fixed, tracked = [], []
    tracker = ct.BudgetTracker(0.5, horizon=64)
    for x in shifted:
        fixed.append(model(x, budget=0.5, return_composition=True).cost)
        composition = model(x, budget=tracker.budget, return_composition=True)
        tracker.update(composition.cost)
        tracked.append(composition.cost)
    assert np.mean(fixed) > 0.9  # All but a few are dear.
    assert abs(np.mean(tracked) - 0.5) <= 64 / 2048


@pytest.mark.parametrize("budget", [0.0, -0.5, 50, np.nan])
def test_a_budget_is_a_fraction_of_full_cost(budget):
    with pytest.raises(ValueError, match=r"`budget` must be a fraction"):
        ct.BudgetTracker(budget)


@pytest.mark.parametrize("horizon", [0, -1, np.nan, np.inf])
def test_a_horizon_is_a_number_of_examples(horizon):
    with pytest.raises(ValueError, match="`horizon` must be a number"):
        ct.BudgetTracker(0.5, horizon)


@pytest.mark.parametrize("costs", [1.5, [0.5, -0.1], [np.nan], np.inf])
def test_costs_are_fractions_of_full_cost(costs):
    tracker = ct.BudgetTracker(0.5)
    with pytest.raises(ValueError, match="`costs` must be fractions"):
        tracker.update(costs)
    assert tracker.balance == 0.0
