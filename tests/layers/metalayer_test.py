import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from composer_tf.layers import Glimpse, Metalayer
from composer_tf.layers.metalayer import layer_output_shape

L = keras.layers


class Doubled(L.Layer):
    """Returns two tensors, which no module may."""

    def call(self, inputs):
        return inputs, inputs

    def compute_output_shape(self, input_shape):
        return input_shape, input_shape


def each_row_alone(metalayer, inputs, choices):
    modules = metalayer.modules
    rows = [modules[c](inputs[i : i + 1]) for i, c in enumerate(choices)]
    return tf.concat(rows, axis=0)


@pytest.mark.parametrize("routing", ["dense", "partition"])
def test_each_row_goes_through_the_module_it_chose(routing):
    metalayer = Metalayer([L.Dense(3), L.Dense(3, "tanh"), L.Dense(3)])
    inputs = tf.random.stateless_normal([5, 4], [1, 2])
    choices = [2, 0, 1, 2, 2]
    outputs = metalayer(inputs, tf.constant(choices), routing=routing)
    expected = each_row_alone(metalayer, inputs, choices)
    np.testing.assert_allclose(outputs, expected, atol=1e-6)


def test_partition_is_the_default():
    class Counting(L.Layer):
        def build(self, input_shape):
            self.runs = self.add_weight(
                shape=(), dtype="int32", initializer="zeros", trainable=False
            )

        def call(self, inputs):
            self.runs.assign_add(1)
            return inputs

    metalayer = Metalayer([Counting(), Counting()])
    metalayer.build((None, 2))
    runs = [int(module.runs.numpy()) for module in metalayer.modules]
    metalayer(tf.ones([3, 2]), tf.constant([1, 1, 1]))
    more = [int(module.runs.numpy()) for module in metalayer.modules]
    assert more == [runs[0], runs[1] + 1]


def test_modules_of_any_kind_agree_in_output_shape_only():
    functional_input = keras.Input((4, 4, 1))
    functional = keras.Model(
        functional_input, L.Dense(3)(L.Flatten()(functional_input))
    )
    metalayer = Metalayer(
        [
            keras.Sequential([Glimpse(width=2), L.Flatten(), L.Dense(3)]),
            functional,
            keras.Sequential(
                [L.Conv2D(3, 3), L.BatchNormalization(), L.GlobalMaxPooling2D()]
            ),
        ]
    )
    inputs = tf.random.stateless_normal([4, 4, 4, 1], [1, 2])
    choices = [0, 1, 2, 1]
    np.testing.assert_allclose(
        metalayer(inputs, tf.constant(choices)),
        each_row_alone(metalayer, inputs, choices),
        atol=1e-6,
    )


def test_a_single_module_sees_the_whole_batch():
    metalayer = Metalayer([L.Dense(3)])
    inputs = tf.ones([2, 4])
    np.testing.assert_array_equal(
        metalayer(inputs, tf.constant([0, 0])), metalayer.modules[0](inputs)
    )


@pytest.mark.parametrize("size", [3, 6])
def test_images_of_unknown_size_are_routed_too(size):
    metalayer = Metalayer([L.Conv2D(2, 1), L.Conv2D(2, 3, padding="same")])
    metalayer.build((None, None, None, 1))
    inputs = tf.random.stateless_normal([3, size, size, 1], [1, 2])
    for choices in ([1, 0, 1], [1, 1, 1]):
        with pytest.warns(UserWarning, match="All modules of metalayer"):
            outputs = metalayer(inputs, tf.constant(choices))
        expected = each_row_alone(metalayer, inputs, choices)
        np.testing.assert_allclose(outputs, expected, atol=1e-6)


class MaskedSum(L.Layer):
    """The sum of the steps that are there: of all, if it gets no mask."""

    def __init__(self):
        super().__init__()
        self.supports_masking = True

    def compute_mask(self, inputs, previous_mask):
        return None

    def call(self, inputs, mask=None):
        if mask is not None:
            inputs *= tf.cast(mask, tf.float32)[..., tf.newaxis]
        return tf.reduce_sum(inputs, axis=1)


@pytest.mark.filterwarnings("ignore:Layer 'metalayer.*passed an input with a")
def test_blocks_of_rows_keep_their_mask():
    embedding = L.Embedding(5, 3, mask_zero=True)
    metalayer = Metalayer([MaskedSum(), MaskedSum()])
    inputs = embedding(tf.constant([[1, 2, 0], [3, 0, 0]]))
    outputs = metalayer(
        inputs,
        tf.constant([0, 0, 1, 1]),
        routing="dense",
        blocks=[0, 1],
        sources=[0, 0],
    )
    once = [inputs[0, 0] + inputs[0, 1], inputs[1, 0]]
    np.testing.assert_allclose(outputs, tf.stack(once * 2), atol=1e-6)


@pytest.mark.parametrize("routing", ["partition", "serving", "scatter"])
def test_a_mask_that_no_module_would_get_is_refused(routing):
    metalayer = Metalayer([MaskedSum(), MaskedSum()])
    inputs = L.Embedding(5, 3, mask_zero=True)(tf.constant([[1, 2, 0]]))
    message = r"Embedding\(mask_zero=True\), into each module; or .*'dense'"
    with pytest.raises(ValueError, match=message):
        metalayer(inputs, tf.constant([0]), routing=routing)


@pytest.mark.parametrize("routing", ["dense", "partition"])
def test_output_has_the_compute_dtype_of_the_metalayer(routing):
    metalayer = Metalayer(
        [L.Dense(3, dtype="float32"), L.Dense(3, dtype="mixed_float16")],
        dtype="mixed_float16",
    )
    outputs = metalayer(tf.ones([2, 4]), tf.constant([0, 1]), routing=routing)
    assert outputs.dtype == tf.float16


@pytest.mark.parametrize("routing", ["dense", "partition"])
def test_training_reaches_the_modules(routing):
    metalayer = Metalayer([L.Dropout(0.999), L.Dropout(0.0)])
    inputs = tf.ones([2, 1000])
    choices = tf.constant([0, 1])
    training = metalayer(inputs, choices, routing=routing, training=True)
    assert np.count_nonzero(training[0]) < 100
    assert np.count_nonzero(training[1]) == 1000
    inference = metalayer(inputs, choices, routing=routing, training=False)
    np.testing.assert_array_equal(inference, inputs)


def test_weights_and_penalties_are_those_of_the_modules():
    metalayer = Metalayer(
        [
            L.Dense(
                3,
                kernel_initializer="ones",
                kernel_regularizer=keras.regularizers.L2(1.0),
            ),
            L.Dense(3, use_bias=False),
        ]
    )
    metalayer.build((None, 2))
    assert metalayer.count_params() == (2 * 3 + 3) + 2 * 3
    assert [loss.numpy() for loss in metalayer.losses] == [6.0]


@pytest.mark.parametrize("modules", [[], ()])
def test_no_module_is_refused(modules):
    with pytest.raises(ValueError, match="at least one"):
        Metalayer(modules)


def test_what_is_not_a_layer_is_refused():
    with pytest.raises(TypeError, match="Keras layers, got"):
        Metalayer([L.Dense(3), lambda x: x])


def test_output_shapes_that_disagree_are_listed():
    metalayer = Metalayer(
        [L.Dense(3, name="small"), L.Dense(5, name="large")], name="second"
    )
    with pytest.raises(
        ValueError, match=r"'second'.*small: \(None, 3\), large: \(None, 5\)"
    ):
        metalayer.build((None, 2))


def test_a_module_with_two_outputs_is_refused():
    with pytest.raises(TypeError, match="must return one tensor"):
        Metalayer([Doubled()]).build((None, 2))


def test_an_unknown_routing_is_refused():
    metalayer = Metalayer([L.Dense(3), L.Dense(3)])
    with pytest.raises(ValueError, match=r"`routing`.*partition.*'sideways'"):
        metalayer(tf.ones([2, 4]), tf.constant([0, 1]), routing="sideways")


def test_a_saved_metalayer_predicts_the_same(tmp_path):
    inputs = keras.Input((4, 4, 1))
    choices = keras.Input((), dtype="int32")
    modules = [
        keras.Sequential([L.Flatten(), L.Dense(3)]),
        keras.Sequential([Glimpse(width=2), L.Flatten(), L.Dense(3)]),
    ]
    outputs = Metalayer(modules, name="first")(inputs, choices)
    model = keras.Model([inputs, choices], outputs)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")

    data = [
        tf.random.stateless_normal([4, 4, 4, 1], [1, 2]),
        tf.constant([0, 1, 1, 0]),
    ]
    assert loaded.get_layer("first").num_modules == 2
    np.testing.assert_array_equal(loaded(data), model(data))


def test_config_rebuilds_modules_of_the_same_shape():
    metalayer = Metalayer([L.Dense(3), keras.Sequential([L.Dense(3)])])
    metalayer.build((None, 4))
    copy = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(metalayer)
    )
    assert copy.built
    copy.set_weights(metalayer.get_weights())
    inputs, choices = tf.ones([2, 4]), tf.constant([0, 1])
    np.testing.assert_array_equal(
        copy(inputs, choices), metalayer(inputs, choices)
    )


@pytest.mark.parametrize(
    ("routing", "jit_compile"),
    [("partition", False), ("dense", False), ("dense", True)],
)
@pytest.mark.parametrize(
    "blocks", [(0, 1), (2, 0, 2), (1, 1), (2,), (-1, 2), (0, -1, 1, -1)]
)
def test_blocks_that_are_known_give_what_their_choices_give(
    blocks, routing, jit_compile
):
    dense = keras.layers.Dense
    metalayer = Metalayer([dense(3) for _ in range(3)])
    inputs = tf.random.stateless_normal([4 * len(blocks), 5], [1, 2])
    anything = np.random.default_rng(0).integers(0, 3, len(inputs))
    blocked = np.repeat(blocks, 4)
    choices = tf.constant(np.where(blocked < 0, anything, blocked), tf.int32)
    expected = metalayer(inputs, choices, routing="dense")

    @tf.function(jit_compile=jit_compile)
    def by_blocks(inputs):
        return metalayer(inputs, choices, routing=routing, blocks=blocks)

    np.testing.assert_allclose(by_blocks(inputs), expected, rtol=1e-5)


@pytest.mark.parametrize("routing", ["partition", "dense"])
@pytest.mark.parametrize("blocks", [(1, 0, 1), (-1, 2), (-1, -1), (0,)])
def test_blocks_may_share_their_rows(blocks, routing):
    dense = keras.layers.Dense
    metalayer = Metalayer([dense(3) for _ in range(3)])
    inputs = tf.random.stateless_normal([4, 5], [1, 2])
    choices = tf.constant(np.repeat(np.abs(blocks), 4), tf.int32)
    arguments = {"routing": routing, "blocks": blocks}
    np.testing.assert_allclose(
        metalayer(inputs, choices, sources=[0] * len(blocks), **arguments),
        metalayer(tf.tile(inputs, [len(blocks), 1]), choices, **arguments),
        rtol=1e-5,
    )


def test_modules_of_no_block_do_not_run():
    class Unwanted(keras.layers.Dense):
        def call(self, inputs):
            if inputs.shape[0] is not None:
                raise AssertionError("It was run.")
            return super().call(inputs)

    dense = keras.layers.Dense
    metalayer = Metalayer([dense(3), Unwanted(3), dense(3)])
    metalayer.build((None, 5))
    choices = tf.constant([0, 0, 2, 2])
    metalayer(tf.ones([4, 5]), choices, routing="dense", blocks=(0, 2))


def test_a_mask_that_would_be_lost_is_told():
    def tagger():
        return keras.Sequential(
            [
                keras.layers.Embedding(9, 4, mask_zero=True),
                keras.layers.Dense(3),
            ]
        )

    words, choices = tf.constant([[1, 2, 0], [3, 0, 0]]), tf.constant([0, 1])
    for routing in ("dense", "partition"):
        with pytest.warns(UserWarning, match="masks its outputs.*ignore_class"):
            Metalayer([tagger(), tagger()])(words, choices, routing=routing)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        readers = [tagger(), tagger()]
        for reader in readers:
            reader.add(keras.layers.GlobalAveragePooling1D())
        Metalayer(readers)(words, choices)


@pytest.mark.parametrize("names", ["ab", "ba"])
@pytest.mark.parametrize("listed", [True, False])
def test_inputs_are_told_apart_by_name(names, listed):
    """Keras takes shapes by alphabet where a model lists its inputs."""
    inputs = {n: keras.Input([2 + "ab".index(n)], name=n) for n in names}
    parts = [inputs["a"], inputs["a"], inputs["b"]]
    model = keras.Model(
        list(inputs.values()) if listed else inputs,
        keras.layers.Concatenate()(parts),
    )
    shapes = {"b": (None, 3), "a": (None, 2)}
    assert layer_output_shape(model, shapes) == (None, 7)


def test_modules_may_begin_at_one_input():
    start = keras.Input([4])
    modules = [
        keras.Model(start, keras.layers.Dense(3)(start)) for _ in range(2)
    ]
    assert Metalayer(modules)(tf.ones([2, 4]), tf.constant([0, 1])).shape == (
        2,
        3,
    )
