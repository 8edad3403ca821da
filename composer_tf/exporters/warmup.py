"""Requests that TensorFlow Serving replays before it serves a model."""

import importlib
import pathlib
from typing import Any

import numpy as np
import tensorflow as tf

from composer_tf.exporters.exposure import Exposure
from composer_tf.exporters.routed_model import RoutedModel
from composer_tf.exporters.samples import random_inputs
from composer_tf.exporters.signatures import BUDGET, MAIN

FILE = "tf_serving_warmup_requests"
MAX_REQUESTS = 1000


def write_warmup_requests(
    model: RoutedModel,
    exposure: Exposure,
    count: int,
    folder: pathlib.Path,
) -> None:
    """Writes requests with random inputs along the whole support of gamma.

    A server that replays them has already run every path that the controller
    takes for them before the first user's request. If the model takes a budget
    too, every other request gives one.

    Args:
        model: Model to serve.
        exposure: Exposure of its gammas.
        count: Number of requests, 1 to 1000.
        folder: Folder `assets.extra`, where TensorFlow Serving looks for them.

    Raises:
        ValueError: If there are too many for TensorFlow Serving.
        ImportError: If `tensorflow-serving-api` is missing.
    """
    if not 1 <= count <= MAX_REQUESTS:
        raise ValueError(
            f"`warmup_requests` must be from 0 to {MAX_REQUESTS}, got {count}."
        )
    try:
        predict_pb2: Any = importlib.import_module(
            "tensorflow_serving.apis.predict_pb2"
        )
        prediction_log_pb2: Any = importlib.import_module(
            "tensorflow_serving.apis.prediction_log_pb2"
        )
    except ImportError as error:
        raise ImportError(
            "Warm-up requests need `pip install '.[serving]'` in a clone."
        ) from error
    inputs = random_inputs(model, count, np.random.default_rng(0))
    with tf.io.TFRecordWriter(str(folder / FILE)) as writer:
        for i, share in enumerate(np.linspace(0.0, 1.0, count)):
            by_budget = i % 2 == 1 and exposure.calibration is not None
            request = predict_pb2.PredictRequest()
            request.model_spec.name = model.name
            request.model_spec.signature_name = BUDGET if by_budget else MAIN
            tensors = {name: rows[i : i + 1] for name, rows in inputs.items()}
            if by_budget:
                tensors["budget"] = exposure.at_share(share, "budget")
            elif exposure.free:
                tensors["gamma"] = exposure.at_share(share)
            for name, value in tensors.items():
                request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
            log = prediction_log_pb2.PredictionLog(
                predict_log=prediction_log_pb2.PredictLog(request=request)
            )
            writer.write(log.SerializeToString())
