"""The kit for TensorFlow Serving, against the session that the server runs.

A server's binary is not needed: the exported folder is loaded into a v1
session, behind the server's own messages, by gRPC and by REST.
"""

import collections
import concurrent.futures
import contextlib
import http.server
import importlib.util
import json
import pathlib
import shutil
import subprocess
import sys
import threading
from unittest import mock

import absl.app
import grpc
import keras
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    text_format,
    wrappers_pb2,
)
from tensorflow.core.protobuf import config_pb2
from tensorflow_serving.apis import (
    predict_pb2,
    prediction_log_pb2,
    prediction_service_pb2_grpc,
)
from tensorflow_serving.config import model_server_config_pb2

import composer_tf as ct

layers = keras.layers
KIT = pathlib.Path(__file__).parents[2] / "export" / "tf_serving"
CODES = {code.value[0]: code for code in grpc.StatusCode}
LOW, HIGH = -2.0, 6.0
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
        answer = concurrent.futures.Future()
        with self.lock:
            self.waiting[name].append((tensors, answer))
            full = len(self.waiting[name]) == self.requests
            batch = self.waiting.pop(name) if full else []
        if batch:
            self.run(name, batch)
        return answer.result(timeout=60)

    def run(self, name, batch):
        merged = {
            key: np.concatenate([tensors[key] for tensors, _ in batch])
            for key in batch[0][0]
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


class RestHandler(http.server.BaseHTTPRequestHandler):
    """The status and, in columns, the predictions of the one model."""

    def do_GET(self):
        self.answer(200, {"model_version_status": [{"state": "AVAILABLE"}]})

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


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A Composer whose choices follow gamma and image, and its folder."""
    keras.utils.set_random_seed(1)
    model = ct.Composer(
        metalayers=[
            ct.Metalayer(
                [layers.Conv2D(4, 1), layers.Conv2D(4, 3, padding="same")]
            ),
            layers.GlobalAveragePooling2D(),
            ct.Metalayer(
                [
                    layers.Dense(5),
                    keras.Sequential([layers.Dense(16), layers.Dense(5)]),
                ]
            ),
        ],
        preferences=[
            ct.GlimpsePreference(ct.Uniform(LOW, HIGH), default=DEFAULT)
        ],
    )
    model(IMAGES)
    kernel = model.controller.cell.kernel  # Its last row reads gamma.
    kernel.assign(tf.concat([kernel[:-1], 8.0 * kernel[-1:]], axis=0))
    path = tmp_path_factory.mktemp("serving") / "1"
    model.export(path, warmup_requests=6)
    return model, path


@pytest.fixture(scope="module")
def model(exported):
    return exported[0]


@pytest.fixture(scope="module")
def runtime(exported):
    runtime = Runtime(exported[1])
    yield runtime
    runtime.session.close()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


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
def rest_server(run):
    """Yields the URL of a server that answers by `run`."""
    with RestServer(("127.0.0.1", 0), RestHandler) as server:
        server.run = run
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


PROTOCOLS = {
    "grpc": (grpc_server, client.predict_grpc),
    "rest": (rest_server, client.predict_rest),
}


@pytest.fixture(params=PROTOCOLS)
def protocol(request):
    return request.param


@contextlib.contextmanager
def serving(protocol, run):
    """Yields a function of images and gamma that asks a server."""
    serve, predict = PROTOCOLS[protocol]
    with serve(run) as address:
        yield lambda images, gamma=None: predict(
            address, {"image": images}, gamma
        )


@pytest.fixture
def ask(protocol, runtime):
    with serving(protocol, runtime) as ask:
        yield ask


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


def test_gamma_changes_the_cost_of_every_image(model):
    costs = [
        model(IMAGES, gamma=gamma, return_composition=True).policy.path_cost
        for gamma in GAMMAS
    ]
    assert np.ptp(costs, axis=0).all()


@pytest.mark.parametrize("gamma", [LOW, 2.5, HIGH, GAMMAS, None])
def test_answers_are_those_of_the_keras_model(ask, model, gamma):
    outputs = ask(IMAGES, gamma)
    check(outputs, model, IMAGES, DEFAULT if gamma is None else gamma)
    assert outputs["choices"].dtype == np.int32
    assert outputs["cost"].dtype == np.float32
    np.testing.assert_allclose(
        outputs["probabilities"], tf.nn.softmax(outputs["logits"]), rtol=1e-5
    )
    assert outputs["module_probabilities"].shape == (12, 2, 2)


def test_concurrent_clients_each_get_their_own_gamma(ask, model):
    requests = [
        (IMAGES[i % 5 : i % 5 + 1 + i % 3], gamma)
        for i, gamma in enumerate(np.tile(GAMMAS, 2))
    ]
    answers = at_once(ask, requests)
    check_each(answers, model, requests)


def test_a_batch_of_mixed_gammas_gives_each_request_its_own(
    protocol, runtime, model
):
    requests = [
        (IMAGES[:1], LOW),
        (IMAGES[1:3], HIGH),
        (IMAGES[3:6], GAMMAS[3:6]),
        (IMAGES[6:8], 2.5),
    ]
    batcher = Batcher(runtime, len(requests))
    with serving(protocol, batcher) as ask:
        answers = at_once(ask, requests)
    assert [sorted(rows) for rows in batcher.batches] == [[1, 2, 2, 3]]
    check_each(answers, model, requests)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_bad_gamma_costs_its_own_row_the_default_only(ask, model, bad):
    gamma = GAMMAS.copy()
    gamma[4] = bad
    outputs = ask(IMAGES, gamma)
    gamma[4] = DEFAULT
    check(outputs, model, IMAGES, gamma)


def test_a_bad_gamma_does_not_reach_others_in_its_batch(
    protocol, runtime, model
):
    requests = [(IMAGES[:2], np.nan), (IMAGES[2:4], LOW), (IMAGES[4:7], HIGH)]
    with serving(protocol, Batcher(runtime, len(requests))) as ask:
        answers = at_once(ask, requests)
    check_each(answers, model, [(IMAGES[:2], DEFAULT), *requests[1:]])


def test_gamma_outside_the_support_is_clipped(ask, model):
    check(ask(IMAGES, LOW - 100.0), model, IMAGES, LOW)
    check(ask(IMAGES, 1e30), model, IMAGES, HIGH)


REFUSED = {"grpc": "^INVALID_ARGUMENT: ", "rest": "^HTTP 400: "}


@pytest.mark.parametrize(
    ("images", "gamma"),
    [
        (np.zeros([2, 5, 5, 1], np.float32), 1.0),
        (np.zeros([2, 8, 8, 3], np.float32), 1.0),
        (np.zeros([2, 64], np.float32), 1.0),
        (IMAGES[:2], np.zeros([3], np.float32)),
        (IMAGES[:2], np.zeros([0], np.float32)),
        (IMAGES[:1], np.zeros([2], np.float32)),
    ],
    ids=["size", "channels", "rank", "long gamma", "empty gamma", "two gammas"],
)
def test_a_bad_request_is_refused_and_others_are_answered(
    ask, protocol, model, images, gamma
):
    good = [(IMAGES[i : i + 2], GAMMAS[i]) for i in range(6)]
    requests = [*good[:3], (images, gamma), *good[3:]]
    answers = at_once(ask, requests)
    error = answers.pop(3)
    assert isinstance(error, client.ServerError)
    with pytest.raises(client.ServerError, match=REFUSED[protocol]):
        raise error
    assert "\n" not in str(error)
    check_each(answers, model, good)


def test_a_gamma_of_wrong_length_never_joins_a_batch(protocol, runtime, model):
    good = [(IMAGES[:2], LOW), (IMAGES[2:4], HIGH)]
    bad = (IMAGES[:2], np.zeros([1], np.float32))
    with serving(protocol, Batcher(runtime, len(good))) as ask:
        *answers, error = at_once(ask, [*good, bad])
    assert isinstance(error, client.ServerError)
    check_each(answers, model, good)


def test_the_default_of_gamma_needs_grpc_and_no_batching(runtime, model):
    images = {"image": IMAGES[:3]}
    without_gamma = mock.patch.object(
        client, "_with_gamma", lambda inputs, _: ("serving_default", inputs)
    )
    with without_gamma:
        with grpc_server(runtime) as address:
            outputs = client.predict_grpc(address, images)
            check(outputs, model, IMAGES[:3], DEFAULT)
        with (
            grpc_server(Batcher(runtime, 1)) as address,
            pytest.raises(client.ServerError, match="0th-dimension"),
        ):
            client.predict_grpc(address, images)
        with (
            rest_server(runtime) as url,
            pytest.raises(client.ServerError, match="Missing named input"),
        ):
            client.predict_rest(url, images)


def test_a_server_that_is_not_there_is_one_clear_line():
    with rest_server(None) as url:
        address = url.removeprefix("http://")
    inputs = {"image": IMAGES}
    with pytest.raises(client.ServerError, match=rf"^No answer from {url}: "):
        client.predict_rest(url, inputs)
    with pytest.raises(client.ServerError, match=r"^UNAVAILABLE: "):
        client.predict_grpc(address, inputs)


def test_rest_at_the_port_of_grpc_is_one_clear_line(runtime):
    with (
        grpc_server(runtime) as address,
        pytest.raises(client.ServerError, match="does not answer as"),
    ):
        client.predict_rest(f"http://{address}", {"image": IMAGES})


def test_every_warm_up_request_runs(exported, runtime):
    _, path = exported
    records = tf.data.TFRecordDataset(
        str(path / "assets.extra" / "tf_serving_warmup_requests")
    )
    gammas, paths = [], set()
    for record in records.as_numpy_iterator():
        log = prediction_log_pb2.PredictionLog.FromString(record)
        request = log.predict_log.request
        tensors = {n: tf.make_ndarray(p) for n, p in request.inputs.items()}
        outputs = runtime(request.model_spec.signature_name, tensors)
        assert np.isfinite(outputs["logits"]).all()
        paths.add(tuple(outputs["choices"][0]))
        gammas.extend(tensors["gamma"])
    np.testing.assert_allclose(gammas, np.linspace(LOW, HIGH, 6), rtol=1e-6)
    assert len(paths) > 1


def batching_parameters():
    """Fields of a message that `tensorflow-serving-api` does not bring.

    Text format goes by names and types; the numbers of the fields are free.
    """
    names = (
        "max_batch_size",
        "batch_timeout_micros",
        "max_enqueued_batches",
        "num_batch_threads",
    )
    file = descriptor_pb2.FileDescriptorProto(
        name="batching.proto", dependency=[wrappers_pb2.DESCRIPTOR.name]
    )
    message = file.message_type.add(name="BatchingParameters")
    for number, name in enumerate(names, start=1):
        message.field.add(
            name=name,
            number=number,
            type=descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE,
            type_name=".google.protobuf.Int64Value",
        )
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    descriptor = pool.FindMessageTypeByName("BatchingParameters")
    return message_factory.GetMessageClass(descriptor)()


def test_batching_config_is_what_the_server_parses():
    text = (KIT / "batching.config").read_text()
    parameters = text_format.Parse(text, batching_parameters())
    assert parameters.max_batch_size.value > 1
    assert parameters.num_batch_threads.value > 0


def models_config():
    return text_format.Parse(
        (KIT / "models.config").read_text(),
        model_server_config_pb2.ModelServerConfig(),
    )


def compose_service():
    yaml = pytest.importorskip("yaml")
    file = yaml.safe_load((KIT / "compose.yaml").read_text())
    return file["services"]["composer"]


def test_compose_mounts_what_the_server_is_told_to_read():
    service = compose_service()
    assert service["image"].startswith("tensorflow/serving:")
    sources = {v["target"]: v["source"] for v in service["volumes"]}
    assert all(volume["read_only"] for volume in service["volumes"])
    (model_config,) = models_config().model_config_list.config
    assert model_config.base_path in sources
    options = dict(o.partition("=")[::2] for o in service["command"])
    for flag in ("--model_config_file", "--batching_parameters_file"):
        assert (KIT / sources[options[flag]]).is_file()
    assert {port.rsplit(":")[-1] for port in service["ports"]} == {
        "8500",
        "8501",
    }


@pytest.mark.skipif(not shutil.which("bash"), reason="the image has bash")
def test_the_health_check_sees_whether_the_model_is_there(runtime):
    _, *command = compose_service()["healthcheck"]["test"]
    (model_config,) = models_config().model_config_list.config
    assert f"/v1/models/{model_config.name} " in command[-1]
    with rest_server(runtime) as url:
        command[-1] = command[-1].replace("8501", url.rpartition(":")[2])
        assert subprocess.run(command, timeout=60).returncode == 0
    assert (
        subprocess.run(command, capture_output=True, timeout=60).returncode > 0
    )


def run_client(url, *args):
    return subprocess.run(
        [
            sys.executable,
            KIT / "client.py",
            "--rest",
            f"--server={url.removeprefix('http://')}",
            *args,
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_program_prints_each_row_at_each_gamma(tmp_path, runtime, model):
    np.save(tmp_path / "images.npy", IMAGES[:2])
    with rest_server(runtime) as url:
        done = run_client(
            url, f"--images={tmp_path}/images.npy", "--gamma=-2", "--gamma=6"
        )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.startswith("gamma")] == [
        "gamma -2",
        "gamma 6",
    ]
    composition = model(IMAGES[:2], gamma=6.0, return_composition=True)
    choices = composition.policy.choices.numpy().tolist()
    for line, row_choices, logits in zip(
        lines[-2:], choices, composition.outputs.numpy(), strict=True
    ):
        assert f"choices {row_choices}, class {logits.argmax()} " in line


def test_the_program_says_in_one_line_what_is_wrong(runtime):
    with rest_server(runtime) as url:
        done = run_client(url, "--shape=5,5,1", "--rows=2", "--gamma=1")
    assert done.returncode == 1
    assert done.stderr.startswith("error: HTTP 400: ")
    assert done.stderr.count("\n") == 1
