"""From a measured curve to the gamma of a budget."""

import numpy as np
import pytest
import tensorflow as tf

import composer_tf as ct
from composer_tf.calibration import measure
from composer_tf.preferences import LogUniform, Uniform

EXCESS = 0.04  # That is promised.
EVEN = Uniform(-4.0, 6.0).unscale
FINE = ct.Calibration("glimpse", (0.0, 1.0, 3.0), (0.52, 0.51, 0.49))


def gammas(calibration, *budgets):
    return calibration.gamma(np.array(budgets)).numpy()


def traced(calibration, *budgets):
    """As in an artifact, where no value is known in advance."""
    function = tf.function(calibration.gamma, reduce_retracing=True)
    return function(tf.constant(budgets)).numpy()


def test_between_measured_costs_it_is_a_straight_line():
    np.testing.assert_allclose(
        gammas(FINE, 0.52, 0.515, 0.51, 0.505, 0.5, 0.49),
        [0.0, 0.5, 1.0, 1.5, 2.0, 3.0],
        atol=1e-4,
    )
    grid = np.linspace(0.48, 0.53, 101)
    wanted = np.interp(grid, FINE.costs[::-1], FINE.gammas[::-1])
    np.testing.assert_allclose(gammas(FINE, *grid), wanted, atol=1e-4)


def test_outside_of_what_was_measured_it_is_the_nearest_end():
    np.testing.assert_allclose(gammas(FINE, 0.0, 0.48, 1.0), [3.0, 3.0, 0.0])
    np.testing.assert_allclose(
        traced(FINE, -1e9, 0.0, 0.48, 1.0, 1e9), [3.0] * 3 + [0.0] * 2
    )


def test_a_number_gives_a_number_and_a_bad_one_nan():
    assert FINE.gamma(0.51).shape == ()
    assert FINE.gamma(tf.constant([0.51, 0.5])).shape == (2,)
    bad = traced(FINE, np.nan, 0.49, np.inf, -np.inf)
    np.testing.assert_array_equal(np.isnan(bad), [True, False, True, True])
    assert bad[1] == pytest.approx(3.0)
    with pytest.raises(ValueError, match=r"`budget` must be .* \(1, 2\)"):
        FINE.gamma([[0.5, 0.5]])


JUMP = ct.Calibration("glimpse", (-1.0, 0.0, 2.0, 5.0), (1.0, 0.9, 0.2, 0.1))


@pytest.mark.parametrize("budget", [0.1, 0.15, 0.2, 0.3, 0.55, 0.89, 0.95, 1.0])
def test_a_mixture_spends_the_budget_within_a_jump_too(budget):
    mixed = JUMP.mixture(budget, 1000)
    assert mixed.dtype == np.float32
    costs = np.interp(mixed, JUMP.gammas, JUMP.costs)
    means = np.cumsum(costs) / np.arange(1, 1001)
    assert means.max() <= budget + 1e-9
    assert means[-1] == pytest.approx(budget, abs=1e-3)
    used = np.unique(mixed)
    assert len(used) <= 2
    places = np.searchsorted(JUMP.gammas, used)
    assert np.ptp(places) <= 1  # Neighbors.


def test_a_mixture_is_of_the_nearest_end_outside_of_what_was_measured():
    np.testing.assert_array_equal(JUMP.mixture(0.0, 3), [5.0] * 3)
    np.testing.assert_array_equal(FINE.mixture(1.0, 2), [0.0] * 2)
    assert JUMP.mixture(0.5, 0).shape == (0,)
    with pytest.raises(ValueError, match="from 0 to 1, got 2"):
        JUMP.mixture(2.0, 3)


@pytest.mark.parametrize("bad", [50, -3, 1.01, np.nan, np.inf])
@pytest.mark.parametrize("wrap", [float, tf.constant, lambda b: [0.5, b]])
def test_what_is_known_to_be_no_fraction_is_refused(bad, wrap):
    message = f"`budget` must be .* from 0 to 1, got {bad}"
    with pytest.raises(ValueError, match=message):
        FINE.gamma(wrap(bad))
    with pytest.raises(ValueError, match=message):
        tf.function(lambda: FINE.gamma(wrap(bad)))()


def test_a_measured_cost_is_a_budget_even_if_it_was_rounded_up():
    above = float(np.nextafter(np.float32(1.0), np.float32(2.0)))
    rounded = ct.Calibration("glimpse", (0.0, 1.0), (above, 0.98))
    assert rounded.gamma(above) == 0.0


def test_of_gammas_that_cost_the_same_the_cheapest_is_taken():
    flat = ct.Calibration("glimpse", (0.0, 1.0, 2.0, 3.0), (0.6, 0.6, 0.6, 0.5))
    assert gammas(flat, 0.6) == 2.0
    assert gammas(flat, 0.6001) == 0.0


def test_within_a_jump_it_stays_below():
    jump = ct.Calibration("glimpse", (0.0, 1.0), (1.0, 0.3))
    np.testing.assert_array_equal(
        gammas(jump, 0.3, 0.5, 0.9, 0.99, 1.0), [1.0, 1.0, 1.0, 1.0, 0.0]
    )


def test_a_curve_is_made_monotone_and_never_too_cheap():
    wavering = ct.Calibration.of(
        "glimpse", [0.0, 1.0, 2.0, 3.0, 4.0], [0.9, 0.7, 0.8, 0.2, 0.3]
    )
    assert wavering.gammas == (0.0, 1.0, 2.0, 3.0, 4.0)
    assert wavering.costs == (0.9, 0.8, 0.8, 0.3, 0.3)


def test_a_preference_for_dear_paths_rises():
    rising = ct.Calibration.of("dear", [0.0, 1.0, 2.0], [0.48, 0.50, 0.49])
    assert rising.gammas == (2.0, 1.0, 0.0)
    assert rising.costs == (0.5, 0.5, 0.48)
    np.testing.assert_allclose(
        gammas(rising, 0.48, 0.49, 0.5), [0.0, 0.5, 1.0], atol=1e-4
    )


def smooth(centre, width):
    """A curve that falls from 1 to 0.1 about `centre`."""
    return lambda g: 0.55 - 0.45 * np.tanh((float(g) - centre) / width)


def steps(seed):
    """A curve that falls from 1 to 0.1 in three jumps somewhere."""
    random = np.random.default_rng(seed)
    places = np.sort(random.uniform(-4.0, 6.0, 3))
    heights = random.dirichlet(np.ones(3)) * 0.9
    return lambda g: 1.0 - heights[places < g].sum()


def mixed():
    """Partly smooth, with jumps."""
    some, other = steps(2), smooth(1.0, 1.0)
    return lambda g: (some(g) + other(g)) / 2


CURVES = [smooth(1.0, 2.0), smooth(0.3, 0.05), smooth(-4.0, 1.0)]


@pytest.mark.parametrize("curve", [*CURVES, steps(0), steps(1), mixed()])
def test_no_budget_is_exceeded_by_more_than_is_promised(curve):
    calibration = measure("glimpse", curve, EVEN, 33)
    budgets = np.linspace(curve(6.0), 1.0, 999)
    chosen = gammas(calibration, *budgets)
    assert (np.diff(chosen) <= 1e-5).all()
    spent = np.array([curve(gamma) for gamma in chosen])
    assert (spent <= budgets + EXCESS).all()
    for gamma, cost in zip(calibration.gammas, calibration.costs, strict=True):
        assert curve(gammas(calibration, cost)[0]) <= cost + 1e-4
        assert cost == curve(gamma)


@pytest.mark.parametrize("width", [0.05, 0.3, 2.0])
def test_where_the_curve_is_continuous_the_budget_is_spent(width):
    curve = smooth(0.3, width)
    calibration = measure("glimpse", curve, EVEN, 33)
    budgets = np.linspace(curve(6.0), curve(-4.0), 999)
    spent = [curve(gamma) for gamma in gammas(calibration, *budgets)]
    np.testing.assert_allclose(spent, budgets, atol=EXCESS)
    assert np.abs(spent - budgets).mean() < 0.01


@pytest.mark.parametrize("low", [1e-4, 1e-6])
@pytest.mark.parametrize("rising", [False, True])
def test_it_measures_on_the_scale_of_the_gamma(low, rising):
    """The cost changes over the first decade only, in the logarithm."""
    distribution = LogUniform(low, 10.0)

    def curve(gamma):
        decades = np.clip(np.log10(float(gamma) / low), 0.0, 1.0)
        return 0.1 + 0.9 * (decades if rising else 1.0 - decades)

    calibration = measure("glimpse", curve, distribution.unscale, 33)
    assert set(distribution.support) <= set(calibration.gammas)
    for budget in (0.2, 0.5, 0.9):
        spent = curve(calibration.gamma(budget))
        assert spent == pytest.approx(budget, abs=EXCESS)


def test_it_measures_where_the_curve_is_steep():
    calibration = measure("glimpse", lambda g: float(g < 0.3), EVEN, 33)
    index = calibration.costs.index(0.0)
    before, after = calibration.gammas[index - 1 : index + 1]
    assert before < 0.3 <= after < before + 0.02
    asked = []
    measure("glimpse", lambda g: asked.append(g) or 0.5, EVEN, 33)
    assert len(asked) < 10


def test_its_representation_is_short_and_goes_from_dear_to_cheap():
    gammas = tuple(np.linspace(-6.0, 2.0, 33).tolist())
    costs = tuple(np.linspace(0.98765, 0.26, 33).tolist())
    calibration = ct.Calibration("glimpse", gammas, costs)
    wanted = "Calibration('glimpse', gamma -6 to 2, cost 0.988 to 0.26)"
    assert repr(calibration) == str(calibration) == wanted
