"""Truth is the Keras loss of each example in a batch of one."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from composer_tf.objectives.losses import (
    check_activation,
    check_labels,
    check_logits,
    per_example,
    probe_losses,
    takes_labels,
)

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(4, 3)).astype(np.float32)
PROBABILITIES = (np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)).astype(
    np.float32
)
LABELS = np.array([2, 0, 1, 1])
ONE_HOT = np.eye(3, dtype=np.float32)[LABELS]
MANY_HOT = np.array([[1, 1, 0], [0, 0, 0], [1, 0, 1], [1, 1, 1]], np.float32)
SEQUENCES = RNG.normal(size=(4, 6, 3)).astype(np.float32)
TAGS = RNG.integers(0, 3, size=(4, 6))
TAGS[1:3, 2:] = 1
IMAGES = RNG.uniform(size=(4, 5, 6, 2)).astype(np.float32)


def of_single_examples(loss, y_true, y_pred):
    """Of a `keras.losses.Loss`."""
    return [
        loss(y_true[i : i + 1], y_pred[i : i + 1]).numpy()
        for i in range(len(y_true))
    ]


@pytest.mark.parametrize(
    ("loss", "y_true", "y_pred"),
    [
        (
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            LABELS,
            LOGITS,
        ),
        (
            keras.losses.SparseCategoricalCrossentropy(
                from_logits=True, ignore_class=1
            ),
            LABELS,
            LOGITS,
        ),
        (
            keras.losses.SparseCategoricalCrossentropy(
                from_logits=True, ignore_class=1
            ),
            TAGS,
            SEQUENCES,
        ),
        (
            keras.losses.CategoricalCrossentropy(label_smoothing=0.1),
            ONE_HOT,
            PROBABILITIES,
        ),
        (keras.losses.BinaryCrossentropy(), MANY_HOT, PROBABILITIES),
        (keras.losses.MeanSquaredError(), MANY_HOT, LOGITS),
        (keras.losses.MeanSquaredError(), LABELS, LOGITS[:, :1]),
        (keras.losses.MeanAbsoluteError(), IMAGES[::-1], IMAGES),
        (keras.losses.Huber(delta=0.1), LABELS[:, None], LOGITS[:, :1]),
    ],
)
def test_is_the_keras_loss_of_each_example_alone(loss, y_true, y_pred):
    losses = per_example(loss)(tf.constant(y_true), tf.constant(y_pred))
    assert losses.shape == (4,)
    assert losses.dtype == tf.float32
    np.testing.assert_allclose(
        losses, of_single_examples(loss, y_true, y_pred), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize(
    ("name", "y_true", "y_pred", "expected"),
    [
        ("mse", MANY_HOT, LOGITS, np.mean((MANY_HOT - LOGITS) ** 2, axis=1)),
        (
            "MeanAbsoluteError",
            MANY_HOT,
            LOGITS,
            np.mean(np.abs(MANY_HOT - LOGITS), axis=1),
        ),
        (
            "sparse_categorical_crossentropy",
            LABELS,
            PROBABILITIES,
            -np.log(PROBABILITIES[np.arange(4), LABELS]),
        ),
        (
            "binary_crossentropy",
            MANY_HOT,
            PROBABILITIES,
            -np.mean(
                MANY_HOT * np.log(PROBABILITIES)
                + (1 - MANY_HOT) * np.log(1 - PROBABILITIES),
                axis=1,
            ),
        ),
    ],
)
def test_takes_the_name_of_a_loss(name, y_true, y_pred, expected):
    np.testing.assert_allclose(
        per_example(name)(tf.constant(y_true), tf.constant(y_pred)),
        expected,
        rtol=1e-4,
    )


@pytest.mark.parametrize(
    ("y_true", "y_pred"),
    [
        (SEQUENCES[..., 0], SEQUENCES[..., 1:2]),
        (SEQUENCES[:1, :, 0], SEQUENCES[:1, :, 1:2]),
        (SEQUENCES[:, 0, :1], SEQUENCES[:, 0, 1]),
        (SEQUENCES[:, 0, 0], SEQUENCES[:, 0, 1:2]),
    ],
)
def test_targets_and_outputs_that_differ_by_an_axis_of_one_match(
    y_true, y_pred
):
    losses = per_example(lambda t, p: tf.square(t - p))(y_true, y_pred)
    num_rows = len(y_true)
    squares = np.square(y_true.ravel() - y_pred.ravel())
    expected = squares.reshape(num_rows, -1).mean(axis=1)
    np.testing.assert_allclose(losses, expected, rtol=1e-5)


def test_targets_of_unknown_rank_match():
    loss = per_example(lambda t, p: tf.square(t - p))

    @tf.function(
        input_signature=[tf.TensorSpec(None), tf.TensorSpec([None, 1])]
    )
    def losses(y_true, y_pred):
        return loss(y_true, y_pred)

    y_pred = LOGITS[:, 1:2]
    expected = np.square(LOGITS[:, 0] - LOGITS[:, 1])
    for y_true in (LOGITS[:, 0], LOGITS[:, :1]):
        np.testing.assert_allclose(losses(y_true, y_pred), expected, 1e-5)


class Squares(keras.losses.Loss):
    """Of numbers of one type only, as most losses that users write."""

    def call(self, y_true, y_pred):
        return tf.reduce_mean(tf.square(y_true - y_pred), axis=-1)


@pytest.mark.parametrize(
    "loss",
    [
        Squares(),
        Squares(dtype="float64"),
        lambda t, p: tf.reduce_mean(tf.square(t - p), axis=-1),
    ],
    ids=["object", "object of float64", "function"],
)
@pytest.mark.parametrize("dtype", [np.int64, np.uint8, bool, np.float64])
def test_targets_are_cast_to_the_dtype_of_the_loss(loss, dtype):
    targets = MANY_HOT.astype(dtype)
    losses = per_example(loss)(targets, tf.constant(LOGITS))
    assert losses.dtype == tf.float32
    np.testing.assert_allclose(
        losses, np.mean((MANY_HOT - LOGITS) ** 2, axis=1), rtol=1e-5
    )


@pytest.mark.parametrize(
    "loss", [Squares, keras.losses.SparseCategoricalCrossentropy]
)
def test_a_loss_that_sums_over_the_batch_is_refused(loss):
    with pytest.raises(ValueError, match=r"`loss` must have .* got 'sum'"):
        per_example(loss(reduction="sum"))
    for reduction in (
        None,
        "none",
        "mean",
        "mean_with_sample_weight",
        "sum_over_batch_size",
    ):
        per_example(loss(reduction=reduction))


def test_a_loss_of_the_users_own_keeps_its_value_per_example():
    def cubed(y_true, y_pred):
        return tf.abs(y_true - y_pred) ** 3

    losses = per_example(cubed)(tf.constant(MANY_HOT), tf.constant(LOGITS))
    np.testing.assert_allclose(
        losses, np.mean(np.abs(MANY_HOT - LOGITS) ** 3, axis=1), rtol=1e-5
    )


def squared_difference(y_true, y_pred):
    return (tf.cast(y_true, tf.float32) - y_pred) ** 2


@pytest.mark.parametrize("loss", ["mse", squared_difference])
def test_targets_without_the_last_axis_are_not_broadcast(loss):
    """[B] against [B, 1] would otherwise give every pair of examples."""
    losses = per_example(loss)(
        tf.constant([1.0, 2.0]), tf.constant([[1.0], [5.0]])
    )
    np.testing.assert_array_equal(losses, [0.0, 9.0])


def test_predictions_of_low_precision_are_read_as_float32():
    losses = per_example("mse")(
        tf.zeros([1, 1]), tf.constant([[1000.0]], tf.float16)
    )
    np.testing.assert_array_equal(losses, [1e6])  # Too much for float16.


def test_works_in_a_graph_of_unknown_batch_size():
    loss = per_example(keras.losses.BinaryCrossentropy())

    @tf.function(
        input_signature=[tf.TensorSpec([None, 3]), tf.TensorSpec([None, 3])]
    )
    def compiled(y_true, y_pred):
        return loss(y_true, y_pred)

    np.testing.assert_allclose(
        compiled(MANY_HOT, PROBABILITIES),
        loss(MANY_HOT, tf.constant(PROBABILITIES)),
        rtol=1e-6,
    )


@pytest.mark.parametrize("loss", [["mse", "mae"], ("mse",), {"output": "mse"}])
def test_several_losses_are_refused(loss):
    with pytest.raises(TypeError, match="must be one loss"):
        per_example(loss)


def test_a_loss_that_returns_a_scalar_is_refused():
    def mean_of_all(y_true, y_pred):
        return tf.reduce_mean(y_true - y_pred)

    with pytest.raises(ValueError, match=r"mean_of_all.*returns a scalar"):
        per_example(mean_of_all)(tf.zeros([2, 1]), tf.zeros([2, 1]))


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match="no_such_loss"):
        per_example("no_such_loss")


@pytest.mark.parametrize(
    ("loss", "fits"),
    [
        (keras.losses.SparseCategoricalCrossentropy(from_logits=True), True),
        (keras.losses.CategoricalCrossentropy(from_logits=True), True),
        (keras.losses.SparseCategoricalCrossentropy(), False),
        (keras.losses.BinaryCrossentropy(from_logits=True), False),
        ("sparse_categorical_crossentropy", False),
        ("mse", False),
    ],
)
def test_only_softmax_classifiers_on_logits_pass(loss, fits):
    if fits:
        check_logits(loss, "It")
    else:
        with pytest.raises(ValueError, match=r"^It needs .* trained on logits"):
            check_logits(loss, "It")


@pytest.mark.parametrize(
    ("loss", "takes"),
    [
        (keras.losses.SparseCategoricalCrossentropy(), True),
        ("sparse_categorical_crossentropy", True),
        (keras.losses.CategoricalCrossentropy(), False),
        ("mse", False),
    ],
)
def test_sparse_losses_take_labels(loss, takes):
    assert takes_labels(loss) == takes


def test_labels_that_do_not_count_may_name_no_class():
    labels = np.array([[0, 2], [255, 1]])
    sparse = keras.losses.SparseCategoricalCrossentropy
    check_labels(sparse(ignore_class=255), labels, (3,))
    with pytest.raises(ValueError, match=r"labels from 0 to 255.*3 classes"):
        check_labels(sparse(), labels, (3,))
    check_labels(sparse(), labels, (None,))  # Of a model of any width.


@pytest.mark.parametrize(
    ("targets", "num_classes"),
    [([0.5, -1.5], 4), ([0, 1], 1), (np.eye(4)[[0, 3]], 4)],
    ids=["numbers", "one output", "one-hot"],
)
def test_targets_that_are_no_classes_ask_for_another_loss(targets, num_classes):
    with pytest.raises(ValueError, match=r"(C|c)ompile (it|the model) with"):
        check_labels(
            "sparse_categorical_crossentropy",
            np.array(targets),
            (num_classes,),
        )


def functional(activation):
    x = keras.Input([3])
    return keras.Model(x, keras.layers.Dense(2, activation)(x))


@pytest.mark.parametrize(
    "layer",
    [
        keras.layers.Dense(2, "softmax"),
        keras.layers.Softmax(),
        functional("softmax"),
        keras.Sequential([keras.layers.Flatten(), functional("softmax")]),
    ],
    ids=["activation", "layer", "functional", "nested"],
)
def test_a_softmax_before_a_loss_of_logits_is_refused(layer):
    crossentropy = keras.losses.SparseCategoricalCrossentropy
    with pytest.raises(ValueError, match=r"takes logits, but .* ends in"):
        check_activation(crossentropy(from_logits=True), layer)
    check_activation(crossentropy(), layer)
    check_activation("sparse_categorical_crossentropy", layer)
    check_activation(crossentropy(from_logits=True), functional(None))
    check_activation(crossentropy(from_logits=True), functional("relu"))


def test_guesses_lose_their_mean_over_blocks_and_their_sum_over_metalayers():
    targets = np.array([[1.0], [2.0]], np.float32)
    first = tf.constant([[[1.0], [0.0]]])  # One block.
    second = tf.constant([[[1.0], [2.0]], [[3.0], [2.0]]])  # Two.
    like = tf.zeros([2])
    losses = probe_losses(per_example("mse"), targets, [first, second], like)
    np.testing.assert_array_equal(losses, [2.0, 4.0])
    np.testing.assert_array_equal(
        probe_losses(per_example("mse"), targets, [], like), [0.0, 0.0]
    )
