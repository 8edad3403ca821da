"""Data that fits a model, and what is said of data that does not."""

import dataclasses
import zipfile

import numpy as np
import pytest
import tensorflow as tf

from composer_tf.deployment import DeploymentError, examples
from tests.exporters.small_composer import INPUT, composer

IMAGES = np.zeros([6, *INPUT])
LABELS = np.arange(6)


@pytest.fixture(scope="module", name="model")
def _model():
    return composer().routed_model()


def read(model, tmp_path, split="test", **arrays):
    np.savez(tmp_path / "data.npz", **arrays)
    return examples.read(str(tmp_path / "data.npz"), model, split, 4)


@pytest.mark.parametrize(
    "labels", [LABELS, LABELS[:, None], LABELS.astype(np.uint8)]
)
def test_none_is_calibrated_on_and_judged_by(model, tmp_path, labels):
    images = IMAGES + LABELS[:, None, None, None]
    arrays = {"image": images, "labels": labels}
    both = []
    for split in ("train", "test"):
        found = read(model, tmp_path, split, **arrays)
        assert found.inputs["image"].dtype == np.float32
        rows = found.inputs["image"][:, 0, 0, 0]
        np.testing.assert_array_equal(rows, found.labels)
        assert found.source == str(tmp_path / "data.npz")
        both += found.labels.tolist()
    assert sorted(both) == LABELS.tolist()
    assert read(model, tmp_path, image=IMAGES).labels is None
    many = np.repeat(IMAGES, 3, axis=0)
    assert len(read(model, tmp_path, image=many).inputs["image"]) == 4


def test_one_row_is_not_enough_to_calibrate_and_judge(model, tmp_path):
    assert len(read(model, tmp_path, image=IMAGES[:1]).inputs["image"]) == 1
    with pytest.raises(DeploymentError, match=r"2 rows or more.* got 1"):
        read(model, tmp_path, "train", image=IMAGES[:1])


def test_inputs_of_integers_are_whole_numbers(model, tmp_path):
    spec = {"image": tf.TensorSpec([None, *INPUT], tf.uint8, "image")}
    of_bytes = dataclasses.replace(model, inputs=spec)
    found = read(of_bytes, tmp_path, image=IMAGES + 255.0).inputs["image"]
    assert found.dtype == np.uint8
    assert (found == 255).all()
    for images, got in ((IMAGES + 0.5, "0.5 to 0.5"), (IMAGES - 1, "-1 to -1")):
        with pytest.raises(DeploymentError, match=f"of uint8, .* {got}"):
            read(of_bytes, tmp_path, image=images)


@pytest.mark.parametrize(
    ("labels", "got"),
    [
        (np.eye(6, dtype=int), r"\(6, 6\), dtype int64"),  # One-hot.
        (np.arange(100), r"\(100,\), dtype int64"),
        (LABELS[:5], r"\(5,\), dtype int64"),
        (LABELS + 0.5, r"\(6,\), dtype float64"),
    ],
)
def test_labels_are_one_integer_for_each_row(model, tmp_path, labels, got):
    message = rf"In `data`, `labels` .* here \[6\], got shape {got}"
    with pytest.raises(DeploymentError, match=message):
        read(model, tmp_path, image=IMAGES, labels=labels)


def test_inputs_are_rows_of_the_models_shape(model, tmp_path):
    with pytest.raises(DeploymentError, match=r"1 or more.*'image': 0"):
        read(model, tmp_path, image=IMAGES[:0])
    with pytest.raises(DeploymentError, match=r"rows of shape \(8, 8, 1\)"):
        read(model, tmp_path, image=np.zeros([3, 9, 9, 1]))
    with pytest.raises(DeploymentError, match="must hold 'image'"):
        read(model, tmp_path, labels=LABELS)
    with pytest.raises(DeploymentError, match=r"`data` must be of .*got 'x'"):
        examples.read("x", model, "test", 4)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (IMAGES + 1e300, "finite numbers of float32"),
        (IMAGES * np.nan, "finite numbers of float32"),
        (IMAGES + 1j, "as float32, got complex128"),
        (IMAGES.astype("datetime64[s]"), "as float32, got datetime64"),
    ],
)
def test_inputs_of_numbers_are_finite_real_ones(
    model, tmp_path, images, message
):
    with pytest.raises(DeploymentError, match=message):
        read(model, tmp_path, image=images)


def test_text_is_for_inputs_of_text(model, tmp_path):
    words = np.full([6, *INPUT], "word")
    with pytest.raises(DeploymentError, match="as float32, got <U4"):
        read(model, tmp_path, image=words)
    spec = {"image": tf.TensorSpec([None, *INPUT], tf.string, "image")}
    of_text = dataclasses.replace(model, inputs=spec)
    found = read(of_text, tmp_path, image=words).inputs["image"]
    np.testing.assert_array_equal(found, words[:3])
    with pytest.raises(DeploymentError, match="as string, got float64"):
        read(of_text, tmp_path, image=IMAGES)


def one_array(path):
    with path.open("wb") as file:
        np.save(file, IMAGES)


def zipped(path):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("image", "no array")


def damaged(path):
    """An .npz file with other bytes amid its arrays."""
    np.savez_compressed(path, image=np.random.default_rng(0).random([6, 64]))
    content = bytearray(path.read_bytes())
    content[100:300] = bytes(200)
    path.write_bytes(content)


@pytest.mark.parametrize(
    "write",
    [
        one_array,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"PK\x03\x04 and no more"),
        lambda path: path.write_text("no array"),
        zipped,
        lambda path: np.savez(path, image=np.array([None])),
        damaged,
    ],
    ids=["npy", "empty", "cut", "text", "zip", "objects", "damaged"],
)
def test_a_file_that_holds_no_arrays_is_named(model, tmp_path, write):
    path = tmp_path / "data.npz"
    write(path)
    with pytest.raises(DeploymentError, match=r"an \.npz file of arrays"):
        examples.read(str(path), model, "test", 4)


@pytest.mark.parametrize("name", ["label", "gamma", "picture"])
def test_an_array_that_nothing_reads_is_refused(model, tmp_path, name):
    with pytest.raises(
        DeploymentError, match=rf"\['image', 'labels'\], got \['{name}'\]"
    ):
        read(model, tmp_path, image=IMAGES, **{name: LABELS})
