"""The Composer as a function: composition, gamma, choices, errors."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import composer_tf as ct
from tests.two_metalayers import X, make

layers = keras.layers


def two_gammas(**options):
    return make(
        preferences=[
            ct.GlimpsePreference(ct.Uniform(-2.0, 6.0)),
            ct.EntropyPreference(ct.Uniform(0.0, 1.0), default=0.5),
            ct.BatchEntropyPreference(0.1),
        ],
        **options,
    )


@pytest.mark.parametrize("routing", ["dense", "partition"])
def test_composes_the_chosen_modules_of_each_example(routing):
    model = make(routing=routing)
    choices = np.array([[0, 0], [1, 2], [0, 1], [1, 1], [0, 2], [1, 0], [0, 0]])
    outputs = model(X, choices=choices)
    first, fixed, last = model.metalayers
    for row, (i, j) in enumerate(choices):
        expected = last.modules[j](fixed(first.modules[i](X[row : row + 1])))
        np.testing.assert_allclose(outputs[row], expected[0], atol=1e-6)


def test_a_choice_of_minus_one_asks_the_controller():
    model = make()
    free = model(X, return_composition=True).policy.choices
    half = np.full([7, 2], -1)
    half[:, 0] = 1 - free[:, 0]
    forced = model(X, choices=half, return_composition=True).policy.choices
    np.testing.assert_array_equal(forced[:, 0], half[:, 0])
    assert np.all(forced[:, 1] >= 0)


def test_the_mode_takes_the_likeliest_module():
    policy = make()(X, return_composition=True).policy
    for i, logits in enumerate(policy.logits):
        np.testing.assert_array_equal(
            policy.choices[:, i], np.argmax(logits, axis=-1)
        )


def test_samples_follow_the_policy():
    model = make()
    rows = tf.repeat(X[:1], 20000, axis=0)
    policy = model(rows, decision="sample", return_composition=True).policy
    frequency = np.mean(policy.choices[:, 0])
    expected = policy.probabilities[0][0, 1]
    assert abs(frequency - expected) < 4 * np.sqrt(0.25 / 20000)


def test_paths_of_one_example_are_sampled_independently():
    policy = make()(
        tf.repeat(X[:1], 500, axis=0),
        decision="sample",
        paths=[(-1,) * 2] * 2,
        return_composition=True,
    ).policy
    first, second = np.split(policy.choices.numpy()[:, 0], 2)
    assert 0 < np.mean(first == second) < 1


def test_gamma_may_be_an_argument_an_input_or_a_default():
    model = make()
    by_argument = model(X, gamma=2.0)
    np.testing.assert_array_equal(by_argument, model(X, gamma=[2.0] * 7))
    mapping = {"image": X, "gamma": np.full([7], 2.0, "float32")}
    np.testing.assert_array_equal(by_argument, model(mapping))
    np.testing.assert_array_equal(
        by_argument, model({**mapping, "gamma": np.zeros(7)}, gamma=2.0)
    )
    np.testing.assert_array_equal(model(X), model(X, gamma=0.0))


def test_each_example_is_steered_by_its_own_gamma():
    model = make()
    gammas = np.linspace(-2.0, 6.0, 7).astype("float32")
    together = model(X, gamma=gammas, return_composition=True).policy.logits[0]
    for row, gamma in enumerate(gammas):
        alone = model(X[row : row + 1], gamma=gamma, return_composition=True)
        np.testing.assert_allclose(
            together[row], alone.policy.logits[0][0], atol=1e-6
        )


def test_gamma_outside_the_support_is_clipped():
    model = make()
    for given, used in [(100.0, 6.0), (-100.0, -2.0)]:
        composition = model(X, gamma=given, return_composition=True)
        np.testing.assert_array_equal(composition.gamma, np.full([7, 1], used))


def test_nan_in_one_row_of_gamma_harms_no_other_row():
    model = make()
    gamma = tf.constant([1.0, np.nan, 1.0, np.inf, 1.0, 1.0, 1.0])
    run = tf.function(lambda g: model(X, gamma=g, return_composition=True))
    np.testing.assert_array_equal(
        run(gamma).gamma[:, 0], [1.0, 0.0, 1.0, 0.0, 1.0, 1.0, 1.0]
    )


def test_several_gammas_are_a_vector_or_a_mapping():
    model = two_gammas()
    by_vector = model(X, gamma=[1.0, 0.25], return_composition=True).gamma
    by_name = model(
        X,
        gamma={"entropy": np.full([7], 0.25), "glimpse": 1.0},
        return_composition=True,
    ).gamma
    np.testing.assert_array_equal(by_vector, np.tile([1.0, 0.25], [7, 1]))
    np.testing.assert_array_equal(by_vector, by_name)
    left_out = model(X, gamma={"glimpse": 1.0}, return_composition=True).gamma
    np.testing.assert_array_equal(left_out, np.tile([1.0, 0.5], [7, 1]))


@pytest.mark.parametrize(
    ("gamma", "message"),
    [
        (1.0, "entropy"),
        ([1.0, 2.0, 3.0], "entropy"),
        ([[1.0, 2.0]] * 3, "one per example, 7"),
        ({"speed": 1.0}, "speed"),
        ([np.nan, 0.0], "finite"),
        ({"glimpse": np.inf}, "finite"),
    ],
)
def test_a_gamma_that_does_not_fit_is_refused(gamma, message):
    with pytest.raises(ValueError, match=message):
        two_gammas()(X, gamma=gamma)


def test_gamma_is_refused_where_nothing_is_steered():
    model = make(preferences=[ct.BatchEntropyPreference(0.1)])
    assert model(X).shape == (7, 4)
    with pytest.raises(ValueError, match="no preference"):
        model(X, gamma=1.0)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"metalayers": []}, ValueError, "at least one Metalayer"),
        ({"metalayers": [layers.Dense(2)]}, ValueError, "at least one Meta"),
        ({"metalayers": ["dense"]}, TypeError, "metalayers"),
        (
            {"metalayers": ct.Metalayer([layers.Dense(2)], name="only")},
            TypeError,
            "`metalayers` must be a list.*'only'",
        ),
        ({"estimator": "ppo"}, ValueError, "estimator"),
        ({"routing": "random"}, ValueError, "routing"),
        ({"decision": "best"}, ValueError, "decision"),
        ({"costs": "flops"}, ValueError, "costs"),
        ({"costs": [[1.0, 2.0]]}, ValueError, "costs"),
        (
            {"preferences": [ct.EntropyPreference(0.1)] * 2},
            ValueError,
            "'entropy' more than once",
        ),
        ({"preferences": ["glimpse"]}, TypeError, "Preference"),
        ({"controller": "rnn"}, TypeError, "`controller`.*'rnn'"),
        ({"controller": ct.RNNController}, TypeError, "`controller`"),
    ],
)
def test_bad_arguments_are_refused_by_name(options, error, message):
    with pytest.raises(error, match=message):
        make(**options)


def test_costs_are_counted_in_any_unit():
    by_unit = {}
    for unit in ("parameters", "macs"):
        by_unit[unit] = make(costs=unit)
        by_unit[unit].build((None, 5))
    for unit, model in by_unit.items():
        assert by_unit["macs"].count_costs(unit) == model.cost_table
        assert by_unit["parameters"].count_costs(unit) == model.cost_table
    with pytest.raises(ValueError, match=r"`unit`.*'parameters'.*'flops'"):
        model.count_costs("flops")


@pytest.mark.parametrize(
    ("activation", "loss"),
    [
        ("softmax", keras.losses.SparseCategoricalCrossentropy),
        ("sigmoid", keras.losses.BinaryCrossentropy),
    ],
)
def test_modules_that_end_in_probabilities_need_their_loss(activation, loss):
    modules = [layers.Dense(1), layers.Dense(1, activation)]
    model = ct.Composer([ct.Metalayer(modules)])
    with pytest.raises(ValueError, match="takes logits"):
        model.compile("sgd", loss(from_logits=True))
    model.compile("sgd", loss())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"decision": "smaple"}, "`decision`.*'smaple'"),
        ({"choices": [[0, 0]] * 6}, "one row per example, 7, got 6"),
        ({"choices": [[0, 3]] * 7}, "`choices` must be from 0"),
        ({"choices": [0] * 7}, r"`choices` must be \[rows, 2\]"),
    ],
)
def test_bad_call_arguments_are_refused_by_name(arguments, message):
    model = make()
    with pytest.raises(ValueError, match=message):
        model(X, **arguments)


def test_choices_may_be_a_list():
    model = make()
    rows = [[1, 2]] * 7
    np.testing.assert_array_equal(
        model(X, choices=rows), model(X, choices=tf.constant(rows))
    )


def test_mixed_precision_keeps_the_policy_in_float32():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = make()
        composition = model(X, return_composition=True)
    finally:
        keras.config.set_dtype_policy("float32")
    assert composition.outputs.dtype == tf.float16
    assert {logits.dtype for logits in composition.policy.logits} == {
        tf.float32
    }
    assert composition.gamma.dtype == tf.float32


def test_a_batch_of_none_gives_an_output_of_none():
    model = make()
    model(X)
    assert model(X[:0]).shape == (0, 4)


def test_what_lies_before_the_first_choice_runs_once_for_all_paths():
    rows = []

    class Counted(keras.layers.Layer):
        def call(self, inputs):
            rows.append(inputs.shape[0])
            return inputs

    dense = keras.layers.Dense
    model = ct.Composer(
        [Counted(), ct.Metalayer([dense(4), dense(4)])], stem=Counted()
    )
    model(tf.ones([3, 5]))
    del rows[:]
    paths = [(0,), (1,), (1,)]
    outputs = model(tf.ones([3, 5]), paths=paths)
    assert rows == [3, 3]
    forced = [
        model(tf.ones([3, 5]), choices=tf.constant([path] * 3))
        for path in paths
    ]
    np.testing.assert_allclose(outputs, tf.concat(forced, axis=0), rtol=1e-6)


@pytest.mark.parametrize("traced", [False, True])
def test_bad_paths_are_refused_by_name(traced):
    model = make()
    model(X)

    def run(**arguments):
        call = lambda x: model(x, **arguments)  # noqa: E731
        return (tf.function(call) if traced else call)(tf.constant(X))

    bad = ([(5, 0)], [(0, 0), (-2, 0)], [(0,)], [(0, 0), (0,)], [(0.9, 0)])
    for paths in bad:
        with pytest.raises(ValueError, match="`paths` must be"):
            run(paths=paths)
    run(paths=[(0, 0), (-2, 0)], decision="sample")  # A uniform draw.
    with pytest.raises(ValueError, match="or -2 for any alike"):
        run(paths=[(0, 0), (-3, 0)], decision="sample")
    with pytest.raises(ValueError, match="`choices` or `paths`"):
        run(paths=[(0, 0)], choices=tf.zeros([7, 2], tf.int32))


@pytest.mark.filterwarnings("ignore:(?s).*All modules of metalayer")
def test_a_fully_convolutional_model_of_any_size_trains():
    convolution = layers.Conv2D
    model = ct.Composer(
        [ct.Metalayer([convolution(3, 1), convolution(3, 3, padding="same")])],
        preferences=[ct.GlimpsePreference(ct.Uniform(-1.0, 1.0))],
        sandwich=ct.Sandwich(distillation=1.0),
        costs=[[1.0, 2.0]],
    )
    model.compile()

    def images():
        for size in (4, 6):
            yield np.ones([2, size, size, 2]), np.zeros([2, size, size], int)

    data = tf.data.Dataset.from_generator(
        images,
        output_signature=(
            tf.TensorSpec([None, None, None, 2]),
            tf.TensorSpec([None, None, None], tf.int64),
        ),
    ).apply(tf.data.experimental.assert_cardinality(2))
    history = model.fit(data, verbose=0).history
    assert np.isfinite(history["loss"][0])
    model.evaluate(data, verbose=0)
