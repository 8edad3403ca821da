"""What int8 may be calibrated on; `litert_test` calibrates."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

import composer_tf as ct
from composer_tf.exporters import litert_calibration
from tests.exporters.small_composer import composer

L = keras.layers
IMAGE = np.zeros([1, 8, 8, 1], np.float32)
WANTED = r"one row, {'image': \(1, 8, 8, 1\)}, got "


def test_a_number_that_would_spoil_all_ranges_is_refused(tmp_path):
    data = [{"image": IMAGE}, {"image": IMAGE * np.nan}]
    with pytest.raises(ValueError, match=r"finite numbers, got .* in 'image'"):
        composer().export(
            tmp_path / "m.tflite",
            format="tflite",
            quantization="int8",
            calibration_data=data,
        )


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


class Repeated(L.Layer):
    """A loop that holds no list of tensors."""

    def call(self, inputs):
        def step(i, x):
            return i + 1, tf.tanh(x)

        return tf.while_loop(lambda i, x: i < 3, step, (0, inputs))[1]

    def compute_output_shape(self, input_shape):
        return input_shape


def of_series(module, stem=None):
    """A Composer of series `[5, 2]`, one of its modules given."""
    mean = keras.Sequential([L.GlobalAveragePooling1D(), L.Dense(4)])
    model = ct.Composer(
        [ct.Metalayer([mean, module]), L.Dense(3)],
        stem=stem,
        preferences=[ct.GlimpsePreference(ct.Uniform(-1.0, 1.0))],
    )
    model.build((None, 5, 2))
    model.compile()
    return model


def export_int8(model, path):
    series = np.random.default_rng(0).normal(size=(8, 1, 5, 2))
    data = [{"image": rows.astype(np.float32)} for rows in series]
    model.export(path, "tflite", quantization="int8", calibration_data=data)
    return data


@pytest.mark.parametrize(
    ("module", "stem"),
    [
        (lambda: L.GRU(4), None),
        (lambda: keras.Sequential([L.LSTM(4)]), None),
        (
            lambda: L.GRU(4, unroll=True),
            lambda: L.SimpleRNN(2, return_sequences=True),
        ),
        (
            lambda: L.GRU(4, unroll=True),
            lambda: L.Bidirectional(L.LSTM(2, return_sequences=True)),
        ),
    ],
)
def test_loops_that_crash_the_calibrator_are_refused(module, stem, tmp_path):
    model = of_series(module(), stem and stem())
    with pytest.raises(ValueError, match="`unroll=True`, or use 'dynamic'"):
        export_int8(model, tmp_path / "m.tflite")
    assert not list(tmp_path.iterdir())


def test_other_loops_are_calibrated(tmp_path):
    recurrent = L.GRU(4, unroll=True)
    model = of_series(keras.Sequential([recurrent, Repeated()]), Repeated())
    path = tmp_path / "m.tflite"
    data = export_int8(model, path)
    runner = Interpreter(str(path)).get_signature_runner("default_gamma")
    for example in data:
        wanted = model(example["image"], return_composition=True)
        outputs = runner(**example)
        np.testing.assert_array_equal(outputs["choices"], wanted.policy.choices)
        np.testing.assert_allclose(outputs["logits"], wanted.outputs, atol=0.1)


@pytest.mark.parametrize("sizes", [(2,), (8,), (3, 2), (5, 1, 4)])
@pytest.mark.parametrize("rows", [1, 2, 4])
def test_calibration_sees_every_path_and_modules_beside_others(sizes, rows):
    forced = litert_calibration._forced(np.array(sizes), rows)
    alike = {tuple(paths[0]) for paths in forced if len(paths) == 1}
    assert alike == {*itertools.product(*map(range, sizes))}
    for column, size in enumerate(sizes):
        choices = [{*paths[:, column].tolist()} for paths in forced]
        alone = set().union(*(seen for seen in choices if len(seen) == 1))
        beside = set().union(*(seen for seen in choices if len(seen) > 1))
        assert alone == {*range(size)}
        assert beside == ({*range(size)} if rows > 1 and size > 1 else set())
