"""Requests that TensorFlow Serving replays before it serves a model."""

import importlib
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from composer_tf.exporters.exposure import Exposure
from composer_tf.exporters.routed_model import RoutedModel
from composer_tf.exporters.samples import random_inputs
from composer_tf.exporters.signatures import BUDGET, DEFAULT_GAMMA, MAIN

FILE = "tf_serving_warmup_requests"
MAX_REQUESTS = 1000


def check_warmup(count: int) -> None:
    """Raises unless so many requests can be written.

    Raises:
        ValueError: If there are too many for TensorFlow Serving.
        ImportError: If `tensorflow-serving-api` is missing.
    """
    if not 0 <= count <= MAX_REQUESTS:
        raise ValueError(
            f"`warmup_requests` must be from 0 to {MAX_REQUESTS}, got {count}."
        )
    if count:
        _messages()


def write_warmup_requests(
    model: RoutedModel,
    exposure: Exposure,
    count: int,
    folder: pathlib.Path,
    inputs: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Writes requests to each signature in turn.

    Those with gamma or a budget are spread along its whole support, so a server
    that replays them has run every path that the controller takes for these
    inputs before the first user's request.

    Args:
        model: Model to serve.
        exposure: Exposure of its gammas.
        count: Number of requests, as `check_warmup` allows.
        folder: Folder `assets.extra`, where TensorFlow Serving looks for them.
        inputs: Arrays `[N, ...]` by name, of which each request takes a row.
            Defaults to random ones.
    """
    predict_log, predict_pb2 = _messages()
    if inputs is None:
        inputs = random_inputs(model, count, np.random.default_rng(0))
    rows = len(next(iter(inputs.values())))
    signatures = [MAIN]
    if exposure.free:
        signatures.append(DEFAULT_GAMMA)
    if exposure.calibration is not None:
        signatures.append(BUDGET)
    with tf.io.TFRecordWriter(str(folder / FILE)) as writer:
        for i, share in enumerate(np.linspace(0.0, 1.0, count)):
            request = predict_pb2.PredictRequest()
            request.model_spec.name = model.name
            signature = signatures[i % len(signatures)]
            request.model_spec.signature_name = signature
            row = i % rows
            tensors = {k: v[row : row + 1] for k, v in inputs.items()}
            if signature == BUDGET:
                tensors["budget"] = exposure.at_share(share, "budget")
            elif signature == MAIN and exposure.free:
                tensors["gamma"] = exposure.at_share(share)
            for name, value in tensors.items():
                request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
            log = predict_log.PredictionLog(
                predict_log=predict_log.PredictLog(request=request)
            )
            writer.write(log.SerializeToString())


def _messages() -> tuple[Any, Any]:
    """Modules `prediction_log_pb2` and `predict_pb2` of TensorFlow Serving."""
    try:
        log, request = (
            importlib.import_module(f"tensorflow_serving.apis.{name}")
            for name in ("prediction_log_pb2", "predict_pb2")
        )
    except ImportError as error:
        raise ImportError(
            "Warm-up requests need `pip install '.[serving]'` in a clone."
        ) from error
    return log, request
