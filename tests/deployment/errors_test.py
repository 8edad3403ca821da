"""What is said of models that cannot be deployed."""

import keras
import numpy as np
import onnxruntime
import pytest
import tensorflow as tf

import composer_tf as ct
from composer_tf.deployment import DeploymentError, acceptance, deploy


@pytest.mark.parametrize("format", ["tflite", "onnx"])
def test_an_artifact_that_does_not_run_is_one_line(
    folder, tmp_path, monkeypatch, format
):
    def failing(*_):
        if format == "tflite":
            raise RuntimeError("Node 3 failed to prepare.\nMore.")
        onnxruntime.InferenceSession(b"no model")

    monkeypatch.setattr(acceptance, "open_artifact", failing)
    with pytest.raises(DeploymentError, match=r"does not run.*: .") as raised:
        deploy(folder / "m.keras", tmp_path / "m", format)
    assert "\n" not in str(raised.value)
    assert "It was verified on random inputs;" in str(raised.value)
    assert not list(tmp_path.iterdir())
    data = str(folder / "data.npz")
    with pytest.raises(DeploymentError, match="does not run") as raised:
        deploy(folder / "m.keras", tmp_path / "m", format, data=data)
    assert "random" not in str(raised.value)


def test_random_inputs_that_do_not_suit_a_model_are_told_of(tmp_path):
    modules: list[keras.layers.Layer] = [
        keras.layers.Dense(4) for _ in range(2)
    ]
    model = ct.Composer(
        [ct.Metalayer(modules), keras.layers.GlobalAveragePooling1D()],
        stem=keras.layers.Embedding(50, 8),
    )
    model.build((None, 5))
    model.compile()
    model.save(tmp_path / "m.keras")
    paths = tmp_path / "m.keras", tmp_path / "m.onnx", "onnx"
    told = (
        r"not kept: indices\[.*\] = -?\d+ is not in \[0, 50\)\. It was "
        r"verified on random inputs; `data` gives real ones, and "
        r"`input_dtypes` suit token ids\.$"
    )
    with pytest.raises(DeploymentError, match=told):
        deploy(*paths)
    report = deploy(*paths, input_dtypes={"image": "int32"})
    assert report["verified_on"] == "random inputs"


def test_a_type_that_the_model_does_not_take_is_named(folder, tmp_path):
    dense = [keras.layers.Dense(3) for _ in range(2)]
    model = ct.Composer([ct.Metalayer(dense)], stem=keras.layers.Conv2D(4, 3))
    model.build((None, 5, 5, 1))
    model.compile()
    model.save(tmp_path / "m.keras")
    told = r"run on `input_dtypes` 'uint8', unless its stem casts them: .*uint8"
    with pytest.raises(DeploymentError, match=told) as raised:
        deploy(
            tmp_path / "m.keras",
            tmp_path / "1",
            "tf_saved_model",
            input_dtypes="uint8",
        )
    assert "\n" not in str(raised.value)
    with pytest.raises(TypeError, match="`fix` of 'glimpse' must be a number"):
        deploy(
            folder / "m.keras",
            tmp_path / "1",
            "tf_saved_model",
            fix={"glimpse": "2"},
        )


def test_a_model_of_words_is_verified_on_words(tmp_path):
    lookup = keras.layers.StringLookup()
    lookup.adapt(np.array(["a", "b", "c"]))
    stem = [
        keras.Input([3], dtype="string"),
        lookup,
        keras.layers.Embedding(4, 2),
        keras.layers.Flatten(),
    ]
    modules: list[keras.layers.Layer] = [
        keras.layers.Dense(4) for _ in range(2)
    ]
    model = ct.Composer([ct.Metalayer(modules)], stem=keras.Sequential(stem))
    model.build((None, 3))
    model.compile()
    model.save(tmp_path / "m.keras")
    words = np.random.default_rng(0).choice(["a", "b", "c", "d"], [9, 3])
    data = str(tmp_path / "data.npz")
    np.savez(data, image=words)
    paths = tmp_path / "m.keras", tmp_path / "1", "tf_saved_model"
    with pytest.raises(ValueError, match="'image' is text"):
        deploy(*paths)
    report = deploy(*paths, data=data)
    assert report["choice_agreement"] == 1.0
    assert report["max_relative_error"] < 1e-5


@pytest.mark.parametrize(
    "message",
    [
        "Cause. [Op:Gather]",
        "Graph execution error:\n\nDetected at node a/b defined at (most "
        "recent call last):\n  File 'x'\n\n  File 'y'\n\nCause.\n"
        "\t [[{{node a}}]]",
        "Graph execution error:\n\nDetected at node a/b defined at (most "
        "recent call last):\n<stack traces unavailable>\n2 root error(s) "
        "found.\n  (0) INVALID_ARGUMENT:  Cause.\n\t [[{{node a}}]]\n  (1) "
        "INVALID_ARGUMENT:  Another.\n0 successful operations.",
    ],
    ids=["eager", "graph", "several"],
)
def test_of_a_long_error_the_cause_is_told(
    folder, tmp_path, monkeypatch, message
):
    def failing(*_):
        raise tf.errors.InvalidArgumentError(None, None, message)

    monkeypatch.setattr(acceptance, "open_artifact", failing)
    told = r"not kept: (INVALID_ARGUMENT:  )?Cause\."
    with pytest.raises(DeploymentError, match=told):
        deploy(folder / "m.keras", tmp_path / "m.onnx", "onnx")


def test_bad_files_are_named(folder, tmp_path):
    target = tmp_path / "m.onnx"
    with pytest.raises(DeploymentError, match=r"no file .*nowhere.keras"):
        deploy(tmp_path / "nowhere.keras", target, "onnx")
    (tmp_path / "bad.keras").write_text("not a zip")
    with pytest.raises(DeploymentError, match=r"bad.keras is no Keras model"):
        deploy(tmp_path / "bad.keras", target, "onnx")
    plain = keras.Sequential([keras.Input([3]), keras.layers.Dense(2)])
    plain.save(tmp_path / "plain.keras")
    with pytest.raises(DeploymentError, match="a Sequential, not a Composer"):
        deploy(tmp_path / "plain.keras", target, "onnx")


def test_a_class_of_the_models_own_is_named_and_little_else(tmp_path):
    @keras.saving.register_keras_serializable("mine")
    class Power(keras.layers.Layer):
        def __init__(self, exponent=2.0, **kwargs):
            super().__init__(**kwargs)
            if exponent > 2.0:
                raise TypeError("Too high.\nMore." + 1000 * "!")
            self.exponent = exponent

        def call(self, x):
            return x**self.exponent

        def get_config(self):
            return {**super().get_config(), "exponent": self.exponent}

    power = Power()
    modules: list[keras.layers.Layer] = [keras.layers.Dense(4), power]
    model = ct.Composer([ct.Metalayer(modules), keras.layers.Dense(3)])
    model.build((None, 4))
    model.compile()
    power.exponent = 3.0
    model.save(tmp_path / "m.keras")
    paths = tmp_path / "m.keras", tmp_path / "m.onnx", "onnx"
    with pytest.raises(
        DeploymentError, match=r"register: .*\bToo high"
    ) as high:
        deploy(*paths)
    assert "\n" not in str(high.value)
    assert len(str(high.value)) < len(str(paths[0])) + 400
    custom = keras.saving.get_custom_objects()
    del custom["mine>Power"]
    with pytest.raises(DeploymentError) as missing:
        deploy(*paths)
    assert str(missing.value) == (
        f"{paths[0]} has a class 'Power' of its own: `modules` must name the "
        "Python module that defines and registers it."
    )
