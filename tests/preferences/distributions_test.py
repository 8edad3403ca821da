import math

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from composer_tf.preferences import (
    Constant,
    GammaDistribution,
    LogUniform,
    Uniform,
)
from composer_tf.preferences.distributions import as_distribution

SEED = (1, 2)


def draw(distribution, size=4000):
    return distribution.distribution().sample(size, seed=SEED).numpy()


@pytest.mark.parametrize(
    ("distribution", "support"),
    [
        (Uniform(-2.0, 6.0), (-2.0, 6.0)),
        (LogUniform(0.01, 100.0), (0.01, 100.0)),
        (Constant(0.3), (0.3, 0.3)),
    ],
)
def test_samples_lie_in_the_support(distribution, support):
    assert distribution.support == support
    samples = draw(distribution)
    assert samples.dtype == np.float32
    slack = 1.0 + 1e-5  # exp(log(low)) is not low, in float32.
    assert samples.min() >= support[0] * slack ** -np.sign(support[0])
    assert samples.max() <= support[1] * slack


@pytest.mark.parametrize(
    ("distribution", "map_to_unit"),
    [
        (Uniform(-2.0, 6.0), lambda g: (g + 2.0) / 8.0),
        (LogUniform(0.01, 100.0), lambda g: np.log10(g) / 4.0 + 0.5),
    ],
)
def test_samples_are_uniform_on_their_scale(distribution, map_to_unit):
    """Kolmogorov and Smirnov's distance; 1.95 / sqrt(N) has p = 0.001."""
    unit = np.sort(map_to_unit(draw(distribution)))
    uniform = np.arange(1, len(unit) + 1) / len(unit)
    assert np.max(np.abs(unit - uniform)) < 1.95 / math.sqrt(len(unit))


@pytest.mark.parametrize(
    ("distribution", "middle"),
    [(Uniform(-2.0, 6.0), 2.0), (LogUniform(0.01, 100.0), 1.0)],
)
def test_scale_maps_the_ends_of_the_support_to_minus_one_and_one(
    distribution, middle
):
    low, high = distribution.support
    scaled = distribution.scale(tf.constant([low, middle, high]))
    np.testing.assert_allclose(scaled, [-1.0, 0.0, 1.0], atol=1e-6)


@pytest.mark.parametrize(
    "distribution", [Uniform(-2.0, 6.1), LogUniform(1e-4, 10.0), Constant(0.3)]
)
def test_unscale_is_the_inverse_of_scale(distribution):
    assert distribution.unscale(-1.0) == distribution.support[0]
    assert distribution.unscale(1.0) == distribution.support[1]
    gammas = distribution.distribution().sample(20, seed=SEED)
    back = [distribution.unscale(s) for s in distribution.scale(gammas).numpy()]
    np.testing.assert_allclose(back, gammas, rtol=1e-4)


def test_a_distribution_of_ones_own_is_scaled_evenly():
    class Triangle(GammaDistribution):
        support = (1.0, 5.0)

        def distribution(self):
            return tfp.distributions.Triangular(1.0, 5.0, 2.0)

        def get_config(self):
            return {}

    assert [Triangle().unscale(s) for s in (-1.0, -0.5, 1.0)] == [1, 2, 5]


def test_a_constant_is_scaled_to_zero():
    np.testing.assert_array_equal(
        Constant(0.3).scale(tf.constant([0.3, 0.3])), [0.0, 0.0]
    )


@pytest.mark.parametrize("distribution_class", [Uniform, LogUniform])
@pytest.mark.parametrize(
    ("low", "high", "message"),
    [
        (2.0, 1.0, r"`low` must be below `high`, got 2.0 and 1.0"),
        (1.0, 1.0, r"`low` must be below `high`"),
        (math.nan, 1.0, r"`low` must be a finite number, got nan"),
        (1.0, math.inf, r"`high` must be a finite number, got inf"),
    ],
)
def test_bounds_that_are_no_interval_are_refused(
    distribution_class, low, high, message
):
    with pytest.raises(ValueError, match=message):
        distribution_class(low, high)


@pytest.mark.parametrize("low", [0.0, -1.0])
def test_log_uniform_needs_bounds_above_zero(low):
    with pytest.raises(ValueError, match=rf"`low` must be above 0, got {low}"):
        LogUniform(low, 1.0)


def test_a_constant_must_be_finite():
    with pytest.raises(ValueError, match="`value` must be a finite number"):
        Constant(math.nan)


@pytest.mark.parametrize("number", [2, 2.0, np.float64(2), np.float32(2)])
def test_a_number_stands_for_a_constant(number):
    assert as_distribution(number).support == (2.0, 2.0)


@pytest.mark.parametrize("value", ["uniform", None, True, (0.0, 1.0)])
def test_what_is_neither_number_nor_distribution_is_refused(value):
    with pytest.raises(TypeError, match="a number or a GammaDistribution"):
        as_distribution(value)


@pytest.mark.parametrize(
    "distribution", [Uniform(-2.0, 6.0), LogUniform(0.01, 10.0), Constant(0.3)]
)
def test_configs_rebuild_the_distribution(distribution):
    copy = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(distribution)
    )
    assert type(copy) is type(distribution)
    assert copy.support == distribution.support
