"""SavedModels: the contract, in TensorFlow alone."""

import json
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import composer_tf as ct
from tests.exporters.small_composer import (
    assert_same,
    composer,
    examples,
    expected,
)

L = keras.layers


@pytest.fixture(scope="module", name="model")
def _model():
    return composer()


@pytest.fixture(scope="module", name="path")
def _path(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "1"
    model.export(path, with_override=True, warmup_requests=5)
    return path


@pytest.fixture(scope="module", name="signatures")
def _signatures(path):
    return tf.saved_model.load(str(path)).signatures


def run(signature, **feed):
    tensors = {k: tf.constant(v) for k, v in feed.items()}
    return {k: v.numpy() for k, v in signature(**tensors).items()}


@pytest.mark.parametrize("rows", [1, 7])
def test_every_row_has_its_own_gamma(model, signatures, rows):
    images, gamma = examples(rows)
    actual = run(signatures["serving_default"], image=images, gamma=gamma)
    assert_same(actual, expected(model, images, gamma))
    assert actual["choices"].dtype == np.int32


def test_the_examples_take_different_paths(model):
    images, gamma = examples(40)
    choices = expected(model, images, gamma)["choices"]
    assert len(np.unique(choices, axis=0)) >= 3


def test_all_forced_paths(model, signatures):
    paths = np.array([[i, j] for i in range(3) for j in range(2)], np.int32)
    images, gamma = examples(len(paths))
    actual = run(
        signatures["forced"], image=images, gamma=gamma, override=paths
    )
    np.testing.assert_array_equal(actual["choices"], paths)
    assert_same(actual, expected(model, images, gamma, paths))


def test_without_gamma_the_default_is_taken(model, signatures):
    images, _ = examples(4)
    wanted = expected(model, images, np.array([[1.0, 0.0]], np.float32))
    actual = run(signatures["default_gamma"], image=images)
    assert_same(actual, wanted)


def test_one_gamma_is_for_all_rows(model, signatures):
    images, _ = examples(4)
    gamma = np.array([[6.0, 0.5]], np.float32)
    assert_same(
        run(signatures["serving_default"], image=images, gamma=gamma),
        expected(model, images, np.repeat(gamma, 4, axis=0)),
    )


def test_a_bad_gamma_takes_the_artifacts_own_default(model, tmp_path):
    model.export(tmp_path / "1", default_gamma={"glimpse": 5.0})
    signatures = tf.saved_model.load(str(tmp_path / "1")).signatures
    images, gamma = examples(3)
    bad = np.where([[False], [True], [False]], np.nan, gamma).astype("float32")
    gamma[1] = [5.0, 0.0]
    assert_same(
        run(signatures["serving_default"], image=images, gamma=bad),
        expected(model, images, gamma),
    )


def test_a_bad_gamma_costs_its_own_row_only(model, signatures):
    images, gamma = examples(5)
    bad = gamma.copy()
    bad[1] = [np.nan, np.inf]
    bad[3] = [1e9, -5.0]
    gamma[1] = [1.0, 0.0]  # The defaults.
    gamma[3] = [6.0, 0.0]  # The ends of the supports.
    assert_same(
        run(signatures["serving_default"], image=images, gamma=bad),
        expected(model, images, gamma),
    )


def test_an_empty_batch_is_answered(signatures):
    images, gamma = examples(0)
    outputs = run(signatures["serving_default"], image=images, gamma=gamma)
    assert outputs["logits"].shape == (0, 5)
    assert outputs["choices"].shape == (0, 2)


def test_an_empty_batch_of_any_size_is_answered(tmp_path):
    model = ct.Composer(
        stem=L.Conv2D(4, 5),  # Larger than a row of size 1.
        metalayers=[
            ct.Metalayer(
                [
                    keras.Sequential([layer, L.GlobalAveragePooling2D()])
                    for layer in (L.Conv2D(4, 3), L.SeparableConv2D(4, 3))
                ]
            ),
            L.Dense(5),
        ],
        preferences=[ct.GlimpsePreference(ct.Uniform(-1.0, 1.0))],
    )
    model.build((None, None, None, 1))
    model.compile()
    model.export(tmp_path / "1")
    served = tf.saved_model.load(str(tmp_path / "1")).signatures
    image, gamma = np.zeros([0, 20, 20, 1], np.float32), np.zeros([0], "f")
    outputs = run(served["serving_default"], image=image, gamma=gamma)
    assert outputs["logits"].shape == (0, 5)
    with pytest.raises(tf.errors.InvalidArgumentError):
        run(served["serving_default"], image=image, gamma=np.zeros([3], "f"))


def test_an_empty_batch_is_answered_whatever_the_layers(tmp_path):
    shared = keras.Sequential(
        [L.Conv2D(4, 3, padding="same"), L.BatchNormalization(), L.ReLU()]
    )
    model = ct.Composer(
        stem=shared,
        metalayers=[
            L.Conv2D(8, 3, padding="same"),
            ct.Metalayer([L.Conv2D(4, 3), L.SeparableConv2D(4, 3)]),
            ct.Metalayer([L.Conv2D(4, 3, padding="same")]),  # No choice.
            L.Conv2D(2, 1),
            L.Reshape([-1, 2]),
            L.LSTM(5),
        ],
        preferences=[ct.GlimpsePreference(ct.Uniform(-1.0, 1.0))],
    )
    model.build((None, 8, 8, 1))
    model.compile()
    model.export(tmp_path / "1", with_override=True)
    image, gamma = tf.zeros([0, 8, 8, 1]), tf.zeros([0])
    override = tf.zeros([0, 2], tf.int32)

    signatures = tf.saved_model.load(str(tmp_path / "1")).signatures
    for name, steering in (
        ("serving_default", {"gamma": gamma}),
        ("default_gamma", {}),
        ("forced", {"gamma": gamma, "override": override}),
    ):
        outputs = run(signatures[name], image=image, **steering)
        assert outputs["logits"].shape == (0, 5), name
        assert outputs["choices"].shape == (0, 2), name
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        loaded = tf.compat.v1.saved_model.load(
            session, ["serve"], str(tmp_path / "1")
        )
        served = loaded.signature_def["serving_default"]
        (outputs,) = session.run(
            [served.outputs["logits"].name],
            {
                served.inputs["image"].name: image.numpy(),
                served.inputs["gamma"].name: gamma.numpy(),
            },
        )
    assert outputs.shape == (0, 5)


@pytest.mark.parametrize(
    ("image", "gamma"), [((3, 8, 9, 1), (3, 2)), ((3, 8, 8, 1), (2, 2))]
)
def test_wrong_shapes_are_refused(signatures, image, gamma):
    with pytest.raises((ValueError, TypeError, tf.errors.InvalidArgumentError)):
        run(
            signatures["serving_default"],
            image=np.zeros(image, np.float32),
            gamma=np.zeros(gamma, np.float32),
        )


def test_a_model_of_replicas_is_exported(two_replicas, tmp_path):
    with two_replicas.scope():
        model = composer()
        model.export(tmp_path / "inside")
    model.export(tmp_path / "outside")
    images, gamma = examples(7)
    wanted = expected(model, images, gamma)
    for name in ("inside", "outside"):
        signatures = tf.saved_model.load(str(tmp_path / name)).signatures
        actual = run(signatures["serving_default"], image=images, gamma=gamma)
        assert_same(actual, wanted)


def test_an_export_has_the_weights_of_its_time(tmp_path):
    model = composer()
    images, gamma = examples(7)
    model.export(tmp_path / "1")
    before = expected(model, images, gamma)
    model.controller.set_weights(
        [weight + 0.3 for weight in model.controller.get_weights()]
    )
    model.export(tmp_path / "2")
    after = expected(model, images, gamma)
    assert np.any(
        before["module_probabilities"] != after["module_probabilities"]
    )
    for version, wanted in (("1", before), ("2", after)):
        loaded = tf.saved_model.load(str(tmp_path / version))
        signature = loaded.signatures["serving_default"]
        assert_same(run(signature, image=images, gamma=gamma), wanted)


def test_the_description_says_what_a_client_must_know(model, path):
    facts = json.loads((path / "assets.extra" / "composer.json").read_text())
    assert facts["inputs"] == {
        "image": {"shape": [8, 8, 1], "dtype": "float32"}
    }
    assert [g["name"] for g in facts["gamma"]] == ["glimpse", "entropy"]
    assert facts["gamma"][0] == {
        "name": "glimpse",
        "low": -2.0,
        "high": 6.0,
        "default": 1.0,
        "sweep": np.linspace(-2.0, 6.0, 9).tolist(),
    }
    assert facts["signatures"] == {
        "serving_default": ["image", "gamma"],
        "default_gamma": ["image"],
        "forced": ["image", "override", "gamma"],
    }
    outputs = ["choices", "cost", "logits", "module_probabilities"]
    assert facts["outputs"] == [*outputs, "probabilities"]
    assert np.allclose(facts["module_costs"][0], model.cost_table.fractions[0])
    most = facts["overhead"] + sum(map(max, facts["module_costs"]))
    assert most == pytest.approx(1.0)


_ALONE = """
import sys
sys.modules.update(dict.fromkeys(["composer_tf", "keras", "tf_keras"]))
import numpy as np, tensorflow as tf
feed = np.load(sys.argv[2])
signature = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
outputs = signature(image=tf.constant(feed["image"]),
                    gamma=tf.constant(feed["gamma"]))
np.savez(sys.argv[3], **{k: v.numpy() for k, v in outputs.items()})
"""


def test_it_runs_where_neither_composer_tf_nor_keras_is(model, path, tmp_path):
    images, gamma = examples(6)
    np.savez(tmp_path / "in.npz", image=images, gamma=gamma)
    arguments = [path, tmp_path / "in.npz", tmp_path / "out.npz"]
    subprocess.run(
        [sys.executable, "-c", _ALONE, *map(str, arguments)], check=True
    )
    with np.load(tmp_path / "out.npz") as outputs:
        assert_same(dict(outputs), expected(model, images, gamma))


def test_saved_model_cli_shows_and_runs_it(model, path, tmp_path):
    cli = pathlib.Path(sys.executable).with_name("saved_model_cli")
    shown = subprocess.run(
        [cli, "show", "--dir", path, "--all"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for part in ("serving_default", "default_gamma", "inputs['gamma']"):
        assert part in shown
    images, gamma = examples(2)
    two = tmp_path / "two.npz"
    np.savez(two, image=images, gamma=gamma)

    names = ("choices", "probabilities", "cost")

    def ran(inputs):
        command = [
            *(cli, "run", "--dir", path, "--tag_set", "serve"),
            *("--signature_def", "serving_default", "--outdir", tmp_path),
            *("--inputs", inputs, "--overwrite"),
        ]
        subprocess.run(command, check=True, capture_output=True)
        return {name: np.load(tmp_path / f"{name}.npy") for name in names}

    for inputs, gammas in (
        (f"image={two}[image];gamma={two}[gamma]", gamma),
        (f"image={two}[image]", None),  # It honours the default of gamma.
    ):
        wanted = expected(model, images, gammas)
        assert_same(ran(inputs), {name: wanted[name] for name in names})


def test_a_fixed_gamma_is_no_input(model, tmp_path):
    model.export(tmp_path / "1", fix={"entropy": 0.25})
    signatures = tf.saved_model.load(str(tmp_path / "1")).signatures
    images, gamma = examples(6)
    gamma[:, 1] = 0.25
    actual = run(signatures["serving_default"], image=images, gamma=gamma[:, 0])
    assert_same(actual, expected(model, images, gamma))


def test_an_export_replaces_the_old_one_whole(model, tmp_path):
    path = tmp_path / "1"
    model.export(path)
    (path / "left_over").touch()
    model.export(path, default_gamma={"glimpse": 6.0})
    assert not (path / "left_over").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["1"]
    facts = json.loads((path / "assets.extra" / "composer.json").read_text())
    assert facts["gamma"][0]["default"] == 6.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fix": {"speed": 1.0}}, "`fix` must name.*'speed'"),
        ({"fix": {"glimpse": 9.0}}, r"support \[-2, 6\], got 9"),
        ({"default_gamma": {"glimpse": np.nan}}, "got nan"),
        ({"warmup_requests": 1001}, "from 0 to 1000"),
    ],
)
def test_bad_options_leave_nothing_behind(model, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        model.export(tmp_path / "1", **options)
    assert not list(tmp_path.iterdir())


def test_unbuilt_models_and_unknown_formats_are_refused(model, tmp_path):
    unbuilt = ct.Composer([ct.Metalayer([keras.layers.Dense(3)])])
    with pytest.raises(ValueError, match="no weights yet"):
        unbuilt.export(tmp_path / "1")
    with pytest.raises(ValueError, match=r"`format`.*'tflite'.*got 'coreml'"):
        model.export(tmp_path / "1", format="coreml")
