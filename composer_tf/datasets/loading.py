"""Loads a data set by name, or fails within seconds and says why."""

import functools
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import requests
import tensorflow as tf
import tensorflow_datasets as tfds

from composer_tf import validation
from composer_tf.datasets import pipelines
from composer_tf.datasets.augmentation import shift_and_flip
from composer_tf.datasets.epoch_shuffle import EpochShuffle
from composer_tf.datasets.wide_mnist import (
    wide_mnist_dataset_builder as wide_mnist,
)

# Data set to the TFDS data set that has to be downloaded for it.
_DOWNLOADS = {
    "wide_mnist/digits": None,
    "wide_mnist/mnist": "mnist",
    "mnist": "mnist",
    "cifar10": "cifar10",
}
NAMES = tuple(_DOWNLOADS)
_shift = functools.partial(shift_and_flip, max_shift=2, flip=False)
_AUGMENTATIONS = {
    "wide_mnist/digits": _shift,
    "wide_mnist/mnist": _shift,
    "mnist": _shift,
    "cifar10": shift_and_flip,
}
_TIMEOUT_SECONDS = 5.0
_DOWNLOAD_ERRORS = (
    requests.exceptions.RequestException,
    tfds.download.DownloadError,
)


class DataUnavailableError(RuntimeError):
    """A data set is neither on this machine nor can it be downloaded."""


def load(
    name: str,
    batch_size: int = 128,
    splits: Sequence[str] = ("train", "test"),
    shuffle: EpochShuffle | None = None,
    passes: int = 1,
    augment: bool = False,
    data_dir: str | os.PathLike | None = None,
) -> tuple[tf.data.Dataset, ...]:
    """Loads a data set as `tf.data` pipelines, preparing it the first time.

    Args:
        name: One of `NAMES`: `"wide_mnist/digits"` (no download),
            `"wide_mnist/mnist"`, `"mnist"`, `"cifar10"`.
        batch_size: Examples per batch. Defaults to 128.
        splits: Names among `"train"`, `"validation"` and `"test"`. Defaults to
            train and test.
        shuffle: Shuffle that orders the train split. Defaults to
            `EpochShuffle(0)`. Pass the same object to the callbacks of `fit`
            for a run that can resume.
        passes: Passes over the train split in one epoch. Defaults to 1.
        augment: Whether to shift, and in CIFAR-10 mirror, the train split's
            images at random. Defaults to false.
        data_dir: Data folder of TFDS. Defaults to `$TFDS_DATA_DIR` or TFDS's
            own default.

    Returns:
        One data set per split, of (uint8 `[B, H, W, C]`, int64 `[B]`). The
        train split is shuffled and drops its remainder.

    Raises:
        ValueError: If the name or a split is unknown, the batch size is larger
            than the data, or `passes` is less than 1.
        DataUnavailableError: If the data has to be downloaded and cannot be.
    """
    datasets = []
    for split in splits:
        images, labels = load_arrays(name, split, data_dir)
        if split == "train":
            order = EpochShuffle() if shuffle is None else shuffle
            data = pipelines.batches(
                images,
                labels,
                batch_size,
                order,
                passes,
                _AUGMENTATIONS[name] if augment else None,
            )
        else:
            data = pipelines.batches(
                images, labels, min(batch_size, len(images))
            )
        datasets.append(data)
    return tuple(datasets)


def load_arrays(
    name: str, split: str, data_dir: str | os.PathLike | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """A whole split in memory: images uint8 `[N, H, W, C]`, labels int64 `[N]`.

    Arguments and errors are those of `load`.
    """
    if split not in wide_mnist.SPLITS:
        raise ValueError(
            f"`splits` must be of {tuple(wide_mnist.SPLITS)}, got {split!r}."
        )
    builder: Any = _prepared_builder(name, data_dir)
    has_validation = "validation" in builder.info.splits
    tfds_split = split if has_validation else wide_mnist.SPLITS[split]
    images, labels = tfds.as_numpy(
        builder.as_dataset(split=tfds_split, batch_size=-1, as_supervised=True)
    )
    return images, labels


def label_names(
    name: str, data_dir: str | os.PathLike | None = None
) -> list[str]:
    """The names of the classes, in the order of the labels.

    Arguments and errors are those of `load`.
    """
    features: Any = _prepared_builder(name, data_dir).info.features
    return features["label"].names


def _prepared_builder(
    name: str, data_dir: str | os.PathLike | None
) -> tfds.core.DatasetBuilder:
    validation.check_choice("name", name, NAMES)
    if name.startswith("wide_mnist/"):
        config = name.removeprefix("wide_mnist/")
        builder = wide_mnist.Builder(config=config, data_dir=data_dir)
    else:
        builder = tfds.builder(name, data_dir=data_dir)
    if builder.is_prepared():
        return builder
    source = _DOWNLOADS[name]
    if source is not None:
        _download(tfds.builder(source, data_dir=data_dir))
    builder.download_and_prepare()
    return builder


def _download(source: tfds.core.DatasetBuilder) -> None:
    """Prepares a data set that must be fetched, or says how to offline."""
    if source.is_prepared():
        return
    url = next(iter(source.url_infos or {}))
    try:
        # TFDS itself would retry for minutes before it gives up.
        with requests.get(url, stream=True, timeout=_TIMEOUT_SECONDS) as probe:
            probe.raise_for_status()
        source.download_and_prepare()
    except _DOWNLOAD_ERRORS as error:
        raise DataUnavailableError(
            f"Data set {source.name!r} is not prepared in {source.data_dir} "
            f"and cannot be downloaded from {url}: "
            f"{type(error).__name__}: {error}. On a machine with internet run\n"
            f'    python -c "import tensorflow_datasets as tfds; '
            f"tfds.load('{source.name}', data_dir='DIR')\"\n"
            "copy DIR here and set TFDS_DATA_DIR to it. "
            "'wide_mnist/digits' needs no download."
        ) from error
