"""Models of half precision, as exporters for devices get them."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import composer_tf as ct
from composer_tf.composer.precision import float32_copy
from composer_tf.exporters.artifacts import open_artifact

L = keras.layers
FORMATS = {"tf_saved_model": "1", "tflite": "m.tflite", "onnx": "m.onnx"}
IMAGES = np.random.default_rng(0).normal(size=[4, 6]).astype("float32")


def sequential_modules():
    """Modules that Keras rebuilds in the global precision."""
    narrow = keras.Sequential([L.Dense(4, "tanh"), L.Dense(4)])
    wide = keras.Sequential([L.Dense(8, "relu"), L.Dense(4)])
    return ct.Composer(
        [ct.Metalayer([narrow, wide, L.Dense(4)]), L.Dense(3)],
        preferences=[ct.GlimpsePreference(ct.Uniform(-1.0, 1.0))],
    )


@pytest.fixture(name="mixed_policy")
def _mixed_policy():
    keras.config.set_dtype_policy("mixed_bfloat16")
    yield
    keras.config.set_dtype_policy("float32")


def in_float32(model):
    """A model made in float32 in the first place, of the same weights."""
    keras.config.set_dtype_policy("float32")
    reference = sequential_modules()
    reference(IMAGES)
    reference.set_weights(model.get_weights())
    return reference


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "float32"])
@pytest.mark.usefixtures("mixed_policy")
def test_a_float32_copy_rounds_nothing_under_any_policy(policy):
    model = sequential_modules()
    model(IMAGES)
    keras.config.set_dtype_policy(policy)  # As another process may have it.
    copy = float32_copy(model)
    assert keras.config.dtype_policy().name == policy
    reference = in_float32(model)
    for module in range(3):
        np.testing.assert_array_equal(
            copy.along(IMAGES, [module]), reference.along(IMAGES, [module])
        )
    assert float32_copy(copy) is copy


def test_a_float32_copy_knows_what_layers_learned_from_data():
    scale, lookup = L.Normalization(), L.StringLookup()
    scale.adapt(np.array([[3.0], [5.0]]))
    lookup.adapt(np.array(["a", "b", "b"]))
    size = keras.Input([1], name="size")
    word = keras.Input([1], name="word", dtype="string")
    embedded = L.Flatten()(L.Embedding(5, 3)(lookup(word)))
    model = ct.Composer(
        [ct.Metalayer([L.Dense(3, dtype="mixed_bfloat16"), L.Dense(3)])],
        stem=keras.Model(
            [size, word], L.Concatenate()([scale(size), embedded])
        ),
    )
    inputs = {
        "size": tf.constant([[4.0], [9.0], [1.0]]),
        "word": tf.constant([["a"], ["b"], ["c"]]),
    }
    model(inputs)
    copy = float32_copy(model)
    assert copy is not model
    np.testing.assert_array_equal(copy.stem(inputs), model.stem(inputs))
    np.testing.assert_array_equal(copy.stem(inputs)[:, 0], [0.0, 5.0, -3.0])


@pytest.mark.parametrize("format", ["tflite", "onnx"])
@pytest.mark.usefixtures("mixed_policy")
def test_sequential_modules_are_exported_under_a_mixed_policy(format, tmp_path):
    model = sequential_modules()
    model(IMAGES)
    model.compile()
    path = tmp_path / FORMATS[format]
    model.export(path, format)
    assert keras.config.dtype_policy().name == "mixed_bfloat16"
    outputs = open_artifact(path, format).run({"image": IMAGES})
    wanted = in_float32(model)(IMAGES, routing="dense")
    np.testing.assert_allclose(outputs["logits"], wanted, atol=1e-5)


class Block(L.Layer):
    """A layer that cannot be made from its config."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def build(self, input_shape):
        self.inner.build(input_shape)

    def call(self, inputs):
        return self.inner(inputs)


def test_a_model_that_needs_no_copy_needs_no_config(tmp_path):
    model = ct.Composer([ct.Metalayer([Block(L.Dense(3)), L.Dense(3)])])
    model(IMAGES)
    model.compile()
    path = tmp_path / "m.tflite"
    model.export(path, "tflite")
    outputs = open_artifact(path, "tflite").run({"image": IMAGES})
    np.testing.assert_allclose(outputs["logits"], model(IMAGES), atol=1e-5)


def test_an_input_of_half_precision_alone_needs_a_copy():
    image = keras.Input([6], dtype="bfloat16", name="image")
    model = ct.Composer(
        [ct.Metalayer([L.Dense(3), L.Dense(3)])],
        stem=keras.Model(image, L.Dense(4)(image)),
    )
    model(IMAGES)
    copy = float32_copy(model)
    assert copy is not model
    wanted = IMAGES @ model.stem.layers[1].kernel.numpy()
    np.testing.assert_allclose(copy.stem(IMAGES), wanted, atol=1e-6)


@pytest.mark.usefixtures("mixed_policy")
def test_a_copy_needs_no_more_of_compile_than_the_loss():
    model = sequential_modules()
    model(IMAGES)

    def right(labels, outputs):
        return tf.cast(tf.argmax(outputs, -1) == labels, tf.float32)

    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss=loss, metrics=[right], reward=right)
    assert float32_copy(model).loss is loss


@pytest.mark.usefixtures("mixed_policy")
def test_the_controller_computes_in_float32():
    model = sequential_modules()
    model(IMAGES)
    # In bfloat16 each of these would be another number.
    for weight in model.controller.weights:
        weight.assign(weight * 1.003)

    def logits(of):
        composition = of(IMAGES, gamma=0.7, return_composition=True)
        return composition.policy.logits[0]

    np.testing.assert_array_equal(logits(model), logits(float32_copy(model)))


@pytest.mark.usefixtures("mixed_policy")
def test_what_a_stem_casts_to_is_not_what_it_is_fed():
    model = ct.Composer(
        [ct.Metalayer([L.Dense(3), L.Dense(3)])],
        stem=keras.Sequential([L.Dense(3)]),
    )
    model.build((None, 2))
    model.compile()
    for format in FORMATS:
        inputs = model.routed_model(format=format).inputs
        assert inputs["image"].dtype == tf.float32
