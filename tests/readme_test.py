"""The Python of the README and of docs/ runs, shorter and on less data.

All but the worker of Ray Train, which needs Ray and its cluster.
"""

import pathlib
import re

import keras
import numpy as np
import onnxruntime
import pytest
import tensorflow as tf

import composer_tf as ct

ROOT = pathlib.Path(__file__).parents[1]
TEXTS = [
    path.read_text()
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
]
BLOCKS = re.findall(r"```python\n(.*?)```", "\n".join(TEXTS), re.DOTALL)


def block_with(text):
    (block,) = [block for block in BLOCKS if text in block]
    return block


@pytest.mark.slow
def test_the_ten_lines_train_steer_and_save(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shorter = block_with("ct.datasets.load").replace("epochs=20", "epochs=2")
    scope = {}
    exec(shorter.replace("passes=10", "passes=1"), scope)
    assert len(scope["curve"]) == 17
    images = scope["images"]
    loaded = keras.models.load_model("composer.keras")
    np.testing.assert_array_equal(
        loaded(images, gamma=1.0), scope["model"](images, gamma=1.0)
    )

    exec(block_with("model.calibrate"), scope)
    model, test = scope["model"], scope["test"]
    spent = model.evaluate(test, budget=0.5, verbose=0, return_dict=True)
    assert spent["cost"] <= 0.54 or spent["cost"] == pytest.approx(
        model.calibration.costs[-1]
    )

    exec(block_with("answer.policy.choices"), scope)
    assert scope["answer"].cost.shape == (len(scope["images"]),)

    exec(block_with("ct.BudgetTracker"), scope)
    assert abs(scope["tracker"].balance) < 1000.0

    exec(block_with("ct.Sandwich"), scope)
    scope["model"].compile("adam", metrics=["accuracy"])
    scope["model"].fit(scope["train"].take(2), verbose=0)

    before = scope["large"].get_weights()
    exec(block_with("Both trained").replace("epochs=4", "epochs=1"), scope)
    for now, then in zip(scope["large"].get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)
    scope["small"].trainable = scope["large"].trainable = True
    scope["model"] = model

    exec(block_with("evaluation.evaluate_paths"), scope)
    assert len(scope["outcomes"].paths) == 2
    exec(block_with("path_network").replace("epochs=2", "epochs=1"), scope)
    assert scope["cascade"][-1].cost == pytest.approx(sum(scope["costs"]))
    exec(block_with("evaluation.Recorder"), scope)
    assert scope["heatmaps"].shape == (3, 20, 2)
    pictures = {path.name for path in tmp_path.glob("*.png")}
    assert pictures == {"tradeoff.png", "routing.png", "examples.png"}


@pytest.mark.slow
def test_a_model_of_several_replicas_trains(two_replicas):
    scope = {"keras": keras, "tf": tf, "ct": ct}
    block = block_with("ct.datasets.load")
    exec(block[block.index("small =") : block.index("train, test")], scope)
    # In this process TensorFlow bears one such strategy only.
    scope["two_replicas"] = two_replicas
    exec(
        block_with("strategy.scope()").replace(
            "tf.distribute.MirroredStrategy()", "two_replicas"
        ),
        scope,
    )
    images = np.zeros([16, 28, 56, 1], np.uint8)
    history = scope["model"].fit(images, np.arange(16), verbose=0).history
    assert np.isfinite(history["loss"]).all()


@pytest.mark.slow
def test_conv_modules_of_three_kinds_train_save_load_and_predict(tmp_path):
    scope = {}
    exec("import keras\nimport composer_tf as ct\n", scope)
    exec(block_with("SeparableConv2D"), scope)
    model = scope["photo_model"]
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, [32, 32, 32, 3]).astype("uint8")
    y = rng.integers(0, 10, 32)
    model.compile("adam", metrics=["accuracy"])
    model.fit(x, y, epochs=2, batch_size=16, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for gamma in (-2.0, np.linspace(-2.0, 6.0, 32)):
        predicted = loaded.predict(x, gamma=gamma, verbose=0)
        assert predicted.shape == (32, 10)
        np.testing.assert_allclose(
            predicted, model.predict(x, gamma=gamma, verbose=0), atol=1e-5
        )
    costs = model.cost_table.modules[0]
    assert costs[0] < costs[1] < costs[2]

    exec(block_with("probe=True"), scope)
    model = scope["model"]
    history = model.fit(x, y, verbose=0).history
    assert 0.0 <= history["accuracy"][0] <= 1.0
    assert model(x, return_composition=True).guesses[0].shape == (1, 32, 20)
    scope["train"] = tf.data.Dataset.from_tensor_slices((x, y)).batch(16)
    exec(block_with("layer.trainable = False"), scope)
    learning = model.controller.trainable_weights
    assert len(model.trainable_weights) == len(learning) > 0


def test_a_preference_of_ones_own_is_ten_lines():
    import composer_tf as ct

    scope = {"keras": keras, "ct": ct}
    exec(block_with("SwitchPreference"), scope)
    dense = keras.layers.Dense
    model = ct.Composer(
        [
            ct.Metalayer([dense(3), dense(3)]),
            ct.Metalayer([dense(3), dense(3)]),
        ],
        preferences=[scope["SwitchPreference"](ct.Uniform(0.0, 5.0))],
    )
    x = np.ones([4, 2], "float32")
    same, other = [[0, 0]] * 4, [[0, 1]] * 4
    costs = [
        model.preferences.cost(
            model(x, choices=np.array(c), return_composition=True).policy,
            scope["tf"].fill([4, 1], 2.0),
        )
        for c in (same, other)
    ]
    np.testing.assert_array_equal(costs, [[0.0] * 4, [-2.0] * 4])


def test_a_preference_may_name_its_prices():
    scope = {"ct": ct}
    exec(block_with("PowerPreference"), scope)
    dense = keras.layers.Dense
    preference = scope["PowerPreference"](ct.Uniform(0.0, 10.0))
    model = ct.Composer(
        [ct.Metalayer([dense(3), dense(3)])], preferences=[preference]
    )
    x = np.ones([2, 4], "float32")
    policy = model(x, choices=[[0], [1]], return_composition=True).policy
    costs = model.preferences.cost(policy, tf.fill([2, 1], 2.0))
    np.testing.assert_allclose(costs, [-0.2, -1.4], rtol=1e-6)
    # A fresh model charges the prices: it turns to the cheap one with gamma.
    low, high = (
        model(x, gamma=g, return_composition=True).policy.probabilities[0]
        for g in (0.0, 10.0)
    )
    assert np.all(high[:, 0] > low[:, 0])


def test_artifacts_run_as_shown(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dense = [keras.layers.Dense(3), keras.layers.Dense(3)]
    model = ct.Composer(
        [ct.Metalayer(dense)],
        stem=keras.layers.Flatten(),
        preferences=[ct.GlimpsePreference(ct.Uniform(-4.0, 6.0))],
    )
    model.build((None, 28, 56, 1))
    model.compile()
    model.export("runs/serving/1")
    model.export("runs/m.tflite", format="tflite")
    model.export("runs/m.onnx", format="onnx")
    scope = {}
    exec(block_with("get_signature_runner"), scope)
    wanted = model(
        scope["images"], gamma=scope["gamma"], return_composition=True
    )
    probabilities = tf.nn.softmax(wanted.outputs)
    np.testing.assert_allclose(
        scope["answers"]["probabilities"], probabilities, atol=1e-6
    )
    np.testing.assert_allclose(
        scope["one"]["probabilities"], probabilities[:1], atol=1e-6
    )
    assert scope["costs"][0].shape == (3,)


@pytest.mark.slow
def test_text_is_trained_and_exported_with_its_masks(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    tokens = rng.integers(1, 20_000, [12, 7]).astype("int32")
    tokens[:, 5:] = 0
    scope = {"keras": keras, "ct": ct}
    scope |= {"tokens": tokens, "labels": rng.integers(0, 2, 12)}
    exec(block_with("mask_zero=True"), scope)
    shorter, model = {"tokens": tokens[:, :5]}, scope["model"]
    for module in (0, 1):  # What is masked counts for nothing.
        np.testing.assert_allclose(
            model.along({"tokens": tokens}, [module]),
            model.along(shorter, [module]),
            atol=1e-6,
        )
    session = onnxruntime.InferenceSession("reader.onnx")
    gamma = np.linspace(-1.0, 1.0, 12, dtype=np.float32)
    (logits,) = session.run(["logits"], {"tokens": tokens, "gamma": gamma})
    np.testing.assert_allclose(
        logits, model({"tokens": tokens}, gamma=gamma), atol=1e-5
    )
