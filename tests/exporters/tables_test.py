"""Models that look words and numbers up, exported to every format."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from tensorflow.lite.python.convert_phase import ConverterError

import composer_tf as ct

L = keras.layers
GLIMPSE = ct.GlimpsePreference(ct.Uniform(-1.0, 1.0))
WORDS = np.array([["a", "c", "other", "b"], ["b", "b", "a", "c"]])
NUMBERS = np.array([[3, 5, 9, 1], [9, 9, 5, 3]], np.int32)
TEXTS = np.array(["a c other b", "B b, a"])
GAMMA = np.array([-1.0, 1.0], np.float32)


def embedded(*layers):
    return keras.Sequential([*layers, L.Embedding(8, 3), L.Flatten()])


def of_stem(stem):
    return ct.Composer(
        [ct.Metalayer([L.Dense(3), L.Dense(3, "relu")])],
        stem=stem,
        preferences=[GLIMPSE],
    )


def of_words():
    """With a vocabulary that was found in data."""
    lookup = L.StringLookup()
    lookup.adapt(WORDS[1:])
    return of_stem(embedded(keras.Input([4], dtype="string"), lookup))


def of_numbers():
    """Which the modules look up, each in a table of its own."""
    lookups = [L.IntegerLookup(vocabulary=v) for v in ([3, 5], [9, 5])]
    return ct.Composer(
        [ct.Metalayer([embedded(lookup) for lookup in lookups])],
        preferences=[GLIMPSE],
    )


def of_texts():
    split = L.TextVectorization(
        vocabulary=["a", "b", "c"], output_sequence_length=4
    )
    return of_stem(embedded(keras.Input([], dtype="string"), split))


def of_hashes():
    """Without a table."""
    return of_stem(embedded(keras.Input([4], dtype="string"), L.Hashing(8)))


def built(build, inputs):
    """A model, and what it answers."""
    model = build()
    model.compile()
    return model, model(tf.constant(inputs), gamma=GAMMA).numpy()


_ALONE = """
import sys
import numpy as np, tensorflow as tf
for folder in sys.argv[1:]:
    feed = np.load(folder + "/in.npz")
    loaded = tf.saved_model.load(folder + "/1")
    outputs = loaded.signatures["serving_default"](
        image=tf.constant(feed["image"]), gamma=tf.constant(feed["gamma"]))
    np.save(folder + "/out.npy", outputs["logits"].numpy())
assert not {"composer_tf", "tf_keras"} & set(sys.modules)
"""


def test_a_saved_model_looks_up_where_composer_tf_is_not(tmp_path):
    wanted = {}
    for build, inputs, num_tables in (
        (of_words, WORDS, 1),  # And not the table of their counts.
        (of_numbers, NUMBERS, 2),
        (of_texts, TEXTS, 1),
    ):
        folder = tmp_path / build.__name__
        folder.mkdir()
        np.savez(folder / "in.npz", image=inputs, gamma=GAMMA)
        model, wanted[folder] = built(build, inputs)
        dtype = "int32" if build is of_numbers else None
        model.export(folder / "1", input_dtypes=dtype)
        loaded = tf.saved_model.load(str(folder / "1"))
        assert len(loaded.tables) == num_tables
    subprocess.run(
        [sys.executable, "-c", _ALONE, *map(str, wanted)], check=True
    )
    for folder, logits in wanted.items():
        np.testing.assert_allclose(
            np.load(folder / "out.npy"), logits, atol=1e-5
        )


@pytest.mark.parametrize("quantization", ["none", "float16"])
def test_litert_looks_words_up(tmp_path, quantization):
    model, wanted = built(of_words, WORDS)
    path = tmp_path / "m.tflite"
    model.export(path, "tflite", quantization=quantization, batch_size=2)
    interpreter = Interpreter(str(path))
    batch = interpreter.get_signature_runner("batch")
    words = WORDS.astype(object)
    answer = batch(image=words, gamma=GAMMA)
    np.testing.assert_allclose(answer["logits"], wanted, atol=1e-3)
    one = interpreter.get_signature_runner("serving_default")
    for i in range(2):
        answer = one(image=words[i : i + 1], gamma=GAMMA[i : i + 1])
        np.testing.assert_allclose(answer["logits"][0], wanted[i], atol=1e-3)


@pytest.mark.parametrize(
    ("build", "inputs", "format", "options", "message"),
    [
        (of_words, WORDS, "onnx", {}, "table from string to int64.* to ONNX"),
        (of_numbers, NUMBERS, "onnx", {}, "from int64 to int64.* to ONNX"),
        (of_numbers, NUMBERS, "tflite", {}, "from int64 .* to LiteRT: look up"),
        (of_words, WORDS, "tflite", {"micro": True}, "TensorFlow Lite Micro"),
        (
            of_words,
            WORDS,
            "tflite",
            {"quantization": "int8", "calibration_data": [{"image": WORDS}]},
            "`quantization='int8'` .*'image' of type string",
        ),
        (of_hashes, WORDS, "onnx", {}, "StringToHashBucketFast"),
    ],
)
def test_what_a_format_cannot_hold_is_told(
    tmp_path, build, inputs, format, options, message
):
    model, _ = built(build, inputs)
    with pytest.raises(ValueError, match=message) as raised:
        model.export(tmp_path / "m", format, **options)
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())


def test_operators_that_litert_lacks_are_named(tmp_path):
    model, _ = built(of_texts, TEXTS)
    told = "LiteRT lacks .*RegexReplace, .*do their part before the model"
    with pytest.raises(ConverterError, match=told) as raised:
        model.export(tmp_path / "m.tflite", "tflite")
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())
