"""Inputs of a Composer: one or several, by name and size, or refused."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import composer_tf as ct
from tests.two_metalayers import X, make

layers = keras.layers


def test_a_stem_may_join_several_named_inputs():
    left, right = keras.Input([2], name="left"), keras.Input([3], name="right")
    stem = keras.Model(
        {"left": left, "right": right}, layers.Concatenate()([left, right])
    )
    model = make(stem=stem, costs="macs")
    inputs = {"left": X[:, :2], "right": X}
    expected = model(inputs, gamma=1.0)
    np.testing.assert_array_equal(
        expected, model({**inputs, "gamma": np.ones(7)})
    )


def joined():
    """Two named inputs, of 2 and 3 columns."""
    left, right = keras.Input([2], name="left"), keras.Input([3], name="right")
    stem = keras.Model(
        {"left": left, "right": right}, layers.Concatenate()([left, right])
    )
    model = make(stem=stem)
    model.build({"left": (None, 2), "right": (None, 3)})
    return model


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"image": X, "gama": X[:, 0]}, r"one tensor.*\['gama', 'image'\]"),
        ({"image": X[:, :2]}, r"built for, \(None, 3\), got \(7, 2\)"),
        (X[0], r"built for, \(None, 3\), got \(3,\)"),
        (X[:, np.newaxis], r"built for, \(None, 3\), got \(7, 1, 3\)"),
    ],
)
def test_inputs_that_a_model_was_not_built_for_are_refused(inputs, message):
    model = make()
    model.build((None, 3))
    with pytest.raises(ValueError, match=message):
        model(inputs)
    with pytest.raises(ValueError, match=message):
        model.predict(inputs, verbose=0)


def test_another_size_is_refused_after_the_right_one_too():
    model = make(stem=layers.Flatten())
    model.build((None, 3, 4))
    images = np.zeros([7, 3, 4], np.float32)
    model.predict(images, verbose=0)
    # From now on Keras traces a function for images of any size.
    for size in ([7, 4, 4], [7, 3, 3]):
        with pytest.raises(tf.errors.InvalidArgumentError, match="expected"):
            model.predict(np.zeros(size, np.float32), verbose=0)
    assert model.predict(images, verbose=0).shape == model(images).shape


@pytest.mark.filterwarnings("ignore:Layer 'metalayer'.*mask")
def test_a_mask_stays_where_lengths_are_not_known_beforehand():
    embedding = layers.Embedding(9, 4, mask_zero=True)
    readers = [layers.GlobalAveragePooling1D(), layers.LSTM(4)]
    model = make(
        stem=embedding, metalayers=[ct.Metalayer(readers)], routing="dense"
    )
    model.build((None, 5))
    predict = tf.function(
        lambda words: model(words, choices=[[0], [0]]),
        input_signature=[tf.TensorSpec([None, None], tf.int32)],
    )
    words = tf.constant([[1, 2, 0, 0, 0], [3, 4, 5, 0, 0]])
    of_words = embedding.get_weights()[0]
    means = [of_words[1:3].mean(axis=0), of_words[3:6].mean(axis=0)]
    np.testing.assert_allclose(predict(words), means, atol=1e-6)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["left", "right", "gama"], r"\['gama', 'left', 'right'\]"),
        (["left", "rigth", "gamma"], r"\['left', 'rigth'\]"),
        (["left"], r"\['left'\]"),
    ],
)
def test_inputs_of_other_names_are_refused(names, message):
    columns = [X[:, :2], X, X[:, 0]]
    inputs = dict(zip(names, columns, strict=False))
    message = rf"mapping of \['left', 'right'\].*'gamma'.*got {message}"
    with pytest.raises(ValueError, match=message):
        joined()(inputs)


def test_named_inputs_are_not_one_tensor():
    with pytest.raises(ValueError, match="must be a mapping"):
        joined()(X)


def test_a_stem_may_make_one_size_of_many():
    model = ct.Composer(
        [ct.Metalayer([layers.Conv2D(2, 3), layers.Conv2D(2, 3)])],
        stem=layers.Resizing(6, 6),
    )
    model.build((None, 9, 9, 1))
    assert model(np.zeros([2, 12, 12, 1], "float32")).shape == (2, 4, 4, 2)


def test_images_of_another_size_are_refused():
    model = ct.Composer(
        [
            ct.Metalayer([layers.Conv2D(2, 3), layers.Conv2D(2, 3)]),
            layers.GlobalAveragePooling2D(),
        ],
        stem=layers.Conv2D(2, 1),
    )
    model.build((None, 9, 9, 1))
    with pytest.raises(ValueError, match=r"\(None, 9, 9, 1\), got .*12, 12"):
        model.predict(np.zeros([2, 12, 12, 1], "float32"), verbose=0)
