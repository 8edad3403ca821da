"""What int8 may be calibrated on; `litert_test` calibrates."""

import numpy as np
import pytest
import tensorflow as tf

from tests.exporters.small_composer import composer

IMAGE = np.zeros([1, 8, 8, 1], np.float32)
WANTED = r"one row, {'image': \(1, 8, 8, 1\)}, got "


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "needs `calibration_data`"),
        ([], "not be empty"),
        (np.zeros([3, 8, 8, 1]), WANTED + "ndarray"),
        ({"image": IMAGE}, WANTED + "str"),
        (
            tf.data.Dataset.from_tensor_slices((IMAGE, [2])).batch(1),
            WANTED + "tuple",
        ),
        ([{"picture": IMAGE}], WANTED + r"{'picture': \(1, 8, 8, 1\)}"),
        ([{"image": IMAGE[0]}], WANTED + r"{'image': \(8, 8, 1\)}"),
        (
            [{"image": IMAGE}, {"image": np.repeat(IMAGE, 8, axis=0)}],
            WANTED + r"{'image': \(8, 8, 8, 1\)}",
        ),
    ],
)
def test_an_example_maps_names_to_arrays_of_one_row(tmp_path, data, message):
    with pytest.raises(ValueError, match=message):
        composer().export(
            tmp_path / "m.tflite",
            format="tflite",
            quantization="int8",
            calibration_data=data,
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("quantization", ["none", "float16", "dynamic"])
def test_what_would_be_ignored_is_refused(tmp_path, quantization):
    message = f"is for `quantization='int8'`, got '{quantization}'"
    with pytest.raises(ValueError, match=message):
        composer().export(
            tmp_path / "m.tflite",
            format="tflite",
            quantization=quantization,
            calibration_data=[{"image": IMAGE}],
        )
