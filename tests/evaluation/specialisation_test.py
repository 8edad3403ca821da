import keras
import numpy as np
import pytest
import tensorflow as tf

import composer_tf as ct
from composer_tf.evaluation import (
    contingency,
    module_probabilities,
    mutual_information,
)

N, BATCH, CLASSES = 90, 32, 4
LOW, HIGH = -2.0, 6.0


@pytest.fixture
def eagerly():
    """Spares the tracing, which is most of the time here."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def random_model():
    """Two metalayers, of 2 and 3 modules, with random weights."""
    dense = keras.layers.Dense
    model = ct.Composer(
        [
            ct.Metalayer([dense(6) for _ in range(2)]),
            ct.Metalayer([dense(CLASSES) for _ in range(3)]),
        ],
        controller=ct.RNNController(units=8),
        routing="dense",  # Quicker to trace, here.
        preferences=[
            ct.GlimpsePreference(ct.Uniform(LOW, HIGH)),
            ct.EntropyPreference(ct.Uniform(0.0, 1.0), default=0.5),
        ],
    )
    model(tf.zeros([1, 5]))
    for weight in model.trainable_variables:
        weight.assign(keras.random.normal(weight.shape))
    return model


def random_data(labels=None):
    """Inputs, labels without 1, and both in batches."""
    random = np.random.default_rng(1)
    inputs = random.normal(size=[N, 5]).astype(np.float32)
    if labels is None:
        labels = random.choice([0, 2, 3], N)
    data = tf.data.Dataset.from_tensor_slices((inputs, labels))
    return inputs, labels, data.batch(BATCH)


def scaled(gamma, low=LOW, high=HIGH):
    return 2.0 * (gamma - low) / (high - low) - 1.0


def controller_probabilities(model, inputs, gammas):
    """The controller's answers by itself, per metalayer, `[N, m_i]`."""
    activations, choice = inputs, None
    state = model.controller.initial_state(N)
    columns = tf.tile(tf.constant([gammas], tf.float32), [N, 1])
    for index, metalayer in enumerate(model.metalayers):
        features = model.controller.observe(activations, index).features
        logits, state = model.controller(
            features, choice, columns, state, index=index
        )
        # The modules cost the same, so that gamma charges alike for all.
        logits = np.maximum(logits - np.max(logits, axis=1, keepdims=True), -4)
        exponentials = np.exp(logits)
        yield exponentials / exponentials.sum(axis=1, keepdims=True)
        choice = np.argmax(logits, axis=1).astype(np.int32)
        outputs = [module(activations).numpy() for module in metalayer.modules]
        activations = np.array(outputs)[choice, np.arange(N)]


@pytest.mark.parametrize("metalayer", [0, 1])
def test_probabilities_are_the_controllers_averaged_by_label(metalayer):
    model = random_model()
    inputs, labels, data = random_data()
    gammas = [-2.0, 1.0, 6.0]
    heatmaps = module_probabilities(
        model, data, gammas, CLASSES, metalayer=metalayer
    )
    assert heatmaps.shape == (3, CLASSES, model.num_modules[metalayer])
    for gamma, heatmap in zip(gammas, heatmaps, strict=True):
        by_step = controller_probabilities(model, inputs, [scaled(gamma), 0.0])
        probabilities = list(by_step)[metalayer]
        for label in (0, 2, 3):
            np.testing.assert_allclose(
                heatmap[label],
                probabilities[labels == label].mean(axis=0),
                rtol=1e-5,
            )
    assert not np.allclose(heatmaps[0, 0], heatmaps[2, 0])


@pytest.mark.usefixtures("eagerly")
def test_another_preference_is_steered():
    model = random_model()
    inputs, labels, data = random_data()
    heatmaps = module_probabilities(
        model, data, [1.0], CLASSES, preference="entropy"
    )
    # The glimpse preference keeps its default.
    default = scaled(float(model.preferences.default[0]))
    first, _ = controller_probabilities(model, inputs, [default, 1.0])
    np.testing.assert_allclose(
        heatmaps[0, 3], first[labels == 3].mean(axis=0), rtol=1e-5
    )


@pytest.mark.usefixtures("eagerly")
def test_rows_are_distributions_or_nan_where_a_label_is_absent():
    *_, data = random_data()
    heatmaps = module_probabilities(random_model(), data, [0.0, 2.0], CLASSES)
    assert np.isnan(heatmaps[:, 1]).all()
    np.testing.assert_allclose(heatmaps[:, [0, 2, 3]].sum(axis=-1), 1.0)


@pytest.mark.parametrize(
    ("label", "num_classes", "message"),
    [
        (-1, CLASSES, "labels from -1 to 0"),
        (CLASSES, CLASSES, f"labels from 0 to {CLASSES}"),
        (2, 2, r"\[0, 2\).*2"),
    ],
)
@pytest.mark.usefixtures("eagerly")
def test_label_out_of_range_is_refused(label, num_classes, message):
    labels = np.zeros([N], np.int64)
    labels[-1] = label
    *_, data = random_data(labels)
    with pytest.raises(ValueError, match=message):
        module_probabilities(random_model(), data, [0.0], num_classes)


def test_unknown_preference_is_named():
    *_, data = random_data()
    with pytest.raises(ValueError, match="typo"):
        module_probabilities(
            random_model(), data, [0.0], CLASSES, preference="typo"
        )


def test_a_model_that_cannot_be_steered_is_refused():
    dense = keras.layers.Dense
    model = ct.Composer([ct.Metalayer([dense(CLASSES), dense(CLASSES)])])
    *_, data = random_data()
    with pytest.raises(ValueError, match="preference"):
        module_probabilities(model, data, [0.0], CLASSES)


def test_mutual_information_is_that_of_the_table():
    """H(module) + H(label) - H(both), by hand."""
    table = np.array([[30, 10], [5, 15], [0, 40]])
    labels = np.repeat([0, 0, 1, 1, 2, 2], table.ravel())
    choices = np.repeat([3, 7, 3, 7, 3, 7], table.ravel())

    def entropy(counts):
        shares = counts[counts > 0] / counts.sum()
        return -np.sum(shares * np.log(shares))

    expected = (
        entropy(table.sum(0)) + entropy(table.sum(1)) - entropy(table.ravel())
    )
    estimate = mutual_information(choices, labels)
    assert estimate.value == pytest.approx(expected)
    assert estimate.low < estimate.value < estimate.high
    np.testing.assert_array_equal(contingency(choices, labels), table)


def test_mutual_information_of_what_is_unrelated_is_near_0():
    random = np.random.default_rng(0)
    choices, labels = random.integers(0, 4, [2, 5000])
    estimate = mutual_information(choices, labels)
    assert 0.0 <= estimate.value < 0.01


def test_the_bootstrap_interval_covers():
    """Of 40 samples of one joint distribution, about 38."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 200_000)
    choices = np.where(random.random(200_000) < 0.3, labels, 0)
    truth = mutual_information(choices, labels, num_resamples=0).value
    covered = 0
    for seed in range(40):
        rows = random.choice(200_000, 1000)
        _, low, high = mutual_information(
            choices[rows], labels[rows], 100, seed
        )
        covered += low <= truth <= high
    assert covered >= 32


@pytest.mark.parametrize(
    ("choices", "labels"), [([0, 1], [0]), ([], []), ([[0]], [[0]])]
)
def test_mutual_information_refuses_other_shapes(choices, labels):
    with pytest.raises(ValueError, match="`choices` and `labels`"):
        mutual_information(np.array(choices), np.array(labels))
