"""From a .keras file to a verified artifact, or to nothing at all."""

import dataclasses
import json
import pathlib
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

import composer_tf as ct
from composer_tf import exporters
from composer_tf.deployment import (
    DeploymentError,
    acceptance,
    deploy,
    deployment,
)
from composer_tf.exporters import saved_model
from composer_tf.exporters.artifacts import LiteRTArtifact
from composer_tf.exporters.exposure import expose
from tests.exporters.small_composer import composer, examples

KEYS = {
    "format",
    "bytes",
    "bytes_of_weights",
    "verified_on",
    "num_examples",
    "max_abs_error",
    "max_abs_error_by_output",
    "max_relative_error",
    "choice_agreement",
    "latency_ratio_cheapest",
    "latency_ratio_full",
}


@pytest.mark.parametrize(
    ("format", "name"),
    [("tf_saved_model", "1"), ("tflite", "m.tflite"), ("onnx", "m.onnx")],
)
def test_an_artifact_comes_with_its_report(folder, tmp_path, format, name):
    report = deploy(
        folder / "m.keras",
        tmp_path / "new" / name,
        format,
        data=str(folder / "data.npz"),
    )
    assert report.keys() >= KEYS | {"accuracy_model", "accuracy_artifact"}
    assert report["verified_on"] == str(folder / "data.npz")
    assert report["max_abs_error"] < 1e-5
    assert report["max_abs_error_by_output"].keys() == {
        "logits",
        "probabilities",
        "module_probabilities",
        "cost",
    }
    assert report["choice_agreement"] == 1.0
    assert report["accuracy_model"] == report["accuracy_artifact"] > 0.5
    assert report["latency_ratio_full"] > 0.0
    written = json.loads((tmp_path / "new" / f"{name}.report.json").read_text())
    assert written == report
    left = {path.name for path in (tmp_path / "new").iterdir()}
    described = set() if format == "tf_saved_model" else {f"{name}.json"}
    assert left == {name, f"{name}.report.json"} | described


def test_a_model_and_arrays_in_memory_are_deployed_too(folder, tmp_path):
    with np.load(folder / "data.npz") as file:
        data = dict(file)
    report = deploy(
        composer(), tmp_path / "m.tflite", "tflite", data, quantization="int8"
    )
    assert report["verified_on"] == "arrays"
    assert report["num_examples"] == len(data["image"]) // 2
    assert 0.0 < report["accuracy_artifact"] < 1.0
    del data["image"]
    with pytest.raises(DeploymentError, match="`data` must hold 'image'"):
        deploy(composer(), tmp_path / "m.onnx", "onnx", data)


def test_a_server_is_warmed_by_real_examples(folder, tmp_path):
    deploy(
        folder / "m.keras",
        tmp_path / "1",
        "tf_saved_model",
        data=str(folder / "data.npz"),
        verify=False,
        warmup_requests=3,
    )
    records = tf.data.TFRecordDataset(
        str(tmp_path / "1" / "assets.extra" / "tf_serving_warmup_requests")
    )
    with np.load(folder / "data.npz") as data:
        real = {image.tobytes() for image in data["image"].astype(np.float32)}
    requests = [
        prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
        for record in records.as_numpy_iterator()
    ]
    assert len(requests) == 3
    for request in requests:
        assert tf.make_ndarray(request.inputs["image"])[0].tobytes() in real


@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("tf_saved_model", {}),
        ("tflite", {}),
        ("onnx", {"steer_by": "budget"}),
    ],
)
def test_budgets_are_verified_too(
    folder, tmp_path, monkeypatch, format, options
):
    model: Any = keras.models.load_model(folder / "m.keras")
    model.calibrate(examples(64)[0], num_gammas=5)
    model.save(tmp_path / "m.keras")
    report = deploy(tmp_path / "m.keras", tmp_path / "1", format, **options)
    assert report["verified_on"] == "random inputs"
    assert report["choice_agreement"] == 1.0
    assert report["latency_ratio_full"] > 0.0
    other = model.calibration._replace(gammas=(6.0, 5.0, 4.0, 3.0, 2.0))
    export = exporters.export

    def wrong(model, path, format, **options):
        """The artifact with another curve."""
        if model.calibration is not None:
            model = dataclasses.replace(model, calibration=other)
        return export(model, path, format, **options)

    monkeypatch.setattr(deployment.exporters, "export", wrong)
    with pytest.raises(DeploymentError, match="failed its verification"):
        deploy(tmp_path / "m.keras", tmp_path / "2", format, **options)


def test_int8_is_calibrated_on_the_data(folder, tmp_path):
    report = deploy(
        folder / "m.keras",
        tmp_path / "m.tflite",
        "tflite",
        data=str(folder / "data.npz"),
        quantization="int8",
    )
    assert report["choice_agreement"] >= 0.99
    with pytest.raises(DeploymentError, match="needs `data`"):
        deploy(
            folder / "m.keras",
            tmp_path / "other.tflite",
            "tflite",
            quantization="int8",
        )


def test_a_signature_for_batches_is_verified_too(folder, tmp_path):
    deploy(
        folder / "m.keras",
        tmp_path / "m.tflite",
        "tflite",
        data=str(folder / "data.npz"),
        quantization="dynamic",
        batch_size=5,
    )
    one = LiteRTArtifact(tmp_path / "m.tflite")
    five = LiteRTArtifact(tmp_path / "m.tflite", batched=True)
    assert five.batch_size == 5
    with np.load(folder / "data.npz") as data:
        images = data["image"][:7].astype(np.float32)
    gamma = np.linspace([-2.0, 0.0], [6.0, 1.0], 7, dtype=np.float32)
    feed = {"image": images, "gamma": gamma}
    for name, values in one.run(feed).items():
        np.testing.assert_allclose(five.run(feed)[name], values, atol=1e-5)


def test_an_existing_artifact_is_replaced_on_request_only(folder, tmp_path):
    target = tmp_path / "m.onnx"
    target.write_text("mine")
    with pytest.raises(DeploymentError, match="exists"):
        deploy(folder / "m.keras", target, "onnx", verify=False)
    assert target.read_text() == "mine"
    report = deploy(
        folder / "m.keras", target, "onnx", verify=False, overwrite=True
    )
    assert report["bytes"] == target.stat().st_size


@pytest.mark.parametrize(
    ("format", "name", "beside"),
    [
        ("tf_saved_model", "1", ["1.report.json"]),
        ("tflite", "m.tflite", ["m.tflite.json", "m.tflite.report.json"]),
    ],
)
def test_files_beside_an_artifact_are_replaced_on_request_only(
    folder, tmp_path, format, name, beside
):
    mine = tmp_path / f"{name}.txt"
    mine.write_text("mine")
    for file in beside:
        (tmp_path / file).write_text("mine")
        with pytest.raises(DeploymentError, match=f"{file} exists"):
            deploy(folder / "m.keras", tmp_path / name, format, verify=False)
        assert (tmp_path / file).read_text() == "mine"
        (tmp_path / file).unlink()
    if format == "tf_saved_model":  # It writes no such file.
        mine = tmp_path / f"{name}.json"
        mine.write_text("mine")
    for overwrite in (False, True):
        deploy(
            folder / "m.keras",
            tmp_path / name,
            format,
            verify=False,
            overwrite=overwrite,
        )
        assert mine.read_text() == "mine"


@pytest.mark.parametrize(
    ("format", "name"),
    [("tf_saved_model", "1"), ("tflite", "m.tflite"), ("onnx", "m.onnx")],
)
def test_an_artifact_is_hardly_larger_than_its_weights(tmp_path, format, name):
    modules = [keras.layers.Dense(units) for units in (1000, 2000)]
    head = keras.layers.Dense(1000)
    modules = [keras.Sequential([m, keras.layers.Dense(500)]) for m in modules]
    model = ct.Composer(
        [ct.Metalayer(modules), head],
        preferences=[ct.GlimpsePreference(ct.Uniform(-1.0, 1.0))],
    )
    model.build((None, 500))
    model.compile()
    model.save(tmp_path / "m.keras")
    report = deploy(tmp_path / "m.keras", tmp_path / name, format, verify=False)
    weights = 4 * model.count_params()
    assert report["bytes_of_weights"] == pytest.approx(weights, rel=1e-4)
    assert 0.95 * weights < report["bytes"] < 1.05 * weights
    if format == "tflite":
        images = np.random.default_rng(0).normal(size=(40, 500))
        np.savez(tmp_path / "data.npz", image=images.astype(np.float32))
        small = deploy(
            tmp_path / "m.keras",
            tmp_path / "int8.tflite",
            format,
            data=str(tmp_path / "data.npz"),
            quantization="int8",
            batch_size=4,
            verify=False,
        )
        assert small["bytes"] < 0.35 * report["bytes"]


@pytest.mark.parametrize("format", ["tf_saved_model", "tflite", "onnx"])
def test_what_is_no_artifact_is_not_replaced(folder, tmp_path, format):
    mine = tmp_path / "mine" / "thesis.txt"
    mine.parent.mkdir()
    mine.write_text("mine")
    saved: Any = keras.models.load_model(folder / "m.keras")
    paths = [mine.parent] + [mine] * (format == "tf_saved_model")
    for path in paths:
        with pytest.raises(ValueError, match=f"{path} is a f"):
            deploy(folder / "m.keras", path, format, overwrite=True)
        with pytest.raises(ValueError, match=f"{path} is a f"):
            saved.export(path, format)
        assert mine.read_text() == "mine"


def test_a_symbolic_link_is_not_replaced(folder, tmp_path):
    saved: Any = keras.models.load_model(folder / "m.keras")
    saved.export(tmp_path / "1")
    for name, points_to in (("latest", "1"), ("lost", "nowhere")):
        link = tmp_path / name
        link.symlink_to(points_to)
        message = f"{link} is a symbolic link.*: name .*, {points_to}"
        with pytest.raises(ValueError, match=message):
            deploy(folder / "m.keras", link, "tf_saved_model", overwrite=True)
        with pytest.raises(ValueError, match=message):
            saved.export(link)
        assert link.readlink() == pathlib.Path(points_to)


def test_labels_are_classes_of_the_model(folder, tmp_path):
    arrays = dict(np.load(folder / "data.npz"))
    arrays["labels"] = arrays["labels"] + 100
    np.savez(tmp_path / "data.npz", **arrays)
    with pytest.raises(ValueError, match=r"labels from 1\d\d to 1\d\d, but"):
        deploy(
            folder / "m.keras",
            tmp_path / "m.tflite",
            "tflite",
            data=str(tmp_path / "data.npz"),
        )


def test_the_main_signature_is_verified_where_no_gamma_is_an_input(
    folder, tmp_path, monkeypatch
):
    paths = folder / "m.keras", tmp_path / "1", "tf_saved_model"
    options = {"fix": {"glimpse": 1.0, "entropy": 0.0}, "overwrite": True}
    deploy(*paths, **options)
    signature = saved_model.signature

    def wrong(model, exposure, routing, **options):
        """`serving_default` at another gamma."""
        if not options:
            exposure = expose(model.gammas, {"glimpse": -2.0, "entropy": 0.0})
        return signature(model, exposure, routing, **options)

    monkeypatch.setattr(saved_model, "signature", wrong)
    with pytest.raises(DeploymentError, match="failed its verification"):
        deploy(*paths, **options)


def test_what_cannot_be_replaced_stays_whole(folder, tmp_path, monkeypatch):
    paths = folder / "m.keras", tmp_path / "m.onnx", "onnx"
    options = {"verify": False, "overwrite": True}
    deploy(*paths, **options)
    old = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def full(path):
        raise OSError("No space left on device.")

    monkeypatch.setattr(deployment, "atomic_path", full)
    with pytest.raises(OSError, match="No space"):
        deploy(*paths, **options)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == old


def test_litert_is_another_name_of_tflite(folder, tmp_path):
    target = tmp_path / "m.tflite"
    report = deploy(folder / "m.keras", target, "litert", verify=False)
    assert report["format"] == "tflite"
    with pytest.raises(ValueError, match=r"`format` must be one of.*'torch'"):
        deploy(folder / "m.keras", tmp_path / "m", "torch")
    with pytest.raises(ValueError, match="suffix is for format='onnx'"):
        deploy(folder / "nowhere.keras", tmp_path / "m.onnx", "litert")


def test_a_failed_verification_leaves_nothing(folder, tmp_path, monkeypatch):
    export = exporters.export

    def wrong(model, path, format, **options):
        """The artifact of another model."""
        return export(composer(seed=1).routed_model(), path, format, **options)

    monkeypatch.setattr(deployment.exporters, "export", wrong)
    with pytest.raises(DeploymentError, match="failed its verification"):
        deploy(folder / "m.keras", tmp_path / "m.onnx", "onnx")
    assert not list(tmp_path.iterdir())


def test_a_failed_verification_keeps_the_old_one(folder, tmp_path, monkeypatch):
    target = tmp_path / "m.onnx"
    deploy(folder / "m.keras", target, "onnx", verify=False)
    old = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    monkeypatch.setattr(acceptance, "_TOLERANCES", {"none": -1.0})
    random = r"logits differ.*\. The inputs were random, .* 255; `data` verif"
    with pytest.raises(DeploymentError, match=random):
        deploy(folder / "m.keras", target, "onnx", overwrite=True)
    options = {"data": str(folder / "data.npz"), "overwrite": True}
    with pytest.raises(DeploymentError, match="logits differ") as real:
        deploy(folder / "m.keras", target, "onnx", **options)
    assert "random" not in str(real.value)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == old


def test_labels_of_any_integer_shape_and_none_for_regression(folder, tmp_path):
    with np.load(folder / "data.npz") as file:
        arrays = dict(file)
    arrays["labels"] = arrays["labels"][:, None]
    np.savez(tmp_path / "data.npz", **arrays)
    options = {"data": str(tmp_path / "data.npz"), "overwrite": True}
    report = deploy(folder / "m.keras", tmp_path / "m.onnx", "onnx", **options)
    assert report["accuracy_model"] == report["accuracy_artifact"] > 0.5
    model = composer()
    model.compile("sgd", "mse")
    model.save(tmp_path / "regression.keras")
    regression = (tmp_path / "regression.keras", tmp_path / "m.onnx", "onnx")
    with pytest.raises(ValueError, match="leave them out"):
        deploy(*regression, **options)
    del arrays["labels"]
    arrays["image"] = 10.0 * arrays["image"]  # Outputs of any scale.
    np.savez(tmp_path / "data.npz", **arrays)
    report = deploy(*regression, **options)
    assert report["max_abs_error"] < 1e-5
    assert 0.0 < report["max_relative_error"] < 1e-5
