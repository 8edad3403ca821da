"""Several processes train one model, and outlive the death of one."""

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

from composer_tf import training, workers
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


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def start_two(config_file, workdir):
    """Starts both workers of a run, their errors piped."""
    addresses = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    processes = []
    for index in range(2):
        role = {
            "cluster": {"worker": addresses},
            "task": {"type": "worker", "index": index},
        }
        processes.append(
            subprocess.Popen(
                [
                    *(sys.executable, "-m", "composer_tf"),
                    f"--config={config_file}",
                    f"--workdir={workdir}",
                    "--distribute=multi_worker",
                ],
                cwd=ROOT,
                env={**os.environ, "TF_CONFIG": json.dumps(role)},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    return processes


@pytest.mark.slow
def test_workers_resume_to_the_result_of_one_process(config_file, tmp_path):
    alone, together = tmp_path / "alone", tmp_path / "together"
    expected = training.run(tiny_config(config_file), alone)
    chief, other = start_two(config_file, together)
    checkpoint = together / "checkpoints" / "epoch-000001.weights.h5"
    while not checkpoint.exists():
        assert chief.poll() is None, chief.stderr.read()
        time.sleep(0.05)
    other.kill()
    _, errors = chief.communicate(timeout=240)
    other.communicate()
    assert chief.returncode != 0
    assert "error: another worker was lost" in errors
    assert "Traceback" not in errors
    for process in start_two(config_file, together):
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors
    metrics = read_json(together / "metrics.json")
    for name, value in expected["summary"].items():
        assert metrics["summary"][name] == pytest.approx(value, abs=1e-5)
    one, two = (
        keras.models.load_model(folder / "model.keras").get_weights()
        for folder in (alone, together)
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
