import io
import types

import numpy as np
import pytest
import requests
import tensorflow as tf
import tensorflow_datasets as tfds

from composer_tf.datasets import (
    NAMES,
    DataUnavailableError,
    EpochShuffle,
    load,
    load_arrays,
)
from composer_tf.datasets.wide_mnist import wide_mnist_dataset_builder

DIGITS = "wide_mnist/digits"
SPLITS = ("train", "validation", "test")
SIZES = (2514, 360, 720)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Where the digits are prepared."""
    path = tmp_path_factory.mktemp("tensorflow_datasets")
    load_arrays(DIGITS, "test", path)
    return path


@pytest.fixture
def no_network(monkeypatch):
    """Nothing answers, and nothing may be tried beyond the first question."""
    asked = []

    def get(url, timeout, stream):
        asked.append((url, timeout))
        raise requests.exceptions.ConnectionError("unreachable")

    def download_and_prepare(builder, *args, **kwargs):
        raise AssertionError(f"tried to prepare {builder.name}")

    monkeypatch.setattr(requests, "get", get)
    monkeypatch.setattr(
        tfds.core.DatasetBuilder, "download_and_prepare", download_and_prepare
    )
    return asked


def test_digits_come_as_uint8_images_and_int64_labels(data_dir):
    for split, size in zip(SPLITS, SIZES, strict=True):
        images, labels = load_arrays(DIGITS, split, data_dir)
        assert (images.shape, images.dtype) == ((size, 28, 56, 1), np.uint8)
        assert (labels.shape, labels.dtype) == ((size,), np.int64)


def test_load_shuffles_train_and_keeps_the_order_of_the_others(data_dir):
    order = EpochShuffle(seed=5)
    train, validation = load(
        DIGITS,
        batch_size=100,
        splits=("train", "validation"),
        shuffle=order,
        data_dir=data_dir,
    )
    assert train.cardinality() == 2514 // 100
    assert validation.cardinality() == 4

    images, labels = load_arrays(DIGITS, "validation", data_dir)
    np.testing.assert_array_equal(
        np.concatenate([y for _, y in validation.as_numpy_iterator()]), labels
    )
    images, labels = load_arrays(DIGITS, "train", data_dir)
    rows = EpochShuffle(seed=5).permute(
        tf.range(100), len(labels), tf.constant(0, tf.int64)
    )
    batch_images, batch_labels = next(train.as_numpy_iterator())
    np.testing.assert_array_equal(batch_images, images[rows])
    np.testing.assert_array_equal(batch_labels, labels[rows])


def test_load_gives_train_and_test_and_takes_passes(data_dir):
    train, test = load(DIGITS, batch_size=1000, passes=3, data_dir=data_dir)
    assert train.cardinality() == 3 * 2
    assert [len(y) for _, y in test] == [720]


def test_an_environment_variable_says_where_the_data_is(
    data_dir, monkeypatch, no_network
):
    monkeypatch.setenv("TFDS_DATA_DIR", str(data_dir))
    assert len(load_arrays(DIGITS, "test")[1]) == 720


@pytest.mark.parametrize("name", ["wide_mnist", "mnsit", "wide_mnist/cifar"])
def test_an_unknown_name_is_refused(name):
    with pytest.raises(ValueError, match=rf"`name`.*{DIGITS}.*got '{name}'"):
        load(name)


def test_an_unknown_split_is_refused(no_network):
    with pytest.raises(ValueError, match=r"`splits`.*validation.*got 'dev'"):
        load(DIGITS, splits=("dev",))


@pytest.mark.parametrize("name", [n for n in NAMES if n != DIGITS])
def test_data_that_cannot_be_downloaded_is_told_at_once(
    name, tmp_path, no_network
):
    source = name.removeprefix("wide_mnist/")
    with pytest.raises(DataUnavailableError) as raised:
        load(name, data_dir=tmp_path)
    ((url, timeout),) = no_network
    assert timeout <= 10.0
    for part in (source, str(tmp_path), url, "ConnectionError", DIGITS):
        assert part in str(raised.value)


def test_a_server_that_has_lost_the_file_is_told_at_once(tmp_path, monkeypatch):
    gone = requests.Response()
    gone.status_code = 404
    gone.raw = io.BytesIO()
    monkeypatch.setattr(requests, "get", lambda url, **options: gone)
    with pytest.raises(DataUnavailableError, match="HTTPError: 404"):
        load("mnist", data_dir=tmp_path)


def test_a_download_that_breaks_is_told(tmp_path, monkeypatch):
    there = requests.Response()
    there.status_code = 200
    there.raw = io.BytesIO()

    def download_and_prepare(builder):
        raise tfds.download.DownloadError("cut off")

    monkeypatch.setattr(requests, "get", lambda url, **options: there)
    monkeypatch.setattr(
        tfds.core.DatasetBuilder, "download_and_prepare", download_and_prepare
    )
    with pytest.raises(DataUnavailableError, match="DownloadError: cut off"):
        load("cifar10", data_dir=tmp_path)


class NumberedRows:
    """In place of TFDS's MNIST: its sizes, and row numbers for images."""

    _splits = tfds.core.SplitDict(
        [
            tfds.core.SplitInfo(name=name, shard_lengths=[size], num_bytes=0)
            for name, size in (("train", 60000), ("test", 10000))
        ]
    )
    info = types.SimpleNamespace(splits=_splits)

    def is_prepared(self):
        return True

    def download_and_prepare(self):
        pass

    def as_dataset(self, split, **kwargs):
        instruction = tfds.core.ReadInstruction.from_spec(split)
        (part,) = instruction.to_absolute(self._splits)
        size = sum(self._splits[part.splitname].shard_lengths)
        rows = tf.range(size)[part.from_ : part.to]
        return rows, rows


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_data_without_a_validation_split_validates_on_the_end_of_train(
    name, monkeypatch
):
    monkeypatch.setattr(tfds, "builder", lambda *_, **__: NumberedRows())
    rows = {split: load_arrays(name, split)[0] for split in SPLITS}
    check_rows(rows)


def test_wide_mnist_splits_mnist_in_the_same_way(monkeypatch, tmp_path):
    monkeypatch.setattr(tfds, "builder", lambda *_, **__: NumberedRows())
    digits = wide_mnist_dataset_builder.read_mnist(tmp_path)
    check_rows({split: images for split, (images, _) in digits.items()})


def check_rows(rows):
    assert [len(rows[split]) for split in SPLITS] == [55000, 5000, 10000]
    np.testing.assert_array_equal(
        np.concatenate([rows["train"], rows["validation"]]), np.arange(60000)
    )
