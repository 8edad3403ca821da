"""Models of many kinds, exported to every format and run in its runtime."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import composer_tf as ct
from composer_tf import exporters
from composer_tf.exporters.artifacts import open_artifact

L = keras.layers
FORMATS = {"tf_saved_model": "1", "tflite": "m.tflite", "onnx": "m.onnx"}
GLIMPSE = ct.GlimpsePreference(ct.Uniform(-1.0, 1.0))


def two_inputs():
    """A stem that joins two named inputs; one is a table of indices."""
    image, word = keras.Input([6], name="image"), keras.Input([2], name="word")
    embedded = L.Flatten()(L.Embedding(5, 3)(word))
    stem = keras.Model(
        {"image": image, "word": word},
        L.Concatenate()([L.Dense(4)(image), embedded]),
    )
    return ct.Composer(
        [ct.Metalayer([L.Dense(3), L.Dense(3, "relu")])],
        stem=stem,
        preferences=[GLIMPSE],
    )


def recurrent():
    """Modules with a state over time."""
    return ct.Composer(
        [
            ct.Metalayer(
                [
                    L.LSTM(4, unroll=True),
                    L.GRU(4, unroll=True, reset_after=False),
                ]
            ),
            L.Dense(3),
        ],
        preferences=[GLIMPSE],
    )


def mixed_precision():
    """Modules that compute in bfloat16."""
    return mixed_precision_in("mixed_bfloat16")


def mixed_precision_in(policy):
    return ct.Composer(
        [
            ct.Metalayer(
                [L.Dense(4, dtype=policy), L.Dense(4, "relu", dtype=policy)],
            ),
            L.Dense(3),
        ],
        preferences=[GLIMPSE],
    )


def one_module():
    """A metalayer without a choice, before one with three."""
    return ct.Composer(
        [
            ct.Metalayer([L.Dense(4)]),
            ct.Metalayer([L.Dense(3), L.Dense(3), L.Dense(3)]),
        ],
        preferences=[GLIMPSE],
        costs=[[0.0], [1.0, 2.0, 3.0]],
    )


def no_preference():
    """Nothing to steer by."""
    return ct.Composer([ct.Metalayer([L.Dense(3), L.Dense(3, "relu")])])


CASES = {
    "two_inputs": (two_inputs, {"image": (6,), "word": (2,)}),
    "recurrent": (recurrent, {"image": (5, 2)}),
    "mixed_precision": (mixed_precision, {"image": (6,)}),
    "one_module": (one_module, {"image": (6,)}),
    "no_preference": (no_preference, {"image": (6,)}),
}


def feed_of(shapes, rows):
    random = np.random.default_rng(0)
    return {
        name: (
            random.integers(0, 5, (rows, *shape))
            if name == "word"
            else random.normal(size=(rows, *shape))
        ).astype(np.float32)
        for name, shape in shapes.items()
    }


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("case", CASES)
def test_any_model_is_exported_to_any_format(case, format, tmp_path):
    build, shapes = CASES[case]
    model = build()
    model.compile()
    feed = feed_of(shapes, 4)
    inputs = feed if len(feed) > 1 else feed["image"]
    model(inputs)
    gamma = np.linspace(-1.0, 1.0, 4).astype(np.float32)
    steered = bool(model.preferences.names)
    wanted = model(
        inputs,
        gamma=gamma if steered else None,
        routing="dense",
        return_composition=True,
    )
    path = tmp_path / FORMATS[format]
    model.export(path, format)
    if steered:
        feed["gamma"] = gamma
    outputs = open_artifact(path, format).run(feed)
    np.testing.assert_array_equal(outputs["choices"], wanted.policy.choices)
    # Devices get mixed precision in float32, which rounds less.
    rounded = case == "mixed_precision" and format != "tf_saved_model"
    np.testing.assert_allclose(
        outputs["logits"],
        tf.cast(wanted.outputs, tf.float32),
        atol=0.05 if rounded else 1e-5,
    )
    assert outputs["logits"].dtype == np.float32


@pytest.mark.parametrize("format", ["tflite", "onnx"])
def test_mixed_precision_computes_in_float32_on_devices(format, tmp_path):
    model = mixed_precision()
    model.compile()
    feed = feed_of({"image": (6,)}, 4)
    model(feed["image"])
    reference = mixed_precision_in("float32")
    reference(feed["image"])
    reference.set_weights(model.get_weights())
    path = tmp_path / FORMATS[format]
    model.export(path, format)
    outputs = open_artifact(path, format).run(feed)
    wanted = reference(feed["image"], routing="dense").numpy()
    np.testing.assert_allclose(outputs["logits"], wanted, atol=1e-5)
    model(feed["image"])  # It stays what it was.
    assert model.metalayers[0].modules[0].compute_dtype == "bfloat16"


def cross_entropy_of_ones_own(labels, outputs):
    """Whether its outputs are logits, nobody but its author knows."""
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, outputs)


@pytest.mark.parametrize(
    ("loss", "units", "names"),
    [
        ("mse", 1, {"outputs"}),
        (
            keras.losses.BinaryCrossentropy(from_logits=True),
            2,
            {"logits", "probabilities"},
        ),
        ("sparse_categorical_crossentropy", 3, {"probabilities"}),
        (cross_entropy_of_ones_own, 3, {"outputs"}),
        (None, 3, {"logits", "probabilities"}),
    ],
)
def test_outputs_are_named_by_the_loss(loss, units, names, tmp_path):
    model = ct.Composer(
        [ct.Metalayer([L.Dense(units), L.Dense(units)])],
        preferences=[GLIMPSE],
    )
    model.compile("sgd", loss)
    inputs = np.ones([2, 4], np.float32)
    outputs = model(inputs).numpy()
    model.export(tmp_path / "1")
    signatures = tf.saved_model.load(str(tmp_path / "1")).signatures
    answer = signatures["default_gamma"](image=tf.constant(inputs))
    common = {"choices", "module_probabilities", "cost"}
    assert set(answer) == names | common
    for name in answer:  # ONNX allows no input of an output's name.
        with pytest.raises(ValueError, match="name of an input"):
            exporters.check_names([name])
    if "logits" in names:
        exp = np.exp(outputs)
        wanted = (
            exp / (1.0 + exp)
            if units == 2
            else exp / exp.sum(axis=-1, keepdims=True)
        )
        np.testing.assert_allclose(answer["probabilities"], wanted, rtol=1e-5)


def test_quantize_says_how_to_export():
    with pytest.raises(ValueError, match="quantized when it is exported"):
        of_tokens().quantize("int8")


def test_weights_survive_float16_where_buffers_are_shared(tmp_path):
    model = recurrent()
    model.compile()
    feed = feed_of({"image": (5, 2)}, 4)
    wanted = model(feed["image"], return_composition=True)
    model.export(tmp_path / "m.tflite", "litert", quantization="float16")
    outputs = open_artifact(tmp_path / "m.tflite", "tflite").run(feed)
    np.testing.assert_array_equal(outputs["choices"], wanted.policy.choices)
    np.testing.assert_allclose(outputs["logits"], wanted.outputs, atol=1e-2)


def test_inputs_keep_their_names_and_types_are_checked(tmp_path):
    model = ct.Composer(
        [ct.Metalayer([L.Dense(3), L.Dense(3)])],
        stem=keras.Sequential([L.Embedding(50, 4), L.Flatten()]),
        preferences=[GLIMPSE],
    )
    model.compile()
    tokens = np.array([[1, 49], [2, 3]], np.int32)
    outputs = model({"tokens": tokens, "gamma": np.zeros(2, np.float32)})
    with pytest.raises(ValueError, match=r"`input_dtypes`.*'tokens'.*'words'"):
        model.export(tmp_path / "1", input_dtypes={"words": "int32"})
    model.export(
        tmp_path / "1", input_dtypes={"tokens": "int32"}, warmup_requests=2
    )
    signatures = tf.saved_model.load(str(tmp_path / "1")).signatures
    answer = signatures["default_gamma"](tokens=tf.constant(tokens))
    np.testing.assert_allclose(answer["logits"], outputs, atol=1e-5)


def of_tokens(declared=None):
    """Its stem's input has a declared type, or none."""
    inputs = [] if declared is None else [keras.Input([2], dtype=declared)]
    model = ct.Composer(
        [ct.Metalayer([L.Dense(3), L.Dense(3)])],
        stem=keras.Sequential([*inputs, L.Embedding(50, 4), L.Flatten()]),
        preferences=[GLIMPSE],
    )
    model.build((None, 2))
    model.compile()
    return model


def dtypes_of(model, input_dtypes=None, format="tf_saved_model"):
    inputs = model.routed_model(input_dtypes, format).inputs
    return {name: spec.dtype.name for name, spec in inputs.items()}


@pytest.mark.parametrize("format", FORMATS)
def test_the_stems_input_says_the_type(format, tmp_path):
    model = of_tokens("int32")
    tokens = np.array([[1, 49], [2, 3]], np.int32)
    path = tmp_path / FORMATS[format]
    description = model.export(path, format)
    assert description["inputs"]["image"]["dtype"] == "int32"
    feed = {"image": tokens, "gamma": np.zeros(2, np.float32)}
    answer = open_artifact(path, format).run(feed)
    np.testing.assert_allclose(answer["logits"], model(tokens), atol=1e-5)


def test_one_type_is_for_the_only_input():
    assert dtypes_of(of_tokens()) == {"image": "float32"}
    assert dtypes_of(of_tokens(), "int64") == {"image": "int64"}
    assert dtypes_of(of_tokens("int32"), "uint8") == {"image": "uint8"}
    assert dtypes_of(of_tokens("int32"), tf.int64) == {"image": "int64"}


@pytest.mark.parametrize("listed", [True, False])
def test_several_inputs_have_types_of_their_own(listed):
    a = keras.Input([2], name="a", dtype="int32")
    b = keras.Input([2], name="b", dtype="bool")
    c = keras.Input([2], name="c")
    joined = L.Concatenate()([L.Flatten()(L.Embedding(5, 3)(a)), b, c])
    inputs = [b, a, c] if listed else {"a": a, "b": b, "c": c}
    model = ct.Composer(
        [ct.Metalayer([L.Dense(3), L.Dense(3)])],
        stem=keras.Model(inputs, joined),
    )
    model.build(dict.fromkeys("cab", (None, 2)))
    model.compile()
    wanted = {"a": "int32", "b": "bool", "c": "float32"}
    assert dtypes_of(model) == wanted
    some = {"b": "uint8"}
    assert dtypes_of(model, some) == wanted | some
    told = r"`input_dtypes` must map names of \('c', 'a', 'b'\).*got 'int32'"
    with pytest.raises(ValueError, match=told):
        dtypes_of(model, "int32")
    with pytest.raises(TypeError, match=r"`input_dtypes` must map.*got 32"):
        dtypes_of(model, 32)


@pytest.mark.parametrize(
    ("name", "format", "of"),
    [
        ("m.onnx", "tflite", "format='onnx'"),
        ("m.onnx", "litert", "format='onnx'"),
        ("m.tflite", "onnx", "format='tflite'"),
        ("m.tflite", "tf_saved_model", "format='tflite'"),
        ("m.keras", "onnx", "model.save"),
    ],
)
def test_a_suffix_of_another_format_is_refused(tmp_path, name, format, of):
    model = recurrent()
    model.build((None, 3, 2))
    model.compile()
    with pytest.raises(ValueError, match=f"{name}', whose suffix is for {of}"):
        model.export(tmp_path / name, format=format)
    assert not list(tmp_path.iterdir())


def test_sizes_that_are_not_known_cannot_be_skipped(tmp_path):
    convs = [L.Conv2D(3, 3, padding="same") for _ in range(2)]
    model = ct.Composer(
        [ct.Metalayer(convs), L.GlobalAveragePooling2D()],
        preferences=[GLIMPSE],
    )
    model.build((None, None, None, 1))
    model.compile()
    with pytest.raises(ValueError, match="build the model for one size"):
        model.export(tmp_path / "1")


def test_a_model_trained_densely_for_its_losses_is_exported(tmp_path):
    regularized = L.Dense(3, activity_regularizer="l2")
    model = ct.Composer(
        [ct.Metalayer([regularized, L.Dense(3)])], routing="dense"
    )
    model.compile("sgd")
    model.fit(np.ones([4, 2]), np.zeros(4, int), verbose=0)
    model.export(tmp_path / "1")
    assert (tmp_path / "1" / "saved_model.pb").exists()


def test_inputs_may_be_bytes(tmp_path):
    model = ct.Composer(
        [L.Flatten(), ct.Metalayer([L.Dense(3), L.Dense(3)])],
        stem=L.Rescaling(1 / 255),
        preferences=[GLIMPSE],
    )
    model.compile()
    images = np.arange(2 * 4).reshape(2, 2, 2).astype(np.uint8)
    outputs = model(images)
    for format, name in FORMATS.items():
        path = tmp_path / name
        model.export(path, format, input_dtypes={"image": "uint8"})
        feed = {"image": images, "gamma": np.zeros(2, np.float32)}
        answer = open_artifact(path, format).run(feed)
        np.testing.assert_allclose(answer["logits"], outputs, atol=1e-5)


def test_a_model_whose_loss_is_not_known_is_not_exported(tmp_path):
    """It would be taken for a classifier, which a regression is not."""
    model = ct.Composer([ct.Metalayer([L.Dense(1), L.Dense(1)])])
    model.compile("sgd", "mse")
    model.build((None, 2))
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras", compile=False)
    with pytest.raises(ValueError, match=r"is not compiled.*`compile=True`"):
        loaded.export(tmp_path / "1")
    loaded.compile(loss="mse")
    assert loaded.export(tmp_path / "1")["outputs"] == [
        "choices",
        "cost",
        "module_probabilities",
        "outputs",
    ]


def test_gammas_are_swept_as_they_are_spread(tmp_path):
    model = ct.Composer(
        [ct.Metalayer([L.Dense(3), L.Dense(3)])],
        preferences=[ct.GlimpsePreference(ct.LogUniform(0.01, 100.0))],
    )
    model.compile()
    model.build((None, 2))
    (gamma,) = model.export(tmp_path / "m.onnx", "onnx")["gamma"]
    np.testing.assert_allclose(gamma["sweep"][::2], [0.01, 0.1, 1, 10, 100])
    (known,) = model.routed_model().gammas
    assert known.at_share(0.25) == pytest.approx(0.1)
