"""What the kit's README shows works as it stands."""

import re

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from tensorflow.lite.tools import flatbuffer_utils

import composer_tf as ct
from tests.export.device.models import (
    IMAGES,
    KIT,
    assert_same,
    client,
    keras_outputs,
)

README = (KIT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_readmes_commands_run(inside, capsys):
    commands = re.findall(r"^python client\.py (.*)$", README, re.MULTILINE)
    assert len(commands) == 3
    for command in commands:
        client.main(command.split())
    assert len(capsys.readouterr().out.splitlines()) == 6 + 5 + 4


def test_the_readmes_python_steers(inside, capsys):
    (block,) = [b for b in blocks("python") if "import Composer" in b]
    scope = {}
    exec(block, scope)
    expected = scope["composer"].predict(IMAGES, gamma=6.0)
    assert_same(scope["cheap"], expected)
    assert str(expected["cost"]) in capsys.readouterr().out


def test_the_readmes_account_is_kept_as_by_the_library(inside):
    first, account = blocks("python")[:2]
    scope = {}
    exec(first, scope)
    exec(account, scope)
    tracker = ct.BudgetTracker(0.5, horizon=1000)
    for image in IMAGES:
        answer = scope["composer"].predict(
            image[np.newaxis], budget=tracker.budget
        )
        tracker.update(answer["cost"])
    assert scope["saved"] == pytest.approx(tracker.balance)


def test_the_readmes_listings_use_the_names_of_the_file(inside):
    (cpp,) = [b for b in blocks("cpp") if "GetSignatureRunner" in b]
    (kotlin,) = blocks("kotlin")
    signatures = Interpreter("m.tflite").get_signature_list()
    names = signatures["serving_default"]
    outputs = {"probabilities", "choices", "cost"}
    assert set(re.findall(r'input_tensor\("(\w+)"', cpp)) == set(
        names["inputs"]
    )
    assert set(re.findall(r'output_tensor\("(\w+)"', cpp)) == outputs
    pairs = set(re.findall(r'"(\w+)" to', kotlin))
    assert pairs == {*names["inputs"], *outputs}
    assert outputs <= set(names["outputs"])
    for listing in (cpp, kotlin):
        assert '"serving_default"' in listing


def test_the_readme_lists_what_micro_needs(inside, model, capsys):
    (block,) = [b for b in blocks("python") if "BuiltinOperator" in b]
    exec(block, {})
    printed = capsys.readouterr().out
    added = re.findall(r"resolver\.Add(\w+)\(\);", printed)
    file = flatbuffer_utils.read_model("micro.tflite")
    operators = {
        flatbuffer_utils.opcode_to_name(file, i).replace("_", "").lower()
        for i in range(len(file.operatorCodes))
    }
    assert {name.lower() for name in added} == operators
    assert {"If", "Conv2D", "FullyConnected"} <= set(added)
    assert f"MicroMutableOpResolver<{len(added)}>" in printed

    runtime = pytest.importorskip("tflite_micro").runtime
    interpreter = runtime.Interpreter.from_file("micro.tflite")
    numbers = {
        name: int(number)
        for number, name in re.findall(r"put\((\d+)\): (\w+)", printed)
    }
    gamma = np.array([6.0], np.float32)
    outputs = {"choices": [], "probabilities": []}
    for image in IMAGES:
        interpreter.set_input(gamma, numbers["gamma"])
        interpreter.set_input(image[np.newaxis], numbers["image"])
        interpreter.invoke()
        for name, rows in outputs.items():
            rows.append(interpreter.get_output(numbers[name])[0])
    assert_same(outputs, keras_outputs(model, 6.0))


def test_the_readme_registers_operators_by_the_methods_of_micro(
    inside, tmp_path, monkeypatch, capsys
):
    """Methods of tflite-micro's micro_mutable_op_resolver.h."""
    methods = {
        "BATCH_MATMUL": "BatchMatMul",
        "CUMSUM": "CumSum",
        "L2_POOL_2D": "L2Pool2D",
        "PADV2": "PadV2",
        "RELU6": "Relu6",
        "SELECT_V2": "SelectV2",
        "UNIDIRECTIONAL_SEQUENCE_LSTM": "UnidirectionalSequenceLSTM",
    }
    file = flatbuffer_utils.read_model("micro.tflite")
    file.operatorCodes = []
    for name in methods:
        code = schema.OperatorCodeT()
        code.builtinCode = getattr(schema.BuiltinOperator, name)
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)
        file.operatorCodes.append(code)
    monkeypatch.chdir(tmp_path)
    flatbuffer_utils.write_model(file, "micro.tflite")
    (block,) = [b for b in blocks("python") if "BuiltinOperator" in b]
    exec(block, {})
    added = re.findall(r"resolver\.Add(\w+)\(\);", capsys.readouterr().out)
    assert added == list(methods.values())


def test_the_readme_tries_a_file_in_micro(inside, capsys):
    pytest.importorskip("tflite_micro")
    (block,) = [b for b in blocks("python") if "tflite_micro" in b]
    exec(block, {})
    assert capsys.readouterr().out
