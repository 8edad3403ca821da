"""What a `Recorder` reads of a model and its data."""

import keras
import numpy as np
import pytest

import composer_tf as ct
from composer_tf.evaluation import Recorder
from tests.small_training import X, Y, compiled


def test_one_gamma_needs_no_name():
    recorder = Recorder(compiled(), (X, Y))
    for by_number, by_name in zip(
        recorder.at(1.5), recorder.at({"glimpse": 1.5}), strict=True
    ):
        np.testing.assert_array_equal(by_number, by_name)
    with pytest.raises(ValueError, match="typo"):
        recorder.at({"typo": 1.0})


def test_examples_without_a_label_are_left_out():
    loss = keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, ignore_class=-1
    )
    model = compiled(loss=loss)
    labels = np.where(np.arange(len(Y)) % 2, -1, Y)
    found = Recorder(model, (X, labels)).at(0.5)
    wanted = Recorder(model, (X[::2], Y[::2])).at(0.5)
    for some, all_known in zip(found[:-1], wanted[:-1], strict=True):
        np.testing.assert_allclose(some, all_known, rtol=1e-5, atol=1e-6)
    curve = ct.evaluate_tradeoff(model, (X, labels), [0.5])
    evaluated = model.evaluate(
        X[::2], Y[::2], gamma=0.5, verbose=0, return_dict=True
    )
    assert curve[0].cost == pytest.approx(evaluated["cost"], abs=1e-6)


def test_data_is_checked_before_it_builds_a_model():
    model = compiled()
    data = ct.datasets.batches(X, Y, 16).map(lambda x, y: x)
    with pytest.raises(ValueError, match="got inputs only"):
        Recorder(model, data)
    assert not model.built


@pytest.mark.parametrize("from_logits", [True, False])
def test_one_output_of_a_binary_classifier_is_two_classes(from_logits):
    dense = keras.layers.Dense
    activation = None if from_logits else "sigmoid"
    model = ct.Composer(
        [ct.Metalayer([dense(1, activation), dense(1, activation)])],
        preferences=[ct.GlimpsePreference(ct.Uniform(-1.0, 2.0))],
    )
    model.compile(loss=keras.losses.BinaryCrossentropy(from_logits=from_logits))
    labels = (Y > 0).astype("int32")
    found = Recorder(model, (X, labels)).at(0.5)
    threshold = 0.0 if from_logits else 0.5
    predicted = model.predict(X, gamma=0.5, verbose=0)[:, 0] > threshold
    assert 0 < predicted.sum() < len(X)
    np.testing.assert_array_equal(found.correct, predicted == labels)
    curve = ct.evaluate_tradeoff(model, (X, labels), [0.5])
    assert curve[0].accuracy == pytest.approx(found.correct.mean())


def test_one_output_of_a_regression_has_no_accuracy():
    dense = keras.layers.Dense
    model = ct.Composer([ct.Metalayer([dense(1), dense(1)])])
    model.compile(loss="mse")
    with pytest.raises(ValueError, match="trained by binary cross-entropy"):
        Recorder(model, (X, Y)).at()
