"""The TFDS builder of Wide-MNIST."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from etils import epath
from sklearn.datasets import load_digits

SIZE = 28
NUM_DIGITS = 10
SIDES = ("left", "right")
# Splits of TFDS, for data sets that have no validation split of their own.
SPLITS = {
    "train": "train[:-5000]",
    "validation": "train[-5000:]",
    "test": "test",
}

Digits = tuple[np.ndarray, np.ndarray]


@dataclasses.dataclass
class WideMnistConfig(tfds.core.BuilderConfig):
    """Which digits to use: `source` is `"mnist"` or `"digits"`."""

    source: str = "digits"


class Builder(tfds.core.GeneratorBasedBuilder):
    """Each digit once in the left and once in the right half of 28x56."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "Initial release."}
    BUILDER_CONFIGS = [
        WideMnistConfig(
            name="digits",
            source="digits",
            description="8x8 digits inside scikit-learn, enlarged to 28x28.",
        ),
        WideMnistConfig(
            name="mnist", source="mnist", description="28x28 digits of MNIST."
        ),
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(SIZE, 2 * SIZE, 1)),
                    "label": tfds.features.ClassLabel(
                        names=[
                            f"{side}_{digit}"
                            for side in SIDES
                            for digit in range(NUM_DIGITS)
                        ]
                    ),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://arxiv.org/abs/1702.07780",
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager):
        config: Any = self.builder_config
        if config.source == "mnist":
            # The data directory holds name/config/version.
            splits = read_mnist(epath.Path(self.data_dir).parents[2])
        else:
            splits = read_digits()
        return {
            split: self._generate_examples(images, digits)
            for split, (images, digits) in splits.items()
        }

    def _generate_examples(
        self, images: np.ndarray, digits: np.ndarray
    ) -> Iterator[tuple[str, dict]]:
        for index, (image, digit) in enumerate(
            zip(images, digits, strict=True)
        ):
            for side, name in enumerate(SIDES):
                wide = np.zeros([SIZE, 2 * SIZE, 1], np.uint8)
                wide[:, side * SIZE : (side + 1) * SIZE] = image
                label = int(digit) + NUM_DIGITS * side
                yield f"{index}_{name}", {"image": wide, "label": label}


def read_mnist(data_dir: epath.PathLike) -> dict[str, Digits]:
    """MNIST from TFDS, downloaded if necessary.

    Args:
        data_dir: Data folder of TFDS.

    Returns:
        Images uint8 `[N, 28, 28, 1]` and digits int64 `[N]` of each split.
    """
    builder: Any = tfds.builder("mnist", data_dir=data_dir)
    builder.download_and_prepare()
    return {
        name: tfds.as_numpy(
            builder.as_dataset(split=split, batch_size=-1, as_supervised=True)
        )
        for name, split in SPLITS.items()
    }


def read_digits() -> dict[str, Digits]:
    """The 1,797 digits inside scikit-learn, split by position.

    Returns:
        Images uint8 `[N, 28, 28, 1]` and digits int64 `[N]` of each split.
    """
    data: Any = load_digits()
    images = enlarge(data.images)
    index = np.arange(len(images))
    test = index % 5 == 0
    validation = ~test & (index % 10 == 1)
    masks = {
        "train": ~(test | validation),
        "validation": validation,
        "test": test,
    }
    return {
        name: (images[mask], data.target[mask]) for name, mask in masks.items()
    }


def enlarge(images: np.ndarray) -> np.ndarray:
    """Gray levels 0 to 16, `[N, 8, 8]`, to uint8 `[N, 28, 28, 1]`, bilinear."""
    resized = tf.image.resize(images[..., np.newaxis], [SIZE, SIZE])
    return np.round(resized.numpy() * (255.0 / 16.0)).astype(np.uint8)
