"""A run that is killed ends as one that was not, bit for bit."""

import pathlib
import signal
import subprocess
import sys
import time

import pytest
from absl import flags
from ml_collections import config_flags

from composer_tf.training import training
from tests.trained import assert_same_model

ROOT = pathlib.Path(__file__).parents[2]

OVERRIDES = (
    "--config.epochs=5",
    "--config.jit_compile",
    "--config.evaluation.num_gammas=2",
    "--config.evaluation.num_mixtures=2",
)
# A module with randomness of its own, of which the checkpoint must know.
DROPOUT = """
import dataclasses
import keras
import composer_tf as ct
from composer_tf.config import Config, DataConfig

@dataclasses.dataclass
class Dropout:
    rate: float = 0.5

    def build(self, seed=None):
        layers = keras.layers
        modules = [
            keras.Sequential([layers.Flatten(), layers.Dense(20)]),
            keras.Sequential([
                layers.Flatten(), layers.Dense(8, "relu"),
                layers.Dropout(self.rate), layers.Dense(20),
            ]),
        ]
        return ct.Composer(
            [ct.Metalayer(modules)],
            stem=layers.Rescaling(1 / 255),
            preferences=[ct.GlimpsePreference(ct.Uniform(-2.0, 6.0))],
            seed=seed,
        )

def get_config():
    data = DataConfig("wide_mnist/digits", batch_size=100)
    return Config(data=data, model=Dropout())
"""


def parse(argv):
    """The config that the program makes of its command line."""
    values = flags.FlagValues()
    config = config_flags.DEFINE_config_file(
        "config", flag_values=values, sys_argv=argv
    )
    values(argv)
    return config.value


def start(argv, workdir, log):
    return subprocess.Popen(
        [sys.executable, "-m", *argv, f"--workdir={workdir}"],
        cwd=ROOT,
        stdout=log,
        stderr=subprocess.STDOUT,
    )


def kill_at_a_new_file(process, folder):
    """Kills a run when a file appears, once there is a whole checkpoint."""
    known = set(folder.glob("*"))
    while not (any(folder.glob("epoch-*")) and {*folder.glob("*")} - known):
        assert process.poll() is None, "The run ended before it was killed."
        time.sleep(0.002)
    process.kill()
    assert process.wait() == -signal.SIGKILL


@pytest.mark.slow
def test_a_killed_run_ends_as_one_that_was_not(tmp_path):
    path, kills = tmp_path / "dropout.py", 2
    path.write_text(DROPOUT)
    data = f"--config.data.data_dir={tmp_path / 'tfds'}"
    argv = ["composer_tf", f"--config={path}", data, *OVERRIDES]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    training.run(parse(argv), whole)

    log = tmp_path / "log.txt"
    with open(log, "w") as file:
        for _ in range(kills):
            # From the second kill on, the new file is one half written.
            kill_at_a_new_file(
                start(argv, killed, file), killed / "checkpoints"
            )
            assert not (killed / "metrics.json").exists()
        code = start(argv, killed, file).wait()
    assert code == 0, log.read_text()
    assert log.read_text().count("Resuming after epoch") == kills
    assert_same_model(whole, killed)
    for name in ("metrics.json", "tradeoff.csv"):
        assert (killed / name).read_text() == (whole / name).read_text()
