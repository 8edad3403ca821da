"""Sends images to TensorFlow Serving, each request at a gamma of its own.

python export/tf_serving/client.py [--rest] [--server=HOST:PORT]
    [--images=FILE.npy] [--gamma=NUMBER] ... [--budget=NUMBER] ...

Prints the cost, the choices and the most probable class of each row. gRPC
needs `pip install '.[serving]'` in a clone; REST needs NumPy and absl-py only.
"""

import base64
import http.client
import importlib
import json
import sys
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from absl import app, flags

_REST = flags.DEFINE_bool("rest", False, "REST instead of gRPC.")
_SERVER = flags.DEFINE_string(
    "server", None, "Default: localhost:8500, with --rest localhost:8501."
)
_MODEL = flags.DEFINE_string("model", "composer", "Name in models.config.")
_INPUT = flags.DEFINE_string("input", "image", "Name of the model's input.")
_DTYPE = flags.DEFINE_string("dtype", "float32", "Type of the input.")
_IMAGES = flags.DEFINE_string("images", None, "A .npy of [rows, ...].")
_SHAPE = flags.DEFINE_list(
    "shape", ["28", "56", "1"], "Shape of one random image."
)
_ROWS = flags.DEFINE_integer(
    "rows", 4, "Random images, without --images.", lower_bound=1
)
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size",
    64,
    "Images of a request, at most; the server refuses more than "
    "batching.config allows.",
    lower_bound=1,
)
_GAMMA = flags.DEFINE_multi_string(
    "gamma",
    [],
    "For all rows of one request: a number, or with commas one number for each "
    "preference. Repeat it for more requests. Default: the model's default.",
)
_BUDGET = flags.DEFINE_multi_string(
    "budget",
    [],
    "For all rows of one request, a fraction of full cost, in place of gamma. "
    "Repeat it for more requests.",
)

Arrays = dict[str, np.ndarray]


class Spec(NamedTuple):
    """An input of a signature.

    Attributes:
        shape: Sizes, -1 for any size, as of the batch.
        dtype: Name of the type in NumPy, or `"string"`.
    """

    shape: list[int]
    dtype: str


Specs = dict[str, dict[str, Spec]]
_METADATA = "signature_def"
# Types by number in TensorFlow's protocol; REST writes their names.
_DTYPES = {
    "DT_FLOAT": (1, "float32"),
    "DT_DOUBLE": (2, "float64"),
    "DT_INT32": (3, "int32"),
    "DT_UINT8": (4, "uint8"),
    "DT_INT16": (5, "int16"),
    "DT_INT8": (6, "int8"),
    "DT_STRING": (7, "string"),
    "DT_INT64": (9, "int64"),
    "DT_BOOL": (10, "bool"),
    "DT_BFLOAT16": (14, "bfloat16"),
    "DT_UINT16": (17, "uint16"),
    "DT_HALF": (19, "float16"),
    "DT_UINT32": (22, "uint32"),
    "DT_UINT64": (23, "uint64"),
}
_SIGNATURES = {"serving_default", "default_gamma", "budget"}
_NO_SERVING = "{} does not answer as TensorFlow Serving does by REST."


class ServerError(Exception):
    """No answer from the server; the message says why in one line."""


def predict_rest(
    url: str,
    inputs: Mapping[str, np.ndarray],
    gamma: float | np.ndarray | None = None,
    model: str = "composer",
    timeout: float = 30.0,
    budget: float | np.ndarray | None = None,
) -> Arrays:
    """Sends a request by REST, in the columnar JSON format.

    Args:
        url: URL of the server, such as `"http://localhost:8501"`.
        inputs: Arrays `[B, ...]` by name, in the types that the model takes.
        gamma: Number for all rows, or one value per row: `[B]`, or `[B, k]`
            with several preferences. `None` for the model's default.
        model: Name of the model on the server.
        timeout: Timeout in seconds.
        budget: Number for all rows, or one value per row, fractions of full
            cost. It replaces gamma in a calibrated model.

    Returns:
        Outputs of the model by name, each float32 or int32 `[B, ...]`.

    Raises:
        ServerError: If the server refuses the request, or does not answer.
        ValueError: If gamma and budget are given.
    """
    signature, tensors = _steered(inputs, gamma, budget)
    columns = {name: array.tolist() for name, array in tensors.items()}
    request = {"signature_name": signature, "inputs": columns}
    body = json.dumps(request, default=_in_base64)
    answer = _json(f"{url}/v1/models/{model}:predict", timeout, body)
    if not isinstance(answer, dict) or "outputs" not in answer:
        raise ServerError(_NO_SERVING.format(url))
    outputs = answer["outputs"]
    arrays = {name: np.array(values) for name, values in outputs.items()}
    return {
        name: array.astype("float32" if array.dtype.kind == "f" else "int32")
        for name, array in arrays.items()
    }


def predict_grpc(
    channel: Any,
    inputs: Mapping[str, np.ndarray],
    gamma: float | np.ndarray | None = None,
    model: str = "composer",
    timeout: float = 30.0,
    budget: float | np.ndarray | None = None,
) -> Arrays:
    """Sends a request by gRPC; the result is the same as of `predict_rest`.

    Args:
        channel: Address of the server, such as `"localhost:8500"`; or a
            `grpc.Channel`, to connect once for many requests, or with
            credentials.
        inputs: Same as in `predict_rest`.
        gamma: Same as in `predict_rest`.
        model: Same as in `predict_rest`.
        timeout: Same as in `predict_rest`.
        budget: Same as in `predict_rest`.

    Raises:
        ServerError: If the server refuses the request, or does not answer.
        ValueError: If gamma and budget are given.
        ImportError: If `tensorflow-serving-api` is missing.
    """
    apis = _grpc()
    signature, tensors = _steered(inputs, gamma, budget)
    request = apis.predict_pb2.PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    tf = importlib.import_module("tensorflow")
    for name, array in tensors.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(array))
    response = _call(channel, "Predict", request, timeout)
    return {
        name: tf.make_ndarray(proto) for name, proto in response.outputs.items()
    }


def fetch_specs_rest(
    url: str, model: str = "composer", timeout: float = 30.0
) -> Specs:
    """Asks a server for the shapes and types of its inputs.

    Args:
        url: Same as in `predict_rest`.
        model: Same as in `predict_rest`.
        timeout: Same as in `predict_rest`.

    Returns:
        Specs by signature and input.

    Raises:
        ServerError: If the server does not answer.
    """
    answer = _json(f"{url}/v1/models/{model}/metadata", timeout)
    try:
        signatures = answer["metadata"][_METADATA][_METADATA]
        return {
            signature: {
                name: Spec(
                    [int(dim["size"]) for dim in info["tensor_shape"]["dim"]],
                    _DTYPES[info["dtype"]][1],
                )
                for name, info in signatures[signature]["inputs"].items()
            }
            for signature in signatures.keys() & _SIGNATURES
        }
    except (KeyError, TypeError, ValueError) as error:
        raise ServerError(f"{url} serves no exported Composer.") from error


def fetch_specs_grpc(
    channel: Any, model: str = "composer", timeout: float = 30.0
) -> Specs:
    """Does what `fetch_specs_rest` does, by gRPC.

    Args:
        channel: Same as in `predict_grpc`.
        model: Same as in `predict_rest`.
        timeout: Same as in `predict_rest`.

    Raises:
        ServerError: If the server does not answer.
        ImportError: If `tensorflow-serving-api` is missing.
    """
    apis = _grpc()
    request = apis.get_model_metadata_pb2.GetModelMetadataRequest()
    request.model_spec.name = model
    request.metadata_field.append(_METADATA)
    answer = _call(channel, "GetModelMetadata", request, timeout)
    signatures = apis.get_model_metadata_pb2.SignatureDefMap()
    answer.metadata[_METADATA].Unpack(signatures)
    dtypes = dict(_DTYPES.values())
    return {
        signature: {
            name: Spec(
                [dim.size for dim in info.tensor_shape.dim], dtypes[info.dtype]
            )
            for name, info in definition.inputs.items()
        }
        for signature, definition in signatures.signature_def.items()
        if signature in _SIGNATURES
    }


def check_request(
    specs: Specs,
    inputs: Mapping[str, np.ndarray],
    gamma: float | np.ndarray | None = None,
    budget: float | np.ndarray | None = None,
) -> None:
    """Raises `ValueError` for a request that could spoil the server's batch.

    Args:
        specs: Result of `fetch_specs_rest` or `fetch_specs_grpc`.
        inputs: Same as in `predict_rest`.
        gamma: Same as in `predict_rest`.
        budget: Same as in `predict_rest`.
    """
    signature, tensors = _steered(inputs, gamma, budget)
    if signature not in specs:
        raise ValueError(
            f"The model has no signature {signature!r}, only {[*specs]}."
        )
    wanted = specs[signature]
    if set(tensors) != set(wanted):
        raise ValueError(
            f"The inputs are {sorted(wanted)}, got {sorted(tensors)}."
        )
    for name, (shape, dtype) in wanted.items():
        got = list(tensors[name].shape)
        fits = len(got) == len(shape) and all(
            size in (-1, actual)
            for actual, size in zip(got, shape, strict=True)
        )
        if not fits:
            sizes = ", ".join("any" if n == -1 else str(n) for n in shape)
            raise ValueError(
                f"{name!r} must have the shape [{sizes}], got {got}."
            )
        is_text = tensors[name].dtype.kind in "SUO"
        actual = "string" if is_text else tensors[name].dtype.name
        if actual != dtype:
            raise ValueError(f"{name!r} must be {dtype}, got {actual}.")


def _steered(
    inputs: Mapping[str, np.ndarray],
    gamma: float | np.ndarray | None,
    budget: float | np.ndarray | None,
) -> tuple[str, Arrays]:
    """The signature and its inputs; the one that steers has a value per row."""
    tensors = {name: np.asarray(array) for name, array in inputs.items()}
    if gamma is None and budget is None:
        return "default_gamma", tensors
    if gamma is not None and budget is not None:
        raise ValueError("`gamma` and `budget` were given: give one.")
    name, given = ("gamma", gamma) if budget is None else ("budget", budget)
    rows = len(next(iter(tensors.values())))
    values = np.asarray(given, np.float32)
    tensors[name] = np.repeat(values, rows) if values.ndim == 0 else values
    return {"gamma": "serving_default", "budget": "budget"}[name], tensors


def _json(url: str, timeout: float, body: str | None = None) -> dict[str, Any]:
    """The JSON that a server answers: to a POST if there is a body."""
    server = url.partition("/v1/")[0]
    request = urllib.request.Request(
        url,
        None if body is None else body.encode(),
        {"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            text = _one_line(error.read().decode(errors="replace"))
        raise ServerError(f"HTTP {error.code}: {text}") from error
    except OSError as error:
        reason = getattr(error, "reason", error)
        raise ServerError(f"No answer from {server}: {reason}") from error
    except (ValueError, http.client.HTTPException) as error:
        raise ServerError(_NO_SERVING.format(server)) from error


def _grpc() -> Any:
    """The messages of the server."""
    try:
        for name in ("get_model_metadata_pb2", "prediction_service_pb2_grpc"):
            importlib.import_module(f"tensorflow_serving.apis.{name}")
        return importlib.import_module("tensorflow_serving.apis")
    except ImportError as error:
        raise ImportError(
            "gRPC needs `pip install '.[serving]'` in a clone; REST does not."
        ) from error


def _call(channel: Any, method: str, request: Any, timeout: float) -> Any:
    """The answer of a method of the server."""
    grpc = importlib.import_module("grpc")
    if isinstance(channel, str):
        with grpc.insecure_channel(channel) as opened:
            return _call(opened, method, request, timeout)
    stub = _grpc().prediction_service_pb2_grpc.PredictionServiceStub(channel)
    try:
        return getattr(stub, method)(request, timeout=timeout)
    except grpc.RpcError as error:
        text = f"{error.code().name}: {_one_line(error.details() or '')}"
        raise ServerError(text) from error


def _in_base64(value: bytes) -> dict[str, str]:
    """Bytes as the server's JSON has them."""
    return {"b64": base64.b64encode(value).decode()}


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _images() -> np.ndarray:
    """Images `[rows, ...]` by the flags; `ValueError` if a flag is bad."""
    try:
        dtype = np.dtype(_DTYPE.value)
    except TypeError:
        raise ValueError(
            "--dtype must be a type of NumPy, such as uint8, got "
            f"{_DTYPE.value!r}."
        ) from None
    if _IMAGES.value is None:
        try:
            shape = [_ROWS.value, *map(int, _SHAPE.value)]
        except ValueError:
            raise ValueError(
                "--shape must be whole numbers, such as 28,56,1, got "
                f"{','.join(_SHAPE.value)!r}."
            ) from None
        return np.random.default_rng(0).integers(0, 256, shape).astype(dtype)
    try:
        images = np.load(_IMAGES.value)
    except (EOFError, ValueError, zipfile.BadZipFile):
        images = None
    if not isinstance(images, np.ndarray) or images.ndim == 0:
        raise ValueError(
            "--images must be a .npy file of numbers [rows, ...], got "
            f"{_IMAGES.value!r}."
        )
    return images.astype(dtype)


def _parse(flag: str, text: str, rows: int) -> np.ndarray:
    """float32 `[rows]` for one preference, `[rows, k]` for several."""
    try:
        values = np.array([float(v) for v in text.split(",")], np.float32)
    except ValueError:
        raise ValueError(
            f"--{flag} must be numbers, such as 2.0, got {text!r}."
        ) from None
    table = np.tile(values, [rows, 1])
    return table[:, 0] if len(values) == 1 else table


def _print(outputs: Arrays) -> None:
    for row, cost in enumerate(outputs["cost"]):
        choices = outputs["choices"][row].tolist()
        line = f"  row {row}: cost {cost:.3f}, choices {choices}"
        if "probabilities" in outputs:
            probabilities = outputs["probabilities"][row]
            line += f", class {probabilities.argmax()}"
            line += f" ({probabilities.max():.3f})"
        print(line)


def _ask_all(
    images: np.ndarray, requests: Mapping[str, Mapping[str, Any]]
) -> Iterator[tuple[str, Arrays]]:
    """Yields each request's text and answer; a large one is sent in parts."""
    if _REST.value:
        server = f"http://{_SERVER.value or 'localhost:8501'}"
        fetch_specs, predict = fetch_specs_rest, predict_rest
    else:
        server = _SERVER.value or "localhost:8500"
        fetch_specs, predict = fetch_specs_grpc, predict_grpc
    model, size = _MODEL.value, _BATCH_SIZE.value
    specs = fetch_specs(server, model)
    for text, steering in (requests or {"gamma default": {}}).items():
        check_request(specs, {_INPUT.value: images}, **steering)
        parts = []
        for start in range(0, len(images), size):
            rows = slice(start, start + size)
            inputs = {_INPUT.value: images[rows]}
            steered = {name: column[rows] for name, column in steering.items()}
            parts.append(predict(server, inputs, model=model, **steered))
        yield text, {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}


def main(argv: list[str]) -> None:
    """Sends the requests and prints the answers."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}.")
    try:
        images = _images()
        requests: dict[str, dict[str, Any]] = {
            f"{name} {text}": {name: _parse(name, text, len(images))}
            for name, texts in (
                ("gamma", _GAMMA.value),
                ("budget", _BUDGET.value),
            )
            for text in texts
        }
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    try:
        for text, outputs in _ask_all(images, requests):
            print(text)
            _print(outputs)
    except (ServerError, ImportError, ValueError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    app.run(main)
