"""Several processes train one model, and outlive the death of one."""

import contextlib
import json
import os
import pathlib
import socket
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

from composer_tf import workers
from composer_tf.config import ConfigError
from composer_tf.training import training
from composer_tf.workdir import read_json

ROOT = pathlib.Path(__file__).parents[1]
CONFIG = """
from composer_tf.config import Config, DataConfig, EvaluationConfig
from composer_tf.models import WideMnist


def get_config() -> Config:
    return Config(
        data=DataConfig(
            "wide_mnist/digits", batch_size=500, augment=True, data_dir={!r}
        ),
        model=WideMnist(small_units=4, large_units=8),
        evaluation=EvaluationConfig(
            num_gammas=3, num_mixtures=2, alone=("cheapest",)
        ),
        epochs=3,
        controller_epochs=1,
    )
"""


@pytest.fixture
def config_file(tmp_path):
    path = tmp_path / "tiny.py"
    path.write_text(CONFIG.format(str(tmp_path / "tfds")))
    return path


def tiny_config(config_file):
    names = {}
    exec(config_file.read_text(), names)
    return names["get_config"]()


def free_addresses(count):
    """Ports that nobody uses, all different."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    return addresses


@contextlib.contextmanager
def two_workers(config_file, workdir, errors):
    """Both workers of a run; their errors go to files `errors`, by index."""
    addresses = free_addresses(2)
    processes = []
    try:
        for index, path in enumerate(errors):
            role = {
                "cluster": {"worker": addresses},
                "task": {"type": "worker", "index": index},
            }
            command = [
                *(sys.executable, "-m", "composer_tf"),
                f"--config={config_file}",
                f"--workdir={workdir}",
                "--distribute=multi_worker",
            ]
            with open(path, "w") as file:
                process = subprocess.Popen(
                    command,
                    cwd=ROOT,
                    env={**os.environ, "TF_CONFIG": json.dumps(role)},
                    stdout=subprocess.DEVNULL,
                    stderr=file,
                )
            processes.append(process)
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()


def lose(config_file, workdir, errors, *, lost, epoch):
    """Starts both workers and kills one at the checkpoint of an epoch."""
    checkpoint = workdir / "checkpoints" / f"epoch-{epoch:06}.weights.h5"
    deadline = time.monotonic() + 300
    with two_workers(config_file, workdir, errors) as processes:
        while not checkpoint.exists():
            assert processes[0].poll() is None, errors[0].read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        processes[lost].kill()
        assert processes[1 - lost].wait(240) != 0
    left = errors[1 - lost].read_text()
    assert "error: another worker was lost" in left
    assert "Traceback" not in left


@pytest.mark.slow
def test_workers_resume_to_the_result_of_one_process(config_file, tmp_path):
    alone, together = tmp_path / "alone", tmp_path / "together"
    errors = [tmp_path / "0.txt", tmp_path / "1.txt"]
    lose(config_file, together, errors, lost=0, epoch=1)  # They prepare data.
    lose(config_file, together, errors, lost=1, epoch=2)
    with two_workers(config_file, together, errors) as processes:
        for process, path in zip(processes, errors, strict=True):
            assert process.wait(240) == 0, path.read_text()
    expected = training.run(tiny_config(config_file), alone)["summary"]
    metrics = read_json(together / "metrics.json")
    for name, value in expected.items():
        assert metrics["summary"][name] == pytest.approx(value, abs=1e-5)
    one, two = (
        keras.models.load_model(run / "model.keras").get_weights()
        for run in (alone, together)
    )
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.slow
def test_a_run_on_two_replicas_is_the_run_on_one(
    two_replicas, config_file, tmp_path
):
    config = tiny_config(config_file)
    expected = training.run(config, tmp_path / "one")
    metrics = training.run(config, tmp_path / "two", two_replicas)
    assert metrics["summary"] == pytest.approx(expected["summary"], abs=1e-5)


def test_one_process_is_its_own_chief():
    strategy = workers.make_strategy("one")
    assert workers.is_chief(strategy)
    assert strategy.num_replicas_in_sync == 1
    workers.wait_for_all(strategy)


def test_replicas_of_one_process_have_one_chief(two_replicas):
    assert workers.is_chief(two_replicas)
    workers.wait_for_all(two_replicas)


@pytest.mark.parametrize(
    ("cluster", "task", "expected"),
    [
        ({"worker": ["a:1", "b:1"]}, ("worker", 0), True),
        ({"worker": ["a:1", "b:1"]}, ("worker", 1), False),
        ({"chief": ["a:1"], "worker": ["b:1"]}, ("chief", 0), True),
        ({"chief": ["a:1"], "worker": ["b:1"]}, ("worker", 0), False),
    ],
)
def test_the_chief_is_named_or_the_first_worker(cluster, task, expected):
    class Strategy:
        cluster_resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
            tf.train.ClusterSpec(cluster), task_type=task[0], task_id=task[1]
        )

    assert workers.is_chief(Strategy()) == expected


@pytest.mark.parametrize(
    "value",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"cluster": {"worker": ["a:1"]}}',
        '{"cluster": {"worker": ["a:1"]}, "task": "worker"}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker"}}',
        '{"cluster": {"ps": ["a:1"]}, "task": {"type": "ps", "index": 0}}',
        *(
            f'{{"cluster": {{"worker": ["{address}"]}}, '
            f'"task": {{"type": "worker", "index": {index}}}}}'
            for address, index in [("a:1", 1), ("a", 0), ("a:99999", 0)]
        ),
    ],
)
def test_workers_need_to_know_each_other(monkeypatch, value):
    monkeypatch.setenv("TF_CONFIG", value)
    with pytest.raises(workers.WorkersError, match="TF_CONFIG"):
        workers.make_strategy("multi_worker")


@pytest.mark.parametrize("name", ["one", "mirrored"])
def test_one_of_several_workers_does_not_train_alone(monkeypatch, name):
    cluster = {"worker": ["a:1", "b:1"]}
    role = {"cluster": cluster, "task": {"type": "worker", "index": 1}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(role))
    with pytest.raises(workers.WorkersError, match="choose 'multi_worker'"):
        workers.make_strategy(name)
    monkeypatch.setenv("TF_CONFIG", '{"environment": "cloud"}')
    assert workers.make_strategy("one") is tf.distribute.get_strategy()


def test_workers_that_disagree_are_told(two_replicas, monkeypatch):
    workers.check_agreement(two_replicas, 3, "the last epoch")
    powers = np.array([[1, 1], [2, 4], [3, 9]], float)  # Of three workers.
    monkeypatch.setattr(workers, "_mean", lambda *_: powers.mean(axis=0))
    for epoch in (1, 2, 3):  # The second is at the mean itself.
        with pytest.raises(workers.WorkersError, match="disagree about the"):
            workers.check_agreement(two_replicas, epoch, "the last epoch")


def test_a_batch_that_replicas_cannot_share_evenly_is_refused(
    two_replicas, config_file, tmp_path
):
    config = tiny_config(config_file)
    config.data.batch_size = 501
    with pytest.raises(ConfigError, match="multiple of the 2 replicas"):
        training.run(config, tmp_path / "run", two_replicas)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_two_names_of_a_path_are_one_network(config_file, tmp_path):
    config = tiny_config(config_file)
    config.evaluation.alone = ("cheapest", "0")
    config.epochs, config.controller_epochs = 1, 0
    metrics = training.run(config, tmp_path / "run")
    assert len(metrics["lines"]["alone"]) == 1


def test_one_worker_is_enough(config_file, tmp_path):
    role = {
        "cluster": {"worker": free_addresses(1)},
        "task": {"type": "worker", "index": 0},
    }
    ran = subprocess.run(
        [
            *(sys.executable, "-m", "composer_tf"),
            f"--config={config_file}",
            f"--workdir={tmp_path / 'run'}",
            "--distribute=multi_worker",
            "--config.epochs=1",
            "--config.controller_epochs=0",
        ],
        cwd=ROOT,
        env=os.environ | {"TF_CONFIG": json.dumps(role)},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "run" / "metrics.json").exists()
