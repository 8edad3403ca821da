"""Each config in the manner of TFDS, then what Wide-MNIST promises."""

from unittest import mock

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from sklearn.datasets import load_digits

from composer_tf.datasets.wide_mnist import (
    wide_mnist_dataset_builder as wide_mnist,
)

SPLITS = ("train", "validation", "test")


def read_dummy_mnist(data_dir):
    """A few digits in place of those of `read_mnist`."""
    del data_dir
    path = wide_mnist.Builder.code_path.parent / "dummy_data" / "mnist.npz"
    with tf.io.gfile.GFile(path, "rb") as file:
        arrays = np.load(file)
        return {
            split: (arrays[f"{split}_images"], arrays[f"{split}_digits"])
            for split in SPLITS
        }


class WideMnistDigitsTest(tfds.testing.DatasetBuilderTestCase):
    DATASET_CLASS = wide_mnist.Builder
    BUILDER_CONFIG_NAMES_TO_TEST = ["digits"]
    SPLITS = {"train": 2514, "validation": 360, "test": 720}


class WideMnistMnistTest(tfds.testing.DatasetBuilderTestCase):
    DATASET_CLASS = wide_mnist.Builder
    BUILDER_CONFIG_NAMES_TO_TEST = ["mnist"]
    SPLITS = {"train": 20, "validation": 6, "test": 8}

    def setUp(self):
        super().setUp()
        patcher = mock.patch.object(wide_mnist, "read_mnist", read_dummy_mnist)
        patcher.start()
        self.patchers.append(patcher)


@pytest.fixture(scope="module")
def builder(tmp_path_factory):
    """With the config `digits` prepared."""
    path = tmp_path_factory.mktemp("tensorflow_datasets")
    builder = wide_mnist.Builder(config="digits", data_dir=path)
    builder.download_and_prepare()
    return builder


@pytest.fixture(params=SPLITS)
def split(request, builder):
    """Images `[N, 28, 56]` and labels `[N]` of each split."""
    images, labels = tfds.as_numpy(
        builder.as_dataset(
            split=request.param, batch_size=-1, as_supervised=True
        )
    )
    return images[..., 0], labels


def sources(images, labels):
    """The halves that hold the digits."""
    left = labels[:, np.newaxis, np.newaxis] < 10
    return np.where(left, images[:, :, :28], images[:, :, 28:])


def fingerprints(images):
    return {image.tobytes() for image in images}


def test_the_half_that_the_label_names_holds_a_digit_and_the_other_is_black(
    split,
):
    images, labels = split
    ink = np.stack(
        [images[:, :, :28].max((1, 2)), images[:, :, 28:].max((1, 2))], axis=1
    )
    rows, side = np.arange(len(labels)), labels // 10
    assert np.all(ink[rows, side] > 0)
    assert np.all(ink[rows, 1 - side] == 0)


def test_sides_are_balanced_in_every_class(split):
    _, labels = split
    counts = np.bincount(labels, minlength=20)
    np.testing.assert_array_equal(counts[:10], counts[10:])
    assert counts.min() > 0


def test_every_digit_is_once_left_and_once_right_with_one_name(split):
    images, labels = split
    digits = {}
    for source, label in zip(sources(images, labels), labels, strict=True):
        digits.setdefault(source.tobytes(), []).append(label)
    assert all(
        (left + 10, len(others)) == (right, 0)
        for left, right, *others in map(sorted, digits.values())
    )


def test_splits_share_no_source_digit(builder):
    seen = []
    for name in SPLITS:
        images, labels = tfds.as_numpy(
            builder.as_dataset(split=name, batch_size=-1, as_supervised=True)
        )
        seen.append(fingerprints(sources(images[..., 0], labels)))
    assert [len(split) for split in seen] == [1257, 180, 360]
    assert len(set.union(*seen)) == 1797


def test_labels_are_the_digits_that_scikit_learn_names():
    digits = wide_mnist.read_digits()
    data = load_digits()
    truth = dict(
        zip(
            (image.tobytes() for image in wide_mnist.enlarge(data.images)),
            data.target,
            strict=True,
        )
    )
    for images, labels in digits.values():
        named = [truth[image.tobytes()] for image in images]
        np.testing.assert_array_equal(named, labels)


def test_label_names_are_side_and_digit(builder):
    label = builder.info.features["label"]
    assert label.num_classes == 20
    assert label.int2str(0) == "left_0"
    assert label.int2str(9) == "left_9"
    assert label.int2str(10) == "right_0"
    assert label.int2str(19) == "right_9"


def test_enlarging_keeps_black_white_and_the_mean_in_between():
    images = np.zeros([2, 8, 8])
    images[0] = 16.0
    images[1, :, 4:] = 16.0
    enlarged = wide_mnist.enlarge(images)
    assert (enlarged.shape, enlarged.dtype) == ((2, 28, 28, 1), np.uint8)
    assert np.all(enlarged[0] == 255)
    row = enlarged[1, 0, :, 0].astype(int)
    assert np.all(np.diff(row) >= 0)
    np.testing.assert_array_equal(row + row[::-1], 255)
    assert (row[0], row[-1]) == (0, 255)


def test_mnist_is_looked_for_where_this_data_set_is(tmp_path):
    builder = wide_mnist.Builder(config="mnist", data_dir=tmp_path)
    with mock.patch.object(
        wide_mnist, "read_mnist", side_effect=read_dummy_mnist
    ) as read_mnist:
        builder.download_and_prepare()
    (data_dir,) = read_mnist.call_args.args
    assert str(data_dir) == str(tmp_path)
