import json
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import composer_tf as ct
from tests.export.device.models import (
    GAMMAS,
    IMAGES,
    NAMED_GAMMAS,
    assert_same,
    client,
    cost_of,
    keras_outputs,
    mean_cost,
)


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


def test_text_is_looked_up_on_the_device(tmp_path):
    words = np.array([["a", "c", "b"], ["b", "b", "other"]])
    lookup = keras.layers.StringLookup(vocabulary=["a", "b", "c"])
    embedding = keras.layers.Embedding(4, 3)
    model = ct.Composer(
        [ct.Metalayer([keras.layers.Dense(3), keras.layers.Dense(3)])],
        stem=keras.Sequential(
            [
                keras.Input([3], dtype="string"),
                lookup,
                embedding,
                keras.layers.Flatten(),
            ]
        ),
        preferences=[ct.GlimpsePreference(ct.Uniform(-1.0, 1.0))],
    )
    wanted = model(tf.constant(words), gamma=1.0)
    model.compile()
    model.export(tmp_path / "m.tflite", format="tflite")
    composer = client.Composer(str(tmp_path / "m.tflite"))
    outputs = composer.predict(words, gamma=1.0)
    np.testing.assert_allclose(outputs["logits"], wanted, atol=1e-5)
    np.save(tmp_path / "numbers.npy", np.zeros([2, 3]))
    file = str(tmp_path / "m.tflite")
    assert "give --images" in refusal(file)
    numbers = str(tmp_path / "numbers.npy")
    assert "must be string" in refusal(file, f"--images={numbers}")


def test_an_input_may_have_a_size_that_is_not_fixed(tmp_path):
    def pooled():
        dense = keras.layers.Dense(3)
        return keras.Sequential([dense, keras.layers.GlobalMaxPooling1D()])

    tokens = keras.Input([None], dtype="int32")
    model = ct.Composer(
        [ct.Metalayer([pooled(), pooled()])],
        stem=keras.Sequential([tokens, keras.layers.Embedding(9, 3)]),
    )
    model.build((None, None))
    model.compile()
    path = str(tmp_path / "m.tflite")
    model.export(path, format="tflite")
    composer = client.Composer(path)
    for length in (4, 7):
        x = np.random.default_rng(0).integers(0, 9, [3, length])
        outputs = composer.predict(x.astype(np.int32))
        wanted = model(tf.constant(x, tf.int32))
        np.testing.assert_allclose(outputs["logits"], wanted, atol=1e-5)
    with pytest.raises(client.BadInputError, match=r"\[N, None\], got \[3\]"):
        composer.predict(x[:, 0])
    assert "a size is not fixed: give --images" in refusal(path)
