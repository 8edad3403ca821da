import importlib.util
import json
import pathlib
import re
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from tensorflow.lite.tools import flatbuffer_utils

import composer_tf as ct

KIT = pathlib.Path(__file__).parents[2] / "export" / "device"
README = (KIT / "README.md").read_text()
GAMMAS = (-4.0, 0.0, 2.0, 6.0)
NAMED_GAMMAS = ({"glimpse": 6.0, "entropy": 1.0}, {"entropy": 0.5})
IMAGES = np.random.default_rng(0).normal(size=[24, 8, 8, 1]).astype("float32")

spec = importlib.util.spec_from_file_location("client", KIT / "client.py")
client = importlib.util.module_from_spec(spec)
spec.loader.exec_module(client)


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def metalayer():
    conv = keras.layers.Conv2D
    return ct.Metalayer([conv(8, 1), conv(8, 5, padding="same")])


def build(gammas, *preferences):
    """An untrained Composer that happens to follow gamma."""
    keras.utils.set_random_seed(0)
    model = ct.Composer(
        [
            metalayer(),
            keras.layers.MaxPooling2D(),
            metalayer(),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(5),
        ],
        controller=ct.RNNController(units=4, grid=2),
        preferences=preferences,
    )
    model(IMAGES)
    random = np.random.default_rng(0)
    while len({mean_cost(model, gamma) for gamma in gammas}) < len(gammas):
        for weight in model.controller.trainable_variables:
            weight.assign(random.normal(size=weight.shape))
    return model


def keras_outputs(model, gamma):
    composition = model(IMAGES, gamma=gamma, return_composition=True)
    return {
        "probabilities": keras.ops.softmax(composition.outputs).numpy(),
        "choices": composition.policy.choices.numpy(),
    }


def mean_cost(model, gamma):
    return cost_of(model, keras_outputs(model, gamma)["choices"]).mean()


def cost_of(model, choices):
    modules = zip(model.cost_table.fractions, choices.T, strict=True)
    return model.overhead + sum(np.array(beta)[c] for beta, c in modules)


def assert_same(outputs, wanted):
    np.testing.assert_array_equal(outputs["choices"], wanted["choices"])
    np.testing.assert_allclose(
        outputs["probabilities"], wanted["probabilities"], atol=1e-5
    )


@pytest.fixture(scope="module")
def model():
    model = build(GAMMAS, ct.GlimpsePreference(ct.Uniform(-4.0, 6.0)))
    model.calibrate(IMAGES, num_gammas=9)
    return model


@pytest.fixture(scope="module")
def two_gammas():
    return build(
        NAMED_GAMMAS,
        ct.GlimpsePreference(ct.Uniform(-4.0, 6.0)),
        ct.EntropyPreference(ct.Uniform(0.0, 1.0)),
    )


@pytest.fixture(scope="module")
def folder(model, two_gammas, tmp_path_factory):
    """What a device holds: files of four kinds, images, and the client."""
    folder = tmp_path_factory.mktemp("device")
    for name, source, options in (
        ("m", model, {"default_gamma": {"glimpse": 6.0}}),
        ("micro", model, {"micro": True}),
        ("lean", model, {"micro": True, "steer_by": "budget"}),
        ("fixed", model, {"fix": {"glimpse": 2.0}}),
        ("two", two_gammas, {}),
    ):
        source.export(folder / f"{name}.tflite", format="tflite", **options)
    shutil.copy(KIT / "client.py", folder)
    np.save(folder / "images.npy", IMAGES)
    np.savez(folder / "images.npz", image=IMAGES)
    return folder


@pytest.fixture
def inside(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    return folder


def alone(folder, code):
    """Runs code where there is neither TensorFlow nor this project."""
    block = (
        "import sys\n"
        "missing = ['absl', 'composer_tf', 'keras', 'tensorflow']\n"
        "sys.modules.update(dict.fromkeys(missing))\n"
    )
    return subprocess.run(
        [sys.executable, "-c", block + code],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def program(folder, *arguments):
    return alone(
        folder,
        f"import runpy; sys.argv = {['client.py', *arguments]!r}\n"
        "runpy.run_path('client.py', run_name='__main__')",
    )


def refusal(*arguments):
    with pytest.raises(SystemExit) as error:
        client.main(arguments)
    (line,) = error.value.code.splitlines()  # Python prints it, and exits 1.
    return line


def table(text):
    header, *rows = (re.split(r"\s{2,}", line) for line in text.splitlines())
    return [dict(zip(header, row, strict=True)) for row in rows]


def test_without_tensorflow_it_agrees_with_keras_at_every_gamma(model, folder):
    process = alone(
        folder,
        "import numpy as np\n"
        "from client import Composer\n"
        "composer = Composer('m.tflite')\n"
        "images = np.load('images.npy')\n"
        f"for i, gamma in enumerate({GAMMAS}):\n"
        "    outputs = composer.predict(images, gamma)\n"
        "    np.savez(f'outputs_{i}.npz', **outputs)\n",
    )
    assert process.returncode == 0, process.stderr
    for i, gamma in enumerate(GAMMAS):
        outputs = np.load(folder / f"outputs_{i}.npz")
        assert_same(outputs, keras_outputs(model, gamma))
        wanted = cost_of(model, outputs["choices"])
        np.testing.assert_allclose(outputs["cost"], wanted, rtol=1e-5)


def test_the_program_prints_choices_cost_and_latency(model, folder):
    arguments = ("m.tflite", "--images=images.npy", "--gamma", "-4", "6")
    process = program(folder, *arguments)
    assert process.returncode == 0, process.stderr
    rows = table(process.stdout)
    for row, gamma in zip(rows, (-4.0, 6.0), strict=True):
        choices = keras_outputs(model, gamma)["choices"]
        counts = [np.bincount(c, minlength=2).tolist() for c in choices.T]
        assert float(row["gamma"]) == gamma
        assert row["modules chosen"] == " ".join(map(str, counts))
        assert row["cost"] == f"{cost_of(model, choices).mean():.3f}"
        assert float(row["ms"]) > 0.0


def test_its_errors_are_a_line_and_an_exit_code(folder):
    process = program(folder, "none.tflite")
    assert process.returncode == 1
    assert process.stderr == "error: There is no file none.tflite.\n"
    assert process.stdout == ""


@pytest.mark.parametrize(
    ("file", "gammas"),
    [
        ("m", ["-4", "-1.5", "1", "3.5", "6"]),
        ("two", ["-4,0", "-1.5,0.25", "1,0.5", "3.5,0.75", "6,1"]),
        ("fixed", ["fixed"]),
    ],
)
def test_without_options_it_steps_through_the_support(
    inside, capsys, file, gammas
):
    client.main([f"{file}.tflite"])
    printed = [row["gamma"] for row in table(capsys.readouterr().out)]
    assert [re.sub(r"\w+=", "", gamma) for gamma in printed] == gammas


def test_gamma_is_turned_from_call_to_call_or_from_row_to_row(inside, model):
    composer = client.Composer("m.tflite")
    for gamma in (6.0, -4.0, 6.0):
        outputs = composer.predict(IMAGES, gamma)
        assert_same(outputs, keras_outputs(model, gamma))
    gammas = np.linspace(-4.0, 6.0, len(IMAGES))
    wanted = keras_outputs(model, gammas)
    assert_same(composer.predict(IMAGES, gammas), wanted)
    named = composer.predict({"image": IMAGES}, {"glimpse": gammas})
    assert_same(named, wanted)
    assert len(composer.seconds) == len(IMAGES)


@pytest.mark.parametrize("file", ["m", "lean"])
def test_a_budget_has_the_answer_of_its_gamma(inside, model, file, capsys):
    composer = client.Composer(f"{file}.tflite")
    costs = model.calibration.costs
    for budget in (costs[0], costs[4], np.linspace(costs[-1], costs[0], 24)):
        gamma = model.calibration.gamma(budget)
        outputs = composer.predict(IMAGES, budget=budget)
        assert_same(outputs, keras_outputs(model, gamma))
    images = "--images=images.npy"
    client.main([f"{file}.tflite", images, "--budget", "0", "1"])
    cheap, dear = table(capsys.readouterr().out)
    assert cheap["budget"] == "0"
    assert float(cheap["cost"]) == pytest.approx(costs[-1], abs=1e-3)
    assert float(dear["cost"]) == pytest.approx(costs[0], abs=1e-3)


def test_a_file_of_budgets_steps_through_what_was_measured(inside, capsys):
    client.main(["lean.tflite"])
    budgets = [float(r["budget"]) for r in table(capsys.readouterr().out)]
    costs = client.Composer("lean.tflite").description["calibration"]["costs"]
    wanted = np.linspace(costs[-1], costs[0], 5)
    np.testing.assert_allclose(budgets, wanted, rtol=0.01)


def test_several_gammas_go_by_name(inside, two_gammas, capsys):
    composer = client.Composer("two.tflite")
    for gamma in NAMED_GAMMAS:
        wanted = keras_outputs(two_gammas, gamma)
        assert_same(composer.predict(IMAGES, gamma), wanted)
    images = "--images=images.npz"
    client.main(["two.tflite", images, "--gamma", "glimpse=6,entropy=1"])
    (row,) = table(capsys.readouterr().out)
    assert row["cost"] == f"{mean_cost(two_gammas, NAMED_GAMMAS[0]):.3f}"


@pytest.mark.parametrize(
    ("file", "gamma"),
    [("m", 6.0), ("micro", 0.0), ("lean", 0.0), ("fixed", 2.0)],
)
def test_no_gamma_takes_the_default_of_the_file(inside, model, file, gamma):
    outputs = client.Composer(f"{file}.tflite").predict(IMAGES)
    assert_same(outputs, keras_outputs(model, gamma))


@pytest.mark.parametrize(
    ("gamma", "taken"),
    [(99.0, 6.0), (-99.0, -4.0), (np.nan, 0.0), (np.inf, 0.0)],
)
def test_a_gamma_off_the_support_is_clipped_and_a_bad_one_the_default(
    inside, model, gamma, taken
):
    outputs = client.Composer("micro.tflite").predict(IMAGES, gamma)
    assert_same(outputs, keras_outputs(model, taken))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.tflite"], "no file none.tflite"),
        (["orphan.tflite"], r"orphan\.tflite\.json.*No such file"),
        (["text.tflite"], "LiteRT cannot run text.tflite"),
        (["empty.tflite"], "LiteRT cannot run empty.tflite"),
        (["short.tflite"], "LiteRT cannot run short.tflite"),
        (["mixed.tflite"], "no signature .*mixed.tflite.json"),
        (["undescribed.tflite"], "undescribed.tflite.json is no descr"),
        (["m.tflite", "--images=none.npy"], "none.npy.*No such file"),
        (["m.tflite", "--images=m.tflite"], "m.tflite is no .npy"),
        (["m.tflite", "--images=wrong.npy"], r"\[N, 8, 8, 1\].*\[24, 64\]"),
        (["m.tflite", "--images=none_at_all.npy"], r"got \[0, 8, 8, 1\]"),
        (["m.tflite", "--images=complex.npy"], "float32, got complex64"),
        (["m.tflite", "--images=label.npz"], r"\['image'\].*\['label'\]"),
        (["m.tflite", "--random=0"], "--random must be at least 1, got 0"),
        (["m.tflite", "--gamma", "cheap"], "--gamma takes .* 'cheap'"),
        (["m.tflite", "--gamma", "glimpse=x"], "--gamma takes"),
        (["m.tflite", "--gamma", "entropy=1"], r"'entropy'.*\['glimpse'\]"),
        (["two.tflite", "--gamma", "2"], r"\['glimpse', 'entropy'\]"),
        (["fixed.tflite", "--gamma", "2"], "fixed at export"),
        (["fixed.tflite", "--budget", "1"], "not calibrated .* fixed at"),
        (["two.tflite", "--budget", "1"], "not calibrated for budgets"),
        (
            ["m.tflite", "--budget", "half"],
            "--budget takes numbers, got 'half'",
        ),
        (["lean.tflite", "--gamma", "2"], "The file takes a budget only"),
        (["micro.tflite", "--budget", "1"], "The file takes a gamma only"),
    ],
)
def test_bad_input_is_one_line(inside, arguments, message):
    content = (inside / "m.tflite").read_bytes()
    description = (inside / "m.tflite.json").read_text()
    for name, model, text in (
        ("text", b"not a model", description),
        ("empty", b"", description),
        ("short", content[: len(content) // 2], description),
        ("mixed", content, (inside / "fixed.tflite.json").read_text()),
        ("undescribed", content, json.dumps(["m"])),
    ):
        (inside / f"{name}.tflite").write_bytes(model)
        (inside / f"{name}.tflite.json").write_text(text)
    (inside / "orphan.tflite").write_bytes(content)
    np.save("wrong.npy", IMAGES.reshape(24, 64))
    np.save("none_at_all.npy", IMAGES[:0])
    np.save("complex.npy", IMAGES.astype("complex64"))
    np.savez("label.npz", label=IMAGES)
    line = refusal(*arguments)
    assert line.startswith("error: ")
    assert re.search(message, line)


@pytest.mark.parametrize("gamma", ["cheap", [1.0, 2.0], object()])
def test_a_gamma_that_is_no_number_is_refused(inside, gamma):
    composer = client.Composer("m.tflite")
    with pytest.raises(client.BadInputError, match="'glimpse' must be a num"):
        composer.predict(IMAGES, {"glimpse": gamma})


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
