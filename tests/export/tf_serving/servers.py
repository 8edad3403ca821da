"""Servers over the session that TensorFlow Serving runs, and what they answer.

No binary of a server is needed: the exported folder is loaded into a v1
session, behind the server's own messages, by gRPC and by REST.
"""

import collections
import concurrent.futures
import contextlib
import http.server
import importlib.util
import json
import pathlib
import threading
from unittest import mock

import absl.app
import grpc
import keras
import numpy as np
import tensorflow as tf
from google.protobuf import json_format
from tensorflow.core.protobuf import config_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
)

layers = keras.layers
KIT = pathlib.Path(__file__).parents[3] / "export" / "tf_serving"
CODES = {code.value[0]: code for code in grpc.StatusCode}
LOW, HIGH = -2.0, 6.0
MAX_ROWS = 64  # As in batching.config.
DEFAULT = 1.0
IMAGES = np.random.default_rng(0).normal(size=[12, 8, 8, 1]).astype("float32")
GAMMAS = np.linspace(LOW, HIGH, len(IMAGES), dtype="float32")


def load_client():
    """The client without its flags, which are its process's."""
    spec = importlib.util.spec_from_file_location(
        "tf_serving_client", KIT / "client.py"
    )
    module = importlib.util.module_from_spec(spec)
    with mock.patch.object(absl, "flags"):
        spec.loader.exec_module(module)
    return module


client = load_client()


def invalid(message):
    return tf.errors.InvalidArgumentError(None, None, message)


class Runtime:
    """An exported folder in a session, fed as the server feeds it."""

    def __init__(self, path):
        self.session = tf.compat.v1.Session(graph=tf.Graph())
        with self.session.graph.as_default():
            meta_graph = tf.compat.v1.saved_model.load(
                self.session, ["serve"], str(path)
            )
        self.signatures = {
            name: signature
            for name, signature in meta_graph.signature_def.items()
            if not name.startswith("__")
        }
        # `Session.run` would check shapes in Python, which the server does not.
        self.callables = {
            name: self.session._make_callable_from_options(
                config_pb2.CallableOptions(
                    feed=[info.name for info in signature.inputs.values()],
                    fetch=[info.name for info in signature.outputs.values()],
                )
            )
            for name, signature in self.signatures.items()
        }

    def __call__(self, name, tensors):
        signature = self.signatures[name]
        outputs = self.callables[name](*[tensors[n] for n in signature.inputs])
        return dict(zip(signature.outputs, outputs, strict=True))


class Batcher:
    """Joins requests along their first axis, as the server's batching does.

    The server closes a batch by rows and time, this one by requests: a batch
    that is full runs in the thread of its last request.
    """

    def __init__(self, runtime, requests):
        self.runtime = runtime
        self.signatures = runtime.signatures
        self.requests = requests
        self.lock = threading.Lock()
        self.waiting = collections.defaultdict(list)
        self.batches = []

    def __call__(self, name, tensors):
        if len({len(tensor) for tensor in tensors.values()}) != 1:
            raise invalid("Inputs must have equal 0th-dimension size.")
        if len(tensors["image"]) > MAX_ROWS:
            raise invalid(f"Task size is larger than {MAX_ROWS}.")
        answer = concurrent.futures.Future()
        with self.lock:
            self.waiting[name].append((tensors, answer))
            full = len(self.waiting[name]) == self.requests
            batch = self.waiting.pop(name) if full else []
        if batch:
            self.run(name, batch)
        return answer.result(timeout=60)

    def run(self, name, batch):
        keys = batch[0][0].keys()
        columns = {key: [tensors[key] for tensors, _ in batch] for key in keys}
        try:
            for column in columns.values():  # NumPy would join any types.
                if len({tensor.dtype for tensor in column}) != 1:
                    raise invalid("Cannot concatenate tensors of two types.")
        except tf.errors.OpError as error:
            for _, answer in batch:
                answer.set_exception(error)
            return
        merged = {
            key: np.concatenate(column) for key, column in columns.items()
        }
        rows = [len(tensors["image"]) for tensors, _ in batch]
        self.batches.append(rows)
        try:
            outputs = self.runtime(name, merged)
        except tf.errors.OpError as error:
            for _, answer in batch:
                answer.set_exception(error)
            return
        ends = np.cumsum(rows)
        for (_, answer), size, end in zip(batch, rows, ends, strict=True):
            part = slice(end - size, end)
            answer.set_result({key: out[part] for key, out in outputs.items()})


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, run):
        self.run = run

    def Predict(self, request, context):  # noqa: N802
        name = request.model_spec.signature_name or "serving_default"
        protos = {**self.run.signatures[name].defaults, **request.inputs}
        try:
            outputs = self.run(
                name, {key: tf.make_ndarray(p) for key, p in protos.items()}
            )
        except tf.errors.OpError as error:
            context.abort(CODES[error.error_code], error.message)
        response = predict_pb2.PredictResponse()
        for key, value in outputs.items():
            response.outputs[key].CopyFrom(tf.make_tensor_proto(value))
        return response

    def GetModelMetadata(self, request, context):  # noqa: N802
        signatures = get_model_metadata_pb2.SignatureDefMap()
        for name, signature in self.run.signatures.items():
            signatures.signature_def[name].CopyFrom(signature)
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        response.metadata["signature_def"].Pack(signatures)
        return response


class RestHandler(http.server.BaseHTTPRequestHandler):
    """The status, metadata and, in columns, predictions of the one model."""

    def do_GET(self):
        if not self.path.endswith("/metadata"):
            status = {"state": self.server.state}
            self.answer(200, {"model_version_status": [status]})
            return
        signatures = {
            name: json_format.MessageToDict(
                signature, preserving_proto_field_name=True
            )
            for name, signature in self.server.run.signatures.items()
        }
        metadata = {"signature_def": {"signature_def": signatures}}
        self.answer(200, {"metadata": metadata})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        name = body.get("signature_name", "serving_default")
        run = self.server.run
        try:
            if self.path != "/v1/models/composer:predict":
                raise tf.errors.NotFoundError(None, None, "Servable not found.")
            inputs = run.signatures[name].inputs
            if set(inputs) != set(body["inputs"]):
                raise invalid("Missing named input.")
            types = {n: tf.as_dtype(inputs[n].dtype) for n in inputs}
            outputs = run(
                name,
                {
                    n: np.array(column, types[n].as_numpy_dtype)
                    for n, column in body["inputs"].items()
                },
            )
        except tf.errors.OpError as error:
            found = not isinstance(error, tf.errors.NotFoundError)
            self.answer(400 if found else 404, {"error": error.message})
        else:
            columns = {n: value.tolist() for n, value in outputs.items()}
            self.answer(200, {"outputs": columns})

    def answer(self, status, body):
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_):
        pass


class RestServer(http.server.ThreadingHTTPServer):
    request_queue_size = 64  # Connections that may wait.


@contextlib.contextmanager
def grpc_server(run):
    """Yields the address of a server that answers by `run`."""
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        server = grpc.server(pool)
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
            PredictionService(run), server
        )
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield f"127.0.0.1:{port}"
        server.stop(None).wait()


@contextlib.contextmanager
def rest_server(run, state="AVAILABLE"):
    """Yields the URL of a server that answers by `run`."""
    with RestServer(("127.0.0.1", 0), RestHandler) as server:
        server.run, server.state = run, state
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


PROTOCOLS = {
    "grpc": (grpc_server, client.predict_grpc),
    "rest": (rest_server, client.predict_rest),
}
FETCH_SPECS = {
    "grpc": client.fetch_specs_grpc,
    "rest": client.fetch_specs_rest,
}


@contextlib.contextmanager
def serving(protocol, run):
    """Yields a function of images and gamma that asks a server."""
    serve, predict = PROTOCOLS[protocol]
    with serve(run) as address:
        yield lambda images, gamma=None, **options: predict(
            address, {"image": images}, gamma, **options
        )


def at_once(ask, requests):
    """Sends all requests together; gives the answers, errors among them."""

    def answer(request):
        try:
            return ask(*request)
        except client.ServerError as error:
            return error

    with concurrent.futures.ThreadPoolExecutor(len(requests)) as pool:
        return list(pool.map(answer, requests))


def check(outputs, model, images, gamma):
    """Compares an answer with the Keras model's."""
    expected = model(images, gamma=gamma, return_composition=True)
    np.testing.assert_array_equal(outputs["choices"], expected.policy.choices)
    np.testing.assert_allclose(
        outputs["logits"], expected.outputs, rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(
        outputs["cost"], expected.policy.path_cost + model.overhead, rtol=1e-5
    )


def check_each(answers, model, requests):
    """Compares each answer with the Keras model's to that request."""
    rows = [len(images) for images, _ in requests]
    assert [len(outputs["cost"]) for outputs in answers] == rows
    gammas = [np.broadcast_to(gamma, len(images)) for images, gamma in requests]
    check(
        {
            key: np.concatenate([outputs[key] for outputs in answers])
            for key in answers[0]
        },
        model,
        np.concatenate([images for images, _ in requests]),
        np.concatenate(gammas).astype("float32"),
    )
