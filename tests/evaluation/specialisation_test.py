import keras
import numpy as np
import pytest
import tensorflow as tf

import composer_tf as ct
from composer_tf.evaluation import module_probabilities

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
        logits, state = model.controller(
            activations, choice, columns, state, index=index
        )
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


@pytest.mark.parametrize("label", [-1, CLASSES])
@pytest.mark.usefixtures("eagerly")
def test_label_out_of_range_is_refused(label):
    labels = np.zeros([N], np.int64)
    labels[-1] = label
    *_, data = random_data(labels)
    with pytest.raises(ValueError, match=rf"\[0, {CLASSES}\).*{label}"):
        module_probabilities(random_model(), data, [0.0], CLASSES)


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
