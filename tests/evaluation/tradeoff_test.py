import csv
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

import composer_tf as ct
from composer_tf.evaluation import (
    Point,
    accuracy_at_cost,
    evaluate_random_mixture,
    evaluate_tradeoff,
    gamma_grid,
    write_csv,
)

N, BATCH, CLASSES = 300, 128, 4


@pytest.fixture
def eagerly():
    """Spares the tracing, which is most of the time here."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def dense_module(units):
    layers = keras.layers
    return keras.Sequential(
        [layers.Dense(units, "relu"), layers.Dense(CLASSES)]
    )


def random_model(num_metalayers=1, gamma=None):
    """Random weights; the dearest module stands in the middle."""
    model = ct.Composer(
        [
            ct.Metalayer([dense_module(units) for units in (4, 16, 8)])
            for _ in range(num_metalayers)
        ],
        controller=ct.RNNController(units=8),
        routing="dense",  # Quicker to trace, here.
        preferences=[
            ct.GlimpsePreference(gamma or ct.Uniform(-2.0, 6.0)),
            ct.EntropyPreference(ct.Uniform(0.0, 1.0)),
        ],
    )
    model.compile(metrics=["accuracy"])
    model(tf.zeros([1, 5]))
    for weight in model.trainable_variables:
        weight.assign(keras.random.normal(weight.shape, stddev=0.7))
    return model


def random_data(batch_size=BATCH):
    """Inputs, labels, and both in batches of which the last is smaller."""
    random = np.random.default_rng(1)
    inputs = random.normal(size=[N, 5]).astype(np.float32)
    labels = random.integers(0, CLASSES, N)
    data = tf.data.Dataset.from_tensor_slices((inputs, labels))
    return inputs, labels, data.batch(batch_size)


def forced_accuracy(model, inputs, labels, modules):
    """Of one path for all examples, and without the Composer's routing."""
    activations = inputs
    for metalayer, module in zip(model.metalayers, modules, strict=True):
        activations = metalayer.modules[module](activations)
    return np.mean(np.argmax(activations, axis=-1) == labels)


def path_cost(model, modules):
    """Parameters that a path uses, as a fraction of the dearest path's."""
    dearest = [1] * len(modules)

    def parameters(path):
        return model.controller.count_params() + sum(
            metalayer.modules[module].count_params()
            for metalayer, module in zip(model.metalayers, path, strict=True)
        )

    return parameters(modules) / parameters(dearest)


def test_tradeoff_is_what_evaluate_measures_at_each_gamma():
    model = random_model(num_metalayers=2)
    *_, data = random_data()
    gammas = [-2.0, 0.0, 3.0, 6.0]
    points = evaluate_tradeoff(model, data, gammas)
    assert [(p.method, p.gamma) for p in points] == [
        ("composer", gamma) for gamma in gammas
    ]
    for point in points:
        expected = model.evaluate(
            data, gamma={"glimpse": point.gamma}, verbose=0, return_dict=True
        )
        assert point.accuracy == pytest.approx(expected["accuracy"])
        assert point.cost == pytest.approx(expected["cost"])
    assert len({point.cost for point in points}) > 1  # Else it shows nothing.


@pytest.mark.usefixtures("eagerly")
def test_tradeoff_follows_another_preference():
    model = random_model()
    *_, data = random_data()
    (point,) = evaluate_tradeoff(model, data, [0.75], preference="entropy")
    expected = model.evaluate(
        data, gamma={"entropy": 0.75}, verbose=0, return_dict=True
    )
    assert point.accuracy == pytest.approx(expected["accuracy"])
    assert point.cost == pytest.approx(expected["cost"])


@pytest.mark.usefixtures("eagerly")
def test_tradeoff_follows_the_preference_that_is_calibrated():
    module = keras.layers.Dense
    model = ct.Composer(
        [ct.Metalayer([module(CLASSES), module(CLASSES)])],
        preferences=[
            ct.EntropyPreference(ct.Uniform(0.0, 1.0)),
            ct.GlimpsePreference(ct.Uniform(-2.0, 6.0)),
        ],
    )
    data = tf.data.Dataset.from_tensors((tf.ones([4, 2]), [1] * 4))
    points = evaluate_tradeoff(model, data)
    calibration = model.calibrate(data, num_gammas=2)
    assert calibration.preference == "glimpse"
    assert points[0].gamma == calibration.gammas[0] == -2.0
    assert points[-1].gamma == calibration.gammas[-1] == 6.0


def test_tradeoff_spans_the_support_by_default():
    *_, data = random_data()
    points = evaluate_tradeoff(random_model(), data.take(1))
    expected = np.linspace(-2.0, 6.0, 17)
    np.testing.assert_allclose([point.gamma for point in points], expected)


@pytest.mark.usefixtures("eagerly")
def test_tradeoff_does_not_depend_on_the_batches():
    model = random_model()
    *_, small = random_data(batch_size=110)
    *_, whole = random_data(batch_size=N)
    (one,), (other,) = (
        evaluate_tradeoff(model, data, [1.0]) for data in (small, whole)
    )
    assert one.accuracy == pytest.approx(other.accuracy)
    assert one.cost == pytest.approx(other.cost)


@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize("as_given", [lambda x: x, lambda x: {"image": x}])
def test_arrays_are_measured_as_their_batches_are(as_given):
    model = random_model()
    inputs, labels, data = random_data()
    pair = (as_given(inputs), labels.tolist())
    assert evaluate_tradeoff(model, pair, [1.0]) == evaluate_tradeoff(
        model, data, [1.0]
    )
    assert evaluate_random_mixture(model, pair, [0.5]) == (
        evaluate_random_mixture(model, data, [0.5])
    )


@pytest.mark.usefixtures("eagerly")
def test_labels_may_have_an_axis_of_their_own():
    model = random_model()
    inputs, labels, data = random_data(batch_size=100)
    column = tf.data.Dataset.from_tensor_slices(
        (inputs, labels[:, np.newaxis])
    ).batch(100)
    assert evaluate_tradeoff(model, column, [1.0]) == evaluate_tradeoff(
        model, data, [1.0]
    )


@pytest.mark.usefixtures("eagerly")
def test_measuring_leaves_the_model_as_it_is():
    model = random_model()
    inputs, _, data = random_data()
    before = model(inputs)
    evaluate_tradeoff(model, data, [6.0])
    evaluate_random_mixture(model, data, [0.5])
    np.testing.assert_array_equal(model(inputs), before)


def test_mixture_of_all_or_nothing_is_the_dearest_or_cheapest_path():
    model = random_model(num_metalayers=2)
    inputs, labels, data = random_data()
    cheap, dear = evaluate_random_mixture(model, data, [0.0, 1.0])
    for point, modules in ((cheap, (0, 0)), (dear, (1, 1))):
        accuracy = forced_accuracy(model, inputs, labels, modules)
        assert point.accuracy == pytest.approx(accuracy)
        assert point.cost == pytest.approx(path_cost(model, modules))
    assert [cheap.gamma, dear.gamma] == [0.0, 1.0]
    assert cheap.method == "random_mixture"


@pytest.mark.usefixtures("eagerly")
def test_mixture_in_between_is_linear_in_the_share():
    model = random_model()
    inputs, labels, data = random_data()
    cheap = forced_accuracy(model, inputs, labels, [0])
    dear = forced_accuracy(model, inputs, labels, [1])
    least = path_cost(model, [0])
    for point in evaluate_random_mixture(model, data, [0.25, 0.5, 0.75]):
        share = point.gamma
        # Of a mean of N binary choices.
        deviation = math.sqrt(share * (1.0 - share) / N)
        cost = (1.0 - share) * least + share
        accuracy = (1.0 - share) * cheap + share * dear
        assert point.cost == pytest.approx(
            cost, abs=5.0 * deviation * (1.0 - least)
        )
        assert point.accuracy == pytest.approx(accuracy, abs=5.0 * deviation)
        assert least < point.cost < 1.0


def number_of_the_path():
    """A model of input 0 whose class is the number c_1 + 2 c_2 of its path."""
    numbers = np.arange(4.0)
    add = [keras.layers.Rescaling(1.0, offset) for offset in (0, 1, 0, 2)]
    nearest = keras.layers.Dense(4)  # 2 x k - k^2 is largest at k = x.
    model = ct.Composer(
        [ct.Metalayer(add[:2]), ct.Metalayer(add[2:]), nearest],
        costs=[[0.0, 1.0], [0.0, 1.0]],
        routing="dense",
    )
    model(tf.zeros([1, 1]))
    nearest.set_weights([2.0 * numbers[np.newaxis], -(numbers**2)])
    return model


@pytest.mark.usefixtures("eagerly")
def test_mixture_chooses_anew_at_each_metalayer():
    model, share = number_of_the_path(), 0.3
    inputs = tf.zeros([N, 1])
    for number, expected in enumerate([0.7 * 0.7, 0.3 * 0.7, 0.7 * 0.3, 0.09]):
        data = tf.data.Dataset.from_tensors((inputs, tf.fill([N], number)))
        (point,) = evaluate_random_mixture(model, data, [share])
        deviation = math.sqrt(expected * (1.0 - expected) / N)
        assert point.accuracy == pytest.approx(expected, abs=5.0 * deviation)


@pytest.mark.usefixtures("eagerly")
def test_mixture_follows_its_seed():
    model = random_model()
    *_, data = random_data()
    first, again, other = (
        evaluate_random_mixture(model, data, [0.5], seed=seed)
        for seed in (3, 3, 4)
    )
    assert first == again
    assert first != other


@pytest.mark.parametrize("share", [-0.1, 1.1, math.nan])
def test_mixture_refuses_a_share_that_is_none(share):
    *_, data = random_data()
    with pytest.raises(ValueError, match=f"`shares`.*{share}"):
        evaluate_random_mixture(random_model(), data, [0.5, share])


def test_unknown_preference_is_named():
    model = random_model()
    *_, data = random_data()
    with pytest.raises(ValueError, match=r"`preference`.*'typo'"):
        evaluate_tradeoff(model, data, preference="typo")
    with pytest.raises(ValueError, match=r"`preference`.*'typo'"):
        gamma_grid(model, "typo", 3)


def test_a_model_that_cannot_be_steered_is_refused():
    model = ct.Composer([ct.Metalayer([dense_module(2), dense_module(3)])])
    *_, data = random_data()
    with pytest.raises(ValueError, match="`preference`"):
        evaluate_tradeoff(model, data)


def test_accuracy_at_cost_is_the_best_that_is_affordable():
    points = [
        Point("composer", 2.0, 0.2, 0.6),
        Point("composer", 1.0, 0.4, 0.9),
        Point("composer", 0.0, 0.6, 0.8),
    ]
    assert accuracy_at_cost(points, 0.2) == 0.6
    assert accuracy_at_cost(points, 0.39) == 0.6
    assert accuracy_at_cost(points, 1.0) == 0.9
    assert accuracy_at_cost(points, 0.1) is None
    assert accuracy_at_cost([], 1.0) is None


def test_gamma_grid_spans_the_support():
    assert gamma_grid(random_model(), "glimpse", 5) == [-2, 0, 2, 4, 6]
    assert gamma_grid(random_model(), "entropy", 3) == [0.0, 0.5, 1.0]
    model = random_model(gamma=ct.LogUniform(1e-4, 10.0))
    np.testing.assert_allclose(
        gamma_grid(model, "glimpse", 6), [1e-4, 1e-3, 0.01, 0.1, 1.0, 10.0]
    )


def test_csv_round_trip(tmp_path):
    points = [
        Point("composer", -2.0, 1 / 3, 0.1),
        Point("random_mixture", 0.0, 1e-9, 1.0),
    ]
    write_csv(points, tmp_path / "points.csv")
    with open(tmp_path / "points.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["method", "gamma", "cost", "accuracy"]
    numbers = ("gamma", "cost", "accuracy")
    assert points == [
        Point(row["method"], *(float(row[name]) for name in numbers))
        for row in rows
    ]


def test_labels_that_the_model_has_no_class_for_are_refused():
    x = np.zeros([4, 5], np.float32)
    data = tf.data.Dataset.from_tensors((x, [0, 1, 2, CLASSES]))
    with pytest.raises(ValueError, match=r"labels from 0 to 4.*4 classes"):
        evaluate_tradeoff(random_model(), data, gammas=[0.0])


def test_sample_weights_beside_the_labels_are_not_used():
    model = random_model()
    *_, data = random_data()
    weighted = data.map(lambda x, y: (x, y, tf.zeros(tf.shape(y)[0])))
    gammas = [-2.0, 6.0]
    assert ct.evaluate_tradeoff(model, weighted, gammas) == (
        ct.evaluate_tradeoff(model, data, gammas)
    )


def test_data_that_cannot_be_measured_is_refused():
    model = random_model()
    *_, data = random_data()
    with pytest.raises(ValueError, match="must not be a generator"):
        ct.evaluate_tradeoff(model, (batch for batch in data))
    with pytest.raises(ValueError, match=r"batches of \(inputs, labels\)"):
        ct.evaluate_tradeoff(model, data.map(lambda x, y: x))
