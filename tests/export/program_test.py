"""The programs: a table, or an error in a line that names flags."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from tests.exporters.small_composer import composer, examples

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module", name="folder")
def _folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("program")
    composer().save(folder / "m.keras")
    np.savez(folder / "data.npz", image=examples(40)[0])
    return folder


def program(name, *arguments):
    return subprocess.run(
        [sys.executable, ROOT / "export" / name, *arguments],
        capture_output=True,
        text=True,
    )


def test_the_programs_print_a_table_or_one_line(folder, tmp_path):
    arguments = [f"--model={folder / 'm.keras'}", "--fix=entropy=0.5"]
    ran = program(
        "to_onnx.py", *arguments, f"--output={tmp_path / 'fixed.onnx'}"
    )
    assert ran.returncode == 0, ran.stderr
    assert "latency_ratio_cheapest" in ran.stdout
    assert "verified_on                   random inputs" in ran.stdout
    facts = json.loads((tmp_path / "fixed.onnx.json").read_text())
    assert facts["fixed"] == {"entropy": 0.5}
    for flag, message in (
        (
            "--fix=entropy=much",
            "--fix must be NAME=VALUE with a number, got 'entropy=much'.",
        ),
        (
            "--input_dtype=uint9",
            "--input_dtype must be of TensorFlow's types, such as 'uint8', got "
            "'uint9' for 'image'.",
        ),
    ):
        output = tmp_path / "m.onnx"
        ran = program("to_onnx.py", arguments[0], flag, f"--output={output}")
        assert ran.returncode == 1
        assert ran.stderr.splitlines()[-1] == f"error: {message}"
        assert not output.exists()


@pytest.mark.parametrize(
    ("name", "output", "flags", "facts"),
    [
        (
            "to_saved_model.py",
            "1",
            ["--warmup_requests=2", "--overwrite"],
            {"format": "tf_saved_model"},
        ),
        (
            "to_tflite.py",
            "m.tflite",
            ["--quantization=float16", "--batch_size=4"],
            {"quantization": "float16", "batch_size": 4},
        ),
        ("to_tflite.py", "m.tflite", ["--micro"], {"micro": True}),
    ],
)
def test_each_program_takes_the_options_of_its_target(
    folder, tmp_path, name, output, flags, facts
):
    path = tmp_path / output
    if "--overwrite" in flags:
        composer(seed=1).export(path)
    ran = program(
        name,
        f"--model={folder / 'm.keras'}",
        f"--output={path}",
        f"--data={folder / 'data.npz'}",
        "--default_gamma=glimpse=2.5",
        *flags,
    )
    assert ran.returncode == 0, ran.stderr
    assert "choice_agreement              1\n" in ran.stdout
    beside = tmp_path / f"{output}.json"
    if path.is_dir():
        beside = path / "assets.extra" / "composer.json"
        assert (path / "assets.extra" / "tf_serving_warmup_requests").exists()
    description = json.loads(beside.read_text())
    assert description.items() >= facts.items()
    assert description["gamma"][0]["default"] == 2.5
    report = json.loads((tmp_path / f"{output}.report.json").read_text())
    assert report["max_abs_error"] < 1e-2


def test_a_failed_verification_is_an_error_and_leaves_nothing(folder, tmp_path):
    ran = program(
        "to_tflite.py",
        f"--model={folder / 'm.keras'}",
        f"--output={tmp_path / 'new' / 'm.tflite'}",
        "--quantization=float16",  # Too coarse for images of up to 255.
    )
    assert ran.returncode == 1
    assert "failed its verification" in ran.stderr.splitlines()[-1]
    assert not list((tmp_path / "new").iterdir())


def test_help_of_a_program_shows_the_flags_that_all_have():
    shown = program("to_onnx.py", "--help").stdout
    for flag in ("--model", "--data", "--[no]verify", "--steer_by"):
        assert flag in shown


@pytest.mark.parametrize(
    ("name", "flags", "message"),
    [
        ("to_onnx.py", ["--noverify"], "exists; --overwrite replaces it."),
        (
            "to_tflite.py",
            ["--quantization=int8", "--overwrite"],
            "error: --quantization='int8' needs --data to",
        ),
    ],
)
def test_what_the_library_calls_arguments_are_flags_here(
    folder, tmp_path, name, flags, message
):
    output = tmp_path / "m"
    output.touch()
    ran = program(
        name, f"--model={folder / 'm.keras'}", f"--output={output}", *flags
    )
    assert ran.returncode == 1
    assert message in ran.stderr.splitlines()[-1]
