"""The files of the kit: what the server reads, and its health check."""

import re
import subprocess

import numpy as np
import tensorflow as tf
import yaml
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    text_format,
    wrappers_pb2,
)
from tensorflow_serving.apis import (
    prediction_log_pb2,
)
from tensorflow_serving.config import model_server_config_pb2

from tests.export.tf_serving.servers import (
    HIGH,
    KIT,
    LOW,
    MAX_ROWS,
    rest_server,
)


def test_every_warm_up_request_runs(exported, runtime):
    _, path = exported
    records = tf.data.TFRecordDataset(
        str(path / "assets.extra" / "tf_serving_warmup_requests")
    )
    values = {"gamma": [], "budget": []}
    signatures, paths = [], set()
    for record in records.as_numpy_iterator():
        log = prediction_log_pb2.PredictionLog.FromString(record)
        request = log.predict_log.request
        tensors = {n: tf.make_ndarray(p) for n, p in request.inputs.items()}
        signatures.append(request.model_spec.signature_name)
        outputs = runtime(signatures[-1], tensors)
        assert np.isfinite(outputs["logits"]).all()
        paths.add(tuple(outputs["choices"][0]))
        for name in values.keys() & tensors.keys():
            values[name].extend(tensors[name])
    assert signatures == ["serving_default", "default_gamma", "budget"] * 2
    gammas = np.linspace(LOW, HIGH, 6)[::3]
    np.testing.assert_allclose(values["gamma"], gammas, rtol=1e-6)
    low, high = values["budget"]
    assert low < high
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
    assert parameters.max_batch_size.value == MAX_ROWS
    assert parameters.num_batch_threads.value > 0


def models_config():
    return text_format.Parse(
        (KIT / "models.config").read_text(),
        model_server_config_pb2.ModelServerConfig(),
    )


def compose_service():
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


def test_compose_mounts_the_folder_that_the_readmes_export_to():
    volumes = compose_service()["volumes"]
    (model,) = [v for v in volumes if v["target"].startswith("/models/")]
    default = re.fullmatch(r"\$\{SERVING_FOLDER:-(.*)\}", model["source"])[1]
    root = KIT.parents[1]
    exported = [
        (root / name).resolve()
        for readme in (root / "README.md", KIT / "README.md")
        for name in re.findall(
            r"to_saved_model\.py .*--output=(\S+)", readme.read_text()
        )
    ]
    assert exported == [(KIT / default).resolve() / "1"] * 2


def test_the_health_check_sees_whether_the_model_is_there(runtime):
    _, *command = compose_service()["healthcheck"]["test"]
    (model_config,) = models_config().model_config_list.config
    assert f"/v1/models/{model_config.name} " in command[-1]
    *bash, script = command

    def healthy(url):
        asked = script.replace("8501", url.rpartition(":")[2])
        done = subprocess.run([*bash, asked], capture_output=True, timeout=60)
        return done.returncode == 0

    with rest_server(runtime) as url:
        assert healthy(url)
    assert not healthy(url)
    with rest_server(runtime, "LOADING") as url:
        assert not healthy(url)
