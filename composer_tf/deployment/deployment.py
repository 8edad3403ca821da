"""A saved model in, a verified artifact and its report out."""

import importlib
import os
import pathlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.lite.python.convert_phase import ConverterError

from composer_tf import datasets, exporters
from composer_tf.composer import Composer
from composer_tf.deployment import acceptance
from composer_tf.deployment.acceptance import Data
from composer_tf.exporters.artifacts import size_in_bytes
from composer_tf.exporters.samples import random_inputs
from composer_tf.workdir import atomic_path, write_json

_NUM_CALIBRATION_EXAMPLES = 500
_NUM_EXAMPLES = 256
MAX_ACCURACY_LOSS = 0.005


class DeploymentError(RuntimeError):
    """An artifact that cannot be made, or that failed its verification."""


def deploy(
    model_path: str | os.PathLike,
    output: str | os.PathLike,
    format: str,
    data: str = "",
    verify: bool = True,
    overwrite: bool = False,
    modules: Sequence[str] = (),
    input_dtypes: Mapping[str, str] | None = None,
    max_accuracy_loss: float = MAX_ACCURACY_LOSS,
    **options: Any,
) -> dict[str, Any]:
    """Exports a `.keras` file, and verifies what was written.

    Beside the artifact stand `OUTPUT.report.json` and, of a file,
    `OUTPUT.json`. Of a process that is killed at the very end, the artifact may
    stand without them.

    Args:
        model_path: A saved Composer.
        output: File or folder to write.
        format: `"tf_saved_model"`, `"tflite"` (or `"litert"`) or `"onnx"`.
        data: Where examples come from: a name of `composer_tf.datasets`, or an
            `.npz` file with an array for each input, and `labels` if known.
            Needed for `quantization="int8"`. Without it the verification runs
            on random inputs.
        verify: Whether to compare the artifact with the model, and to time it.
        overwrite: Whether an existing artifact may be replaced.
        modules: Python modules to import first, which register classes that
            the model has of its own.
        input_dtypes: Types of inputs other than float32, by name.
        max_accuracy_loss: How far the accuracy on data with labels, a mean over
            all gammas, may fall. Where the cheapest path can only guess, int8
            may turn all its guesses at once. Defaults to 0.005.
        **options: Of the format's exporter.

    Returns:
        The report: `format`, `bytes`, and if verified `max_abs_error`,
        `choice_agreement`, `latency_ratio_cheapest`, `latency_ratio_full`, and
        of data with labels `accuracy_model` and `accuracy_artifact`.

    Raises:
        DeploymentError: If a file is missing or not a Composer, the output
            exists, or the verification fails.
        ValueError: If an option does not fit the model.
    """
    target = pathlib.Path(output)
    format = exporters.canonical_format(format)
    exporters.check_target(target, format)
    if target.exists() and not overwrite:
        raise DeploymentError(f"{target} exists; --overwrite replaces it.")
    for module in modules:
        importlib.import_module(module)
    model = _load(model_path).routed_model(input_dtypes, format)
    options = {key: value for key, value in options.items() if value}
    examples = _read(data, model, "test", _NUM_EXAMPLES) if verify else None
    if options.get("quantization") == "int8":
        train = _read(data, model, "train", _NUM_CALIBRATION_EXAMPLES)
        options["calibration_data"] = list(_one_by_one(train.inputs))
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix="partial-", dir=target.parent
    ) as scratch:
        folder = pathlib.Path(scratch)
        artifact = folder / target.name
        try:
            exporters.export(model, artifact, format, **options)
        except (ConverterError, tf.errors.OpError) as error:
            raise DeploymentError(
                f"The model cannot be converted to {format!r}: {error}"
            ) from error
        report = {"format": format, "bytes": size_in_bytes(artifact)}
        if examples is not None:
            facts, failures = acceptance.verify(
                model, artifact, format, options, examples, max_accuracy_loss
            )
            if failures:
                raise DeploymentError(
                    "The artifact failed its verification and was not kept: "
                    f"{'; '.join(failures)}."
                )
            report |= facts
        write_json(report, folder / f"{target.name}.report.json")
        _move(folder, target)
    return report


def _load(path: str | os.PathLike) -> Composer:
    if not pathlib.Path(path).is_file():
        raise DeploymentError(f"There is no file {path}.")
    try:
        model = keras.saving.load_model(path, compile=True)
    except Exception as error:  # Of Keras, zip, h5 or JSON.
        raise DeploymentError(
            f"{path} is no Keras model, or is damaged, or has classes of its "
            f"own, which --import=PYTHON_MODULE registers: {error}"
        ) from error
    if not isinstance(model, Composer):
        raise DeploymentError(
            f"{path} holds a {type(model).__name__}, not a Composer."
        )
    return model


def _read(
    data: str, model: exporters.RoutedModel, split: str, count: int
) -> Data:
    """The first examples of a split, as the model takes them."""
    if data in datasets.NAMES:
        images, labels = datasets.load_arrays(data, split)
        arrays = {next(iter(model.inputs)): images, "labels": labels}
    elif data:
        if not pathlib.Path(data).is_file():
            raise DeploymentError(
                f"`data` must be of {datasets.NAMES} or an .npz file, got "
                f"{data!r}."
            )
        with np.load(data) as file:
            arrays = dict(file)
    elif split == "train":
        raise DeploymentError(
            "Quantization 'int8' needs `data` to calibrate on, such as "
            "--data=wide_mnist/digits or an .npz file."
        )
    else:
        random = np.random.default_rng(0)
        return Data(random_inputs(model, count, random), None)
    inputs = {}
    for name, spec in model.inputs.items():
        if name not in arrays or not spec.shape[1:].is_compatible_with(
            arrays[name].shape[1:]
        ):
            got = {key: value.shape[1:] for key, value in arrays.items()}
            raise DeploymentError(
                f"`data` must hold {name!r} with rows of shape "
                f"{tuple(spec.shape[1:])}, got {got}."
            )
        inputs[name] = arrays[name][:count].astype(spec.dtype.as_numpy_dtype)
    labels = arrays.get("labels")
    if labels is not None:
        labels = labels.reshape(-1)[:count]
        if len(labels) != len(next(iter(inputs.values()))):
            raise DeploymentError(
                "`data` must hold one label for each example, got "
                f"{arrays['labels'].shape} of them."
            )
    return Data(inputs, labels)


def _one_by_one(inputs: Mapping[str, np.ndarray]) -> Iterator[dict]:
    for i in range(len(next(iter(inputs.values())))):
        yield {name: value[i : i + 1] for name, value in inputs.items()}


def _move(folder: pathlib.Path, target: pathlib.Path) -> None:
    """Puts the finished files in their places; no old one stays beside them."""
    beside = (f"{target.name}.json", f"{target.name}.report.json")
    for name in beside:
        target.with_name(name).unlink(missing_ok=True)
    with atomic_path(target) as partial:
        os.rename(folder / target.name, partial)
    for name in beside:
        if (folder / name).exists():
            os.replace(folder / name, target.with_name(name))
