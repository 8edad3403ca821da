"""The input `budget`: one meaning in every format."""

import json
import subprocess
import sys

import keras
import numpy as np
import onnxruntime
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from tensorflow.lite.tools import flatbuffer_utils

import composer_tf as ct
from composer_tf.exporters.artifacts import open_artifact
from composer_tf.exporters.exposure import expose
from composer_tf.exporters.verification import compare
from tests.exporters.small_composer import (
    assert_same,
    composer,
    examples,
    expected,
)

# By hand, with a jump and all costs that a path may have.
GLIMPSE = ct.Calibration(
    "glimpse", (-2.0, 0.0, 2.0, 6.0), (0.79, 0.76, 0.73, 0.5)
)
IMAGES, _ = examples(12)
BUDGETS = np.float32(
    [0.0, 0.5, 0.6, 0.72, 0.73, 0.74, 0.76, 0.775, 0.79, 1.0, np.nan, np.inf]
)
# A straight line, and the default for what is no number.
GAMMAS = [6.0, 6.0, 6.0, 6.0, 2.0, 4 / 3, 0.0, -1.0, -2.0, -2.0, 1.0, 1.0]
FORMATS = {
    "tf_saved_model": ("1", {}),
    "tflite": ("m.tflite", {}),
    "onnx": ("m.onnx", {"steer_by": "budget"}),
}


@pytest.fixture(scope="module", name="model")
def _model():
    model = composer()
    model.calibration = GLIMPSE
    return model


@pytest.fixture(scope="module", name="folder")
def _folder(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("budget")
    for format, (name, options) in FORMATS.items():
        model.export(folder / name, format, **options)
    return folder


def wanted(model, second=0.0):
    gamma = np.float32([[g, second] for g in GAMMAS])
    return expected(model, IMAGES, gamma)


@pytest.mark.parametrize("format", FORMATS)
def test_every_row_has_the_gamma_of_its_budget(model, folder, format):
    artifact = open_artifact(folder / FORMATS[format][0], format)
    outputs = artifact.run({"image": IMAGES, "budget": BUDGETS})
    assert_same(outputs, wanted(model), atol=1e-4)


@pytest.mark.parametrize("format", FORMATS)
def test_the_description_holds_the_curve(folder, format):
    path = folder / f"{FORMATS[format][0]}.json"
    if format == "tf_saved_model":
        path = folder / "1" / "assets.extra" / "composer.json"
    assert json.loads(path.read_text())["calibration"] == {
        "preference": "glimpse",
        "gammas": list(GLIMPSE.gammas),
        "costs": list(GLIMPSE.costs),
    }


_ALONE = """
import sys
import numpy as np, tensorflow as tf
feed = {k: tf.constant(v) for k, v in np.load(sys.argv[2]).items()}
signature = tf.saved_model.load(sys.argv[1]).signatures["budget"]
np.savez(sys.argv[3], **{k: v.numpy() for k, v in signature(**feed).items()})
assert not {"composer_tf", "tf_keras"} & set(sys.modules)
"""


def test_a_saved_model_knows_budgets_where_composer_tf_is_not(
    model, folder, tmp_path
):
    np.savez(tmp_path / "in.npz", image=IMAGES, budget=BUDGETS)
    arguments = [folder / "1", tmp_path / "in.npz", tmp_path / "out.npz"]
    subprocess.run(
        [sys.executable, "-c", _ALONE, *map(str, arguments)], check=True
    )
    with np.load(tmp_path / "out.npz") as outputs:
        assert_same(dict(outputs), wanted(model), atol=1e-4)


def test_one_budget_is_for_all_rows(model, folder):
    signature = tf.saved_model.load(str(folder / "1")).signatures["budget"]
    outputs = signature(
        image=tf.constant(IMAGES), budget=tf.constant([0.73], tf.float32)
    )
    gamma = np.float32([[2.0, 0.0]] * 12)
    actual = {name: tensor.numpy() for name, tensor in outputs.items()}
    assert_same(actual, expected(model, IMAGES, gamma), atol=1e-4)


def test_an_onnx_file_takes_a_budget_of_nan_for_the_default_gamma(
    model, folder
):
    session = onnxruntime.InferenceSession(folder / "m.onnx")
    names = [output.name for output in session.get_outputs()]
    feed = {"image": IMAGES, "budget": np.float32([np.nan])}
    outputs = dict(zip(names, session.run(None, feed), strict=True))
    gamma = np.float32([[1.0, 0.0]] * 12)
    assert_same(outputs, expected(model, IMAGES, gamma))


def test_signatures(model, folder, tmp_path):
    def of(path):
        signatures = Interpreter(str(path)).get_signature_list()
        return {name: each["inputs"] for name, each in signatures.items()}

    assert of(folder / "m.tflite") == {
        "serving_default": ["gamma", "image"],
        "default_gamma": ["image"],
        "budget": ["budget", "image"],
    }
    model.export(tmp_path / "m.tflite", "tflite", fix={"glimpse": 0.0})
    assert set(of(tmp_path / "m.tflite")) == {
        "serving_default",
        "default_gamma",
    }
    facts = json.loads((tmp_path / "m.tflite.json").read_text())
    assert facts["calibration"] is None


def test_others_may_be_fixed_at_what_the_curve_was_measured_with(
    model, tmp_path
):
    (default,) = (
        p.default for p in model.preferences.steerable if p.name == "entropy"
    )
    model.export(tmp_path / "fixed", fix={"entropy": default})
    outputs = open_artifact(tmp_path / "fixed", "tf_saved_model").run(
        {"image": IMAGES, "budget": BUDGETS}
    )
    assert_same(outputs, wanted(model), atol=1e-4)
    for name, options in (
        ("other", {"fix": {"entropy": default + 0.25}}),
        ("default", {"default_gamma": {"entropy": default + 0.25}}),
    ):
        description = model.export(tmp_path / name, **options)
        assert description["calibration"] is None
        loaded = tf.saved_model.load(str(tmp_path / name))
        assert "budget" not in loaded.signatures


def test_micro_takes_one_of_the_two(model, tmp_path):
    path = tmp_path / "m.tflite"
    model.export(path, "tflite", micro=True, steer_by="budget")
    interpreter = Interpreter(str(path))
    assert list(interpreter.get_signature_list()) == ["serving_default"]
    details = interpreter.get_input_details()
    places = {
        name: next(i for i, d in enumerate(details) if name in d["name"])
        for name in ("image", "budget")
    }
    runtime = pytest.importorskip("tflite_micro").runtime
    micro = runtime.Interpreter.from_file(str(path), arena_size=100_000)
    runner = interpreter.get_signature_runner()
    choices = wanted(model)["choices"]
    for i in range(len(IMAGES)):
        micro.set_input(IMAGES[i : i + 1], places["image"])
        micro.set_input(BUDGETS[i : i + 1], places["budget"])
        micro.invoke()
        by_micro = [micro.get_output(j) for j in range(5)]
        (chosen,) = [o for o in by_micro if o.dtype == np.int32]
        np.testing.assert_array_equal(chosen, choices[i : i + 1])
        by_litert = runner(image=IMAGES[i : i + 1], budget=BUDGETS[i : i + 1])
        np.testing.assert_array_equal(by_litert["choices"], chosen)


@pytest.mark.parametrize("quantization", ["float16", "dynamic", "int8"])
def test_quantization_leaves_the_curve_alone(model, tmp_path, quantization):
    images, _ = examples(60, seed=5)
    options = {"quantization": quantization}
    if quantization == "int8":
        options["calibration_data"] = [{"image": i[None]} for i in images]
    model.export(tmp_path / "m.tflite", "tflite", **options)
    content = (tmp_path / "m.tflite").read_bytes()
    file = flatbuffer_utils.convert_bytearray_to_object(bytearray(content))
    stored = [
        np.asarray(b.data).tobytes() for b in file.buffers if b.data is not None
    ]
    start = np.float32([0.79 - 0.03, 0.76 - 0.03])
    assert any(start.tobytes() in each for each in stored)
    artifact = open_artifact(tmp_path / "m.tflite", "tflite")
    gamma = np.float32([[g, 0.0] for g in GAMMAS])
    by_gamma = artifact.run({"image": IMAGES, "gamma": gamma})
    by_budget = artifact.run({"image": IMAGES, "budget": BUDGETS})
    # Activations of the two signatures are calibrated apart.
    np.testing.assert_allclose(
        by_budget["module_probabilities"],
        by_gamma["module_probabilities"],
        atol=0.05 if quantization == "int8" else 1e-4,
    )


def test_mixed_precision_keeps_its_calibration_on_devices(tmp_path):
    dense = keras.layers.Dense
    model = ct.Composer(
        [ct.Metalayer([dense(3, dtype="mixed_bfloat16"), dense(3)])],
        preferences=[ct.GlimpsePreference(ct.Uniform(-1.0, 1.0))],
    )
    model.build((None, 4))
    model.compile()
    calibration = model.calibrate(np.ones([4, 4], "float32"), num_gammas=2)
    facts = model.export(tmp_path / "m.onnx", "onnx")
    assert facts["calibration"]["gammas"] == list(calibration.gammas)


@pytest.mark.parametrize(
    ("format", "options", "message"),
    [
        ("onnx", {"steer_by": "time"}, "`steer_by` must be one of"),
        ("tflite", {"steer_by": "budget"}, "needs `micro`"),
        (
            "onnx",
            {"steer_by": "budget", "fix": {"glimpse": 0.0}},
            "needs a calibrated model",
        ),
    ],
)
def test_bad_options_leave_nothing_behind(
    model, tmp_path, format, options, message
):
    with pytest.raises(ValueError, match=message):
        model.export(tmp_path / "m", format, **options)
    assert not list(tmp_path.iterdir())


def test_a_wrong_curve_is_seen(model, folder):
    artifact = open_artifact(folder / "m.onnx", "onnx")
    images = {"image": IMAGES}
    routed = model.routed_model()
    other = GLIMPSE._replace(gammas=(-2.0, -1.5, -1.0, 6.0))
    errors = []
    for calibration in (GLIMPSE, other):
        exposure = expose(routed.gammas, calibration=calibration)
        model.export(
            folder / "forced.onnx",
            "onnx",
            steer_by="budget",
            with_override=True,
        )
        forced = open_artifact(folder / "forced.onnx", "onnx")
        result = compare(
            routed, exposure, artifact, forced, images, steer_by=["budget"]
        )
        errors.append(result.max_abs_error)
    assert errors[0] < 1e-4
    assert errors[1] > 1e-3
