import os
import pathlib
import subprocess
import sys

import pytest
from absl import app, flags
from absl.testing import flagsaver

from composer_tf import __main__ as program
from composer_tf.config import ConfigError
from composer_tf.datasets import DataUnavailableError
from composer_tf.training import training
from composer_tf.workdir import WorkdirError
from composer_tf.workers import WorkersError

ROOT = pathlib.Path(__file__).parents[1]
MNIST = "--config=configs/wide_mnist.py"


def start(*arguments, **environment):
    """Runs the program; returns its exit code, output and errors."""
    process = subprocess.run(
        [sys.executable, "-m", "composer_tf", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return process.returncode, process.stdout, process.stderr


@pytest.fixture
def main(tmp_path, monkeypatch):
    """The program inside this process, with a run that does as told."""

    def call(run):
        argv = ["program", MNIST, f"--workdir={tmp_path / 'run'}"]
        monkeypatch.chdir(ROOT)
        monkeypatch.setattr(sys, "argv", argv)
        monkeypatch.setattr(training, "run", run)
        with flagsaver.flagsaver():
            flags.FLAGS(argv)
            program.main(argv[:1])

    return call


@pytest.mark.slow
def test_without_flags_it_names_them():
    code, output, errors = start()
    assert code != 0
    assert "--config" in errors
    assert "--workdir" in errors
    assert "Traceback" not in errors
    assert output == ""


@pytest.mark.slow
def test_an_unknown_field_of_the_config_is_named(tmp_path):
    workdir = tmp_path / "run"
    code, _, errors = start(MNIST, f"--workdir={workdir}", "--config.epoch=3")
    assert code != 0
    assert errors.splitlines()[-1].startswith("error: --config: Field epoch ")
    assert "Traceback" not in errors
    assert not workdir.exists()


@pytest.mark.slow
def test_a_config_that_is_no_file_is_one_clear_error(tmp_path):
    code, _, errors = start("--config=no/such.py", f"--workdir={tmp_path}")
    assert code != 0
    assert "error: --config: " in errors
    assert "no/such.py" in errors
    assert "Traceback" not in errors


@pytest.mark.slow
def test_data_that_cannot_be_had_is_one_clear_error(tmp_path):
    closed = "http://127.0.0.1:9"  # The port that discards.
    code, output, errors = start(
        MNIST,
        f"--workdir={tmp_path / 'run'}",
        TFDS_DATA_DIR=str(tmp_path / "data"),
        https_proxy=closed,
        http_proxy=closed,
        HTTPS_PROXY=closed,
        HTTP_PROXY=closed,
        no_proxy="",
        NO_PROXY="",
    )
    assert code == 1
    (line,) = (s for s in errors.splitlines() if s.startswith("error:"))
    assert "'mnist'" in line
    assert str(tmp_path / "data") in line
    assert "TFDS_DATA_DIR" in errors
    assert "Traceback" not in errors
    assert output == ""


def test_config_and_workdir_reach_the_run(main, tmp_path):
    calls = []
    main(lambda config, workdir, _: calls.append((config, workdir)))
    ((config, workdir),) = calls
    assert config.data.name == "wide_mnist/mnist"
    assert pathlib.Path(workdir) == tmp_path / "run"


@pytest.mark.parametrize(
    "kind", [ConfigError, DataUnavailableError, WorkdirError, WorkersError]
)
def test_what_the_user_can_mend_is_an_error_without_a_traceback(main, kind):
    def fail(config, workdir, strategy):
        raise kind("Use another folder.")

    with pytest.raises(SystemExit) as error:
        main(fail)
    # Python prints a text and exits with 1.
    assert error.value.code == "error: Use another folder."


def test_a_bug_keeps_its_traceback(main):
    def fail(config, workdir, strategy):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        main(fail)


def test_an_interrupt_says_how_to_go_on(main):
    def interrupt(config, workdir, strategy):
        raise KeyboardInterrupt

    with pytest.raises(SystemExit, match="same command resumes"):
        main(interrupt)


def test_arguments_that_are_no_flags_are_refused():
    with pytest.raises(app.UsageError, match="wide_mnist"):
        program.main(["program", "wide_mnist"])
