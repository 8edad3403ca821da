import math

import numpy as np
import pytest
import tensorflow as tf

from composer_tf.policy import Policy
from composer_tf.preferences import (
    BatchEntropyPreference,
    EntropyPreference,
    GlimpsePreference,
    LogUniform,
    PreferenceCollection,
    Uniform,
)

ONE = PreferenceCollection(
    [
        GlimpsePreference(Uniform(-2.0, 6.0), default=1.0),
        BatchEntropyPreference(0.1),
    ]
)
TWO = PreferenceCollection(
    [
        GlimpsePreference(Uniform(-2.0, 6.0), default=1.0),
        BatchEntropyPreference(0.1),
        EntropyPreference(LogUniform(0.1, 10.0)),
    ]
)


def test_gamma_has_a_column_per_preference_that_is_not_constant():
    assert TWO.names == ("glimpse", "entropy")
    np.testing.assert_allclose(TWO.default, [1.0, 0.1])
    assert [p.name for p in TWO] == ["glimpse", "batch_entropy", "entropy"]


@pytest.mark.parametrize(
    ("gamma", "expected"),
    [
        (2, [[2.0]]),
        (2.0, [[2.0]]),
        (np.float64(2.0), [[2.0]]),
        (tf.constant(2.0), [[2.0]]),
        ([1.0, 2.0, 3.0], [[1.0], [2.0], [3.0]]),
        (np.array([1, 2]), [[1.0], [2.0]]),
        (np.array([[1.0], [2.0]]), [[1.0], [2.0]]),
        ({"glimpse": 2.0}, [[2.0]]),
        ({"glimpse": [1.0, 2.0]}, [[1.0], [2.0]]),
        ({}, [[1.0]]),
    ],
)
def test_reads_the_gamma_of_one_preference(gamma, expected):
    parsed = ONE.parse(gamma)
    assert parsed.dtype == tf.float32
    np.testing.assert_array_equal(parsed, expected)


@pytest.mark.parametrize(
    ("gamma", "expected"),
    [
        ([2.0, 0.5], [[2.0, 0.5]]),
        ([[1.0, 0.5], [2.0, 0.25]], [[1.0, 0.5], [2.0, 0.25]]),
        ({"entropy": 0.5}, [[1.0, 0.5]]),
        ({"entropy": 0.5, "glimpse": 3.0}, [[3.0, 0.5]]),
        (
            {"entropy": 0.5, "glimpse": [3.0, 4.0]},
            [[3.0, 0.5], [4.0, 0.5]],
        ),
        (
            {"entropy": [0.5, 0.25], "glimpse": [3.0, 4.0]},
            [[3.0, 0.5], [4.0, 0.25]],
        ),
    ],
)
def test_reads_the_gamma_of_several_preferences(gamma, expected):
    np.testing.assert_array_equal(TWO.parse(gamma), expected)


@pytest.mark.parametrize(
    ("collection", "gamma", "message"),
    [
        (ONE, [[1.0, 2.0]], r"a number or one value per example.*\(1, 2\)"),
        (ONE, [[[1.0]]], r"a number or one value per example"),
        (ONE, math.nan, "`gamma` must be finite"),
        (ONE, "cheap", "`gamma` must be numbers, got string"),
        (ONE, [1.0, math.inf], "`gamma` must be finite"),
        (ONE, {"glimpse": math.nan}, "`gamma` must be finite"),
        (ONE, {"glimpse": [[1.0]]}, r"`gamma\['glimpse'\]` must be a number"),
        (ONE, {"glance": 1.0}, r"names \['glance'\].*\['glimpse'\]"),
        (ONE, {"batch_entropy": 1.0}, r"names \['batch_entropy'\]"),
        (TWO, 1.0, r"2 values \('glimpse', 'entropy'\)"),
        (TWO, [1.0, 2.0, 3.0], r"\[batch, 2\], or a mapping"),
        (TWO, [[1.0], [2.0]], r"got shape \(2, 1\)"),
        (
            TWO,
            {"glimpse": [1.0, 2.0, 3.0], "entropy": [1.0, 2.0]},
            "one value per example",
        ),
        (PreferenceCollection([]), 1.0, "no preference whose gamma varies"),
        (
            PreferenceCollection([BatchEntropyPreference(0.1)]),
            1.0,
            "no preference whose gamma varies",
        ),
    ],
)
def test_a_gamma_that_does_not_fit_is_refused(collection, gamma, message):
    with pytest.raises(ValueError, match=message):
        collection.parse(gamma)


def test_reads_a_gamma_per_example_of_a_batch_of_unknown_size():
    @tf.function(input_signature=[tf.TensorSpec([None])])
    def parse(gamma):
        return ONE.parse(gamma), TWO.parse({"entropy": gamma})

    one, two = parse(tf.constant([1.0, 2.0, 3.0]))
    np.testing.assert_array_equal(one, [[1.0], [2.0], [3.0]])
    np.testing.assert_array_equal(two, [[1.0, 1.0], [1.0, 2.0], [1.0, 3.0]])


def test_clean_clips_each_column_to_its_support():
    cleaned = TWO.clean(tf.constant([[-9.0, 0.0], [2.0, 5.0], [9.0, 99.0]]))
    np.testing.assert_allclose(cleaned, [[-2.0, 0.1], [2.0, 5.0], [6.0, 10.0]])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_clean_gives_a_bad_value_its_default_and_spares_the_rest(bad):
    cleaned = TWO.clean(tf.constant([[2.0, 5.0], [bad, 5.0], [2.0, bad]]))
    np.testing.assert_allclose(cleaned, [[2.0, 5.0], [1.0, 5.0], [2.0, 0.1]])


def test_scale_maps_each_column_by_its_own_support():
    scaled = TWO.scale(tf.constant([[-2.0, 10.0], [2.0, 1.0], [6.0, 0.1]]))
    np.testing.assert_allclose(
        scaled, [[-1.0, 1.0], [0.0, 0.0], [1.0, -1.0]], atol=1e-6
    )


def test_sample_draws_each_column_by_its_own_seed():
    seeds = tf.constant([[1, 2], [3, 4]])
    gamma = TWO.sample(5, tf.unstack(seeds))
    glimpse, _, entropy = TWO
    np.testing.assert_array_equal(gamma[:, 0], glimpse.sample(5, seeds[0]))
    np.testing.assert_array_equal(gamma[:, 1], entropy.sample(5, seeds[1]))


def test_split_hands_constant_preferences_their_constant():
    gamma = tf.constant([[1.0, 2.0], [3.0, 4.0]])
    split = {p.name: values.numpy() for p, values in TWO.split(gamma)}
    assert list(split) == ["glimpse", "batch_entropy", "entropy"]
    np.testing.assert_array_equal(split["glimpse"], [1.0, 3.0])
    np.testing.assert_allclose(split["batch_entropy"], [0.1, 0.1])
    np.testing.assert_array_equal(split["entropy"], [2.0, 4.0])


def test_cost_is_the_sum_of_all():
    policy = Policy(
        logits=(tf.math.log([[0.5, 0.5], [0.9, 0.1]]),),
        choices=tf.constant([[0], [1]]),
        module_costs=(tf.constant([0.25, 1.0]),),
    )
    gamma = tf.constant([[2.0, 1.0], [-1.0, 10.0]])
    batch_norm = 0.7**2 + 0.3**2
    np.testing.assert_allclose(
        TWO.cost(policy, gamma),
        [
            -2.0 * 0.25 - 0.1 * batch_norm - 1.0 * 0.5,
            1.0 * 1.0 - 0.1 * batch_norm - 10.0 * 0.82,
        ],
        rtol=1e-5,
    )


def test_without_preferences_gamma_has_no_columns_and_nothing_is_paid():
    none = PreferenceCollection([])
    gamma = none.sample(3, [])
    assert gamma.shape == (3, 0)
    assert none.scale(none.clean(gamma)).shape == (3, 0)
    policy = Policy((tf.zeros([3, 2]),), tf.zeros([3, 1], tf.int32), ())
    assert not np.any(none.cost(policy, gamma))


def test_a_name_that_stands_twice_is_refused():
    with pytest.raises(ValueError, match="'glimpse' more than once"):
        PreferenceCollection([GlimpsePreference(1.0), GlimpsePreference(2.0)])
    PreferenceCollection(
        [GlimpsePreference(1.0), GlimpsePreference(2.0, name="other")]
    )


def test_what_is_not_a_preference_is_refused():
    with pytest.raises(TypeError, match="must hold Preference objects"):
        PreferenceCollection([Uniform(0.0, 1.0)])


def test_prices_are_of_the_preferences_that_charge_for_modules():
    """By hand: the support is 8 wide, and the widest spread of costs 0.4."""
    costs = [(0.1, 0.5), (0.3, 0.2, 0.0)]
    glimpse = np.array([0.1, 0.5, 0.3, 0.2, 0.0]) / (8.0 * 0.4)
    np.testing.assert_allclose(
        TWO.price_table(costs), [glimpse, np.zeros(5)], rtol=1e-6
    )


def test_the_one_that_charges_is_swept_or_the_one_given():
    entropy = EntropyPreference(Uniform(0.0, 1.0))
    glimpse = GlimpsePreference(Uniform(0.0, 1.0))
    constant = GlimpsePreference(1.0)
    both = PreferenceCollection([entropy, glimpse])
    assert both.swept() is glimpse
    assert both.swept("entropy") is entropy
    assert PreferenceCollection([constant, entropy]).swept() is entropy
    for collection, name in (
        (both, "x"),
        (PreferenceCollection([constant]), None),
        (PreferenceCollection([constant]), "glimpse"),
    ):
        with pytest.raises(ValueError, match="`preference` must be a steer"):
            collection.swept(name)


def test_each_preference_has_a_unit_of_its_own():
    class Heat(GlimpsePreference):
        def module_prices(self, module_costs):
            return [[0.0, -3.0]]

    both = PreferenceCollection(
        [
            GlimpsePreference(Uniform(-1.0, 3.0)),
            Heat(LogUniform(0.5, 8.5)),
        ]
    )
    table = both.price_table([(0.0, 0.5)])
    np.testing.assert_allclose(table, [[0.0, 1.0 / 4.0], [0.0, -1.0 / 8.0]])


@pytest.mark.parametrize(
    ("preferences", "costs"),
    [
        ([EntropyPreference(LogUniform(0.1, 10.0))], [(0.1, 0.5)]),
        ([GlimpsePreference(2.0)], [(0.1, 0.5)]),
        ([], [(0.1, 0.5)]),
    ],
)
def test_no_prices_where_no_gamma_charges_for_modules(preferences, costs):
    collection = PreferenceCollection(preferences)
    assert collection.price_table(costs) is None
    assert not collection.charging


def test_prices_may_be_an_array_and_divide_by_costs():
    class Relative(GlimpsePreference):
        def module_prices(self, module_costs):
            return np.array(module_costs) / np.max(module_costs)

    collection = PreferenceCollection([Relative(Uniform(0.0, 1.0))])
    assert [p.name for p in collection.charging] == ["relative"]
    table = collection.price_table([(0.1, 0.5)])
    np.testing.assert_allclose(table, [[0.25, 1.25]], rtol=1e-6)


def test_a_preference_without_a_list_is_refused():
    with pytest.raises(TypeError, match=r"`preferences` must be a list.*'glim"):
        PreferenceCollection(GlimpsePreference(1.0))


def test_prices_of_equal_modules_make_no_difference():
    collection = PreferenceCollection([GlimpsePreference(Uniform(-2.0, 6.0))])
    ((first, second),) = collection.price_table([(0.3, 0.3)])
    assert first == second


@pytest.mark.parametrize(
    "bad", [[[1.0]], [[1.0, 2.0], [3.0]], [[1.0, float("nan")]]]
)
def test_prices_that_do_not_fit_are_refused(bad):
    class Bad(GlimpsePreference):
        def module_prices(self, module_costs):
            return bad

    collection = PreferenceCollection([Bad(Uniform(-2.0, 6.0))])
    with pytest.raises(ValueError, match="`module_prices` of preference 'bad'"):
        collection.price_table([(0.1, 0.5)])
