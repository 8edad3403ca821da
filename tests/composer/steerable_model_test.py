"""`predict` and `evaluate` at a given gamma and decision."""

import copy
import pickle
import threading
from concurrent import futures

import keras
import numpy as np
import pytest
import tensorflow as tf

import composer_tf as ct

layers = keras.layers
X = np.random.default_rng(0).normal(size=[10, 4]).astype("float32")
Y = np.arange(10) % 3


@pytest.fixture(name="model")
def _model():
    model = ct.Composer(
        [ct.Metalayer([layers.Dense(3), layers.Dense(3), layers.Dense(3)])],
        preferences=[
            ct.GlimpsePreference(ct.Uniform(-2.0, 6.0)),
        ],
        seed=0,
    )
    model.compile("sgd", metrics=["accuracy"])
    return model


def with_two_gammas():
    return ct.Composer(
        [ct.Metalayer([layers.Dense(3), layers.Dense(3)])],
        preferences=[
            ct.GlimpsePreference(ct.Uniform(-2.0, 6.0)),
            ct.EntropyPreference(ct.LogUniform(0.01, 1.0)),
        ],
    )


def test_predict_equals_the_call_at_every_gamma(model):
    for gamma in (-2.0, 0.5, 6.0):
        np.testing.assert_allclose(
            model.predict(X, gamma=gamma, batch_size=4, verbose=0),
            model(X, gamma=gamma),
            atol=1e-6,
        )


def test_gamma_is_back_at_its_default_afterwards(model):
    before = model.predict(X, verbose=0)
    model.predict(X, gamma=6.0, verbose=0)
    np.testing.assert_array_equal(before, model.predict(X, verbose=0))
    with pytest.raises(ValueError, match="Unrecognized data type"):
        model.predict(object(), gamma=6.0, verbose=0)
    np.testing.assert_array_equal(before, model.predict(X, verbose=0))


def test_threads_get_the_answers_of_their_own_gamma(model):
    gammas = (-2.0, None, 6.0)
    expected = [model.predict(X, gamma=gamma, verbose=0) for gamma in gammas]
    assert not np.allclose(expected[0], expected[2])
    assert not np.allclose(expected[1], expected[2])
    together = threading.Barrier(len(gammas))

    def predict(gamma):
        together.wait()
        return [
            model.predict(X, batch_size=1, gamma=gamma, verbose=0)
            for _ in range(5)
        ]

    with futures.ThreadPoolExecutor(len(gammas)) as pool:
        given = list(pool.map(predict, gammas))
    for outputs, wanted in zip(given, expected, strict=True):
        for output in outputs:
            np.testing.assert_allclose(output, wanted, atol=1e-6)


def test_copies_are_steered_by_themselves(model, tmp_path):
    expected = model.predict(X, gamma=6.0, verbose=0)
    model.save(tmp_path / "model.keras")
    clone = keras.models.clone_model(model)
    clone.build(model.build_shape)
    clone.set_weights(model.get_weights())
    for other in (
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
        keras.models.load_model(tmp_path / "model.keras"),
        clone,
    ):
        np.testing.assert_allclose(
            other.predict(X, gamma=6.0, verbose=0), expected, atol=1e-6
        )


def test_one_gamma_per_example(model):
    gamma = np.linspace(-2.0, 6.0, 10).astype("float32")
    expected = model(X, gamma=gamma)
    given = model.predict(X, gamma=gamma, batch_size=4, verbose=0)
    np.testing.assert_allclose(given, expected, atol=1e-6)
    mapping = {"image": X, "gamma": gamma}
    np.testing.assert_allclose(
        model.predict(mapping, batch_size=4, verbose=0), expected, atol=1e-6
    )
    logs = model.evaluate(X, Y, gamma=gamma, verbose=0, return_dict=True)
    hits = np.argmax(expected, axis=-1) == Y
    assert logs["accuracy"] == pytest.approx(np.mean(hits))


@pytest.mark.parametrize(
    "gamma",
    [1.0, np.float32(1.0), tf.constant(1.0), {"glimpse": 1.0}, [1.0, 6.0] * 5],
    ids=["number", "array", "tensor", "by name", "list"],
)
def test_gamma_among_the_inputs_may_have_any_form(model, gamma):
    inputs = {"image": X, "gamma": gamma}
    expected = model(X, gamma=gamma)
    np.testing.assert_array_equal(model(inputs), expected)
    np.testing.assert_allclose(
        model.predict(inputs, batch_size=4, verbose=0), expected, atol=1e-6
    )
    logs = model.evaluate(inputs, Y, verbose=0, return_dict=True)
    hits = np.argmax(expected, axis=-1) == Y
    assert logs["accuracy"] == pytest.approx(np.mean(hits))
    history = model.fit(inputs, Y, validation_data=(inputs, Y), verbose=0)
    assert np.isfinite(history.history["val_loss"]).all()


def test_training_takes_one_vector_of_several_gammas():
    model = with_two_gammas()
    model.compile("sgd")
    inputs = {"image": X, "gamma": np.float32([1.0, 0.5])}
    history = model.fit(inputs, Y, validation_data=(inputs, Y), verbose=0)
    wanted = model.evaluate(X, Y, gamma=[1.0, 0.5], verbose=0, return_dict=True)
    assert history.history["val_reward"] == pytest.approx([wanted["reward"]])
    short = {"image": X, "gamma": np.zeros([3, 2], np.float32)}
    with pytest.raises(ValueError, match="one per example, 10 of them"):
        model.fit(short, Y, verbose=0)


def test_inputs_of_unequal_lengths_are_refused(model):
    inputs = {"image": X, "sound": X[:3], "gamma": 1.0}
    message = r"one row for each.*\(10, 4\).*\(3, 4\)"
    with pytest.raises(ValueError, match=message):
        model.predict(inputs, verbose=0)


def test_data_sets_are_steered_by_one_gamma(model):
    data = tf.data.Dataset.from_tensor_slices(X).batch(4)
    np.testing.assert_allclose(
        model.predict(data, gamma=6.0, verbose=0),
        model(X, gamma=6.0),
        atol=1e-6,
    )
    with pytest.raises(ValueError, match="needs `x` as an array"):
        model.predict(data, gamma=np.zeros(10), verbose=0)


def test_a_gamma_given_to_evaluate_wins_over_the_data_sets(model):
    inputs = {"image": X, "gamma": np.full(len(X), -2.0, "float32")}
    data = tf.data.Dataset.from_tensor_slices((inputs, Y)).batch(4)
    options = {"verbose": 0, "return_dict": True}
    at_six = model.evaluate(X, Y, gamma=6.0, **options)
    at_low = model.evaluate(data, **options)
    assert at_six["entropy"] != pytest.approx(at_low["entropy"], rel=1e-4)
    steered = model.evaluate(data, gamma=6.0, **options)
    assert steered["entropy"] == pytest.approx(at_six["entropy"], rel=1e-5)
    only_inputs = data.map(lambda inputs, labels: inputs)
    np.testing.assert_allclose(
        model.predict(only_inputs, gamma=6.0, verbose=0),
        model(X, gamma=6.0),
        atol=1e-6,
    )


def test_predict_returns_whole_compositions_of_unlabeled_data(model):
    gamma = np.linspace(-2.0, 6.0, len(X), dtype="float32")
    wanted = model(X, gamma=gamma, return_composition=True)
    answer = model.predict(
        X, gamma=gamma, batch_size=4, return_composition=True, verbose=0
    )
    assert len({tuple(c) for c in answer.policy.choices.tolist()}) > 1
    for actual, expected in zip(
        tf.nest.flatten(answer), tf.nest.flatten(wanted), strict=True
    ):
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(answer.cost, wanted.cost, rtol=1e-6)
    # Outputs alone are what it returns again.
    outputs = model.predict(X, gamma=gamma, verbose=0)
    np.testing.assert_allclose(outputs, answer.outputs, atol=1e-6)


def test_a_composition_holds_the_guesses_of_probes():
    model = ct.Composer(
        [ct.Metalayer([layers.Dense(3), layers.Dense(3)])],
        controller=ct.RNNController(4, probe=True),
    )
    wanted = model(X, return_composition=True)
    answer = model.predict(X, return_composition=True, verbose=0)
    for actual, expected in zip(answer.guesses, wanted.guesses, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-6)


class Batches(keras.utils.PyDataset):
    """Two batches of what it is given."""

    def __init__(self, inputs):
        super().__init__()
        self.inputs = inputs

    def __len__(self):
        return 2

    def __getitem__(self, index):
        rows = slice(5 * index, 5 * index + 5)
        return keras.tree.map_structure(lambda x: x[rows], self.inputs), Y[rows]


def test_a_gamma_that_is_given_wins_over_a_generators(model):
    inputs = {"image": X, "gamma": np.full(len(X), -2.0, "float32")}
    batches = Batches(inputs)
    generator = (batches[i] for i in range(2))
    expected = model(X, gamma=6.0)
    given = model.predict(generator, gamma=6.0, steps=2, verbose=0)
    np.testing.assert_allclose(given, expected, atol=1e-6)
    given = model.predict(Batches(X), gamma=6.0, verbose=0)
    np.testing.assert_allclose(given, expected, atol=1e-6)
    given = model.predict(batches, gamma=6.0, verbose=0)
    np.testing.assert_allclose(given, expected, atol=1e-6)
    of_data = model.predict(batches, verbose=0)
    np.testing.assert_allclose(of_data, model(X, gamma=-2.0), atol=1e-6)


def test_a_gamma_that_is_given_wins_over_that_of_lists(model):
    class Lists(Batches):  # Keras takes a list for a batch, too.
        def __getitem__(self, index):
            return list(super().__getitem__(index))

    batches = Lists({"image": X, "gamma": np.full(len(X), 6.0, "float32")})
    for gamma in (None, -2.0, 2.0):
        steered = model.evaluate(
            batches, gamma=gamma, verbose=0, return_dict=True
        )
        wanted = model.evaluate(
            X,
            Y,
            gamma=6.0 if gamma is None else gamma,
            batch_size=5,
            verbose=0,
            return_dict=True,
        )
        assert steered["cost"] == pytest.approx(wanted["cost"])


def test_gamma_may_be_a_positional_argument(model):
    np.testing.assert_array_equal(
        model(X, tf.constant(6.0)), model(X, gamma=6.0)
    )


def test_a_functional_model_hands_gamma_on_by_name(model):
    image, gamma = keras.Input([4]), keras.Input([])
    by_name = keras.Model(
        [image, gamma], model(image, gamma={"glimpse": gamma})
    )
    gammas = np.linspace(-2.0, 6.0, len(X)).astype("float32")
    np.testing.assert_allclose(
        by_name([X, gammas]), model(X, gamma=gammas), atol=1e-6
    )


def test_gamma_of_the_wrong_length_is_refused(model):
    with pytest.raises(ValueError, match="10 of them"):
        model.predict(X, gamma=np.zeros(3), verbose=0)
    with pytest.raises(ValueError, match="finite"):
        model.predict(X, gamma=np.nan, verbose=0)
    with pytest.raises(ValueError, match="'speed'"):
        model.predict(X, gamma={"speed": 1.0}, verbose=0)
    with pytest.raises(ValueError, match="10 of them as in 'image', got 3"):
        model.predict({"image": X, "gamma": np.zeros(3)}, verbose=0)


def test_a_sample_on_request(model):
    rows = np.repeat(X[:1], 200, axis=0)
    by_mode = model.predict(rows, verbose=0)
    assert len(np.unique(by_mode[:, 0])) == 1
    by_sample = model.predict(rows, decision="sample", verbose=0)
    assert len(np.unique(by_sample[:, 0].round(5))) == 3
    np.testing.assert_array_equal(by_mode, model.predict(rows, verbose=0))
    with pytest.raises(ValueError, match="`decision`"):
        model.predict(rows, decision="best", verbose=0)


def test_several_gammas_per_example():
    model = with_two_gammas()
    gamma = np.stack([np.linspace(-2, 6, 10), np.linspace(0.1, 1, 10)], -1)
    expected = model(X, gamma=gamma.astype("float32"))
    np.testing.assert_allclose(
        model.predict(X, gamma=gamma, verbose=0), expected, atol=1e-6
    )
    by_name = {"glimpse": gamma[:, 0], "entropy": gamma[:, 1]}
    np.testing.assert_allclose(
        model.predict(X, gamma=by_name, verbose=0), expected, atol=1e-6
    )


def test_a_call_within_another_changes_nothing_for_it(model):
    """As a callback makes, or another thread."""
    expected = model.evaluate(X, Y, gamma=6.0, batch_size=2, verbose=0)
    plain = model.predict(X, verbose=0)
    steered = model.predict(X, gamma=-2.0, verbose=0)
    seen = []

    def on_batch(batch, logs):
        seen.append(model(X))
        seen.append(model.predict_on_batch(X))  # Its decision is the mode.
        np.testing.assert_array_equal(
            model.predict_on_batch(X, gamma=-2.0), steered
        )

    callback = keras.callbacks.LambdaCallback()
    callback.on_test_batch_end = on_batch
    actual = model.evaluate(
        X, Y, gamma=6.0, batch_size=2, verbose=0, callbacks=[callback]
    )
    np.testing.assert_allclose(actual, expected, rtol=1e-6)
    model.evaluate(X, Y, decision="sample", verbose=0, callbacks=[callback])
    for answer in seen:
        np.testing.assert_allclose(answer, plain, atol=1e-6)


def test_each_decision_is_traced_once():
    traced = []

    class Counting(layers.Dense):
        def call(self, inputs):
            traced.append(inputs.shape)
            return super().call(inputs)

    model = ct.Composer([ct.Metalayer([Counting(3), layers.Dense(3)])])
    model.compile("sgd")
    for decision in ("mode", "sample"):
        model.predict(X, decision=decision, verbose=0)
    once = len(traced)
    for decision in ("sample", "mode", "sample"):
        model.predict(X, decision=decision, verbose=0)
    assert len(traced) == once
    model.compile("sgd")
    model.predict(X, decision="sample", verbose=0)
    assert len(traced) > once
