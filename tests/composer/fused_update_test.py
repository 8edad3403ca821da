"""XLA compiles the optimizer's update of models of many weights."""

import types

import keras
import numpy as np
import tensorflow as tf

from composer_tf.composer import policy_gradient_model
from tests.small_training import X, Y, compiled, state

layers = keras.layers


def fused_functions(model):
    """How many functions of a training step XLA must compile."""
    step = tf.function(lambda batch: model.train_step(batch))
    spec = tuple(tf.TensorSpec(array.shape, array.dtype) for array in (X, Y))
    library = step.get_concrete_function(spec).graph.as_graph_def().library
    return sum(f.attr["_XlaMustCompile"].b for f in library.function)


def test_updates_are_fused_where_weights_are_many_and_stay_what_they_are(
    monkeypatch,
):
    models = []
    for least, options, count in (
        (1_000_000, {}, 0),
        (0, {}, 1),
        (0, {"jit_compile": False}, 0),
    ):
        monkeypatch.setattr(policy_gradient_model, "_FUSED_FROM", least)
        model = compiled(
            keras.optimizers.AdamW(0.01, clipnorm=1.0, use_ema=True), **options
        )
        model.fit(X, Y, batch_size=16, epochs=3, shuffle=False, verbose=0)
        models.append(model)
        assert fused_functions(model) == count
    plain, *others = map(state, models)
    for other in others:
        for a, b in zip(plain, other, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_only_on_request_xla_compiles_the_whole_step(monkeypatch, tmp_path):
    """On a GPU Keras would do so of itself."""
    gpu = types.SimpleNamespace(device_type="GPU")
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda *_: [gpu])
    assert compiled(routing="dense", jit_compile=True).jit_compile
    model = compiled(routing="dense")
    assert not model.jit_compile
    model.fit(X, Y, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert not loaded.jit_compile
    monkeypatch.setattr(policy_gradient_model, "_FUSED_FROM", 0)
    assert fused_functions(loaded) == 1


def test_what_fusing_does_not_fit_is_left_alone(monkeypatch):
    monkeypatch.setattr(policy_gradient_model, "_FUSED_FROM", 0)
    embedded = compiled(
        "adam",
        stem=keras.Sequential([layers.Embedding(9, 4), layers.Flatten()]),
    )
    words = np.arange(64 * 5).reshape(64, 5) % 9
    embedded.fit(words, Y, verbose=0)  # Its gradient holds some rows only.
    scaled = compiled(
        keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam())
    )
    scaled.fit(X, Y, verbose=0)
    assert fused_functions(scaled) == 0
