"""The graph of a SavedModel: what it holds, and what of it runs."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

import composer_tf as ct
from composer_tf.composer import exportable_model
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


def nodes(path):
    """All nodes of the only graph in a SavedModel, functions included."""
    stored = saved_model_pb2.SavedModel.FromString(
        (path / "saved_model.pb").read_bytes()
    )
    (graph,) = (m.graph_def for m in stored.meta_graphs)
    return [
        *graph.node,
        *(n for f in graph.library.function for n in f.node_def),
    ]


def stored_variables(path):
    """Numbers of elements of the variables of a SavedModel."""
    stored = tf.train.list_variables(str(path / "variables" / "variables"))
    return [
        np.prod(shape, dtype=int)
        for name, shape in stored
        if not name.startswith(("_CHECKPOINTABLE", "save_counter"))
    ]


def constants(path):
    """The constants of a SavedModel, as bytes."""
    return [
        node.attr["value"].tensor.tensor_content
        for node in nodes(path)
        if node.op == "Const"
    ]


def test_weights_are_stored_once(model, tmp_path):
    """What was trained as constants, moving averages as variables."""
    path = tmp_path / "1"
    model.export(path)
    left = [w for w in model.non_trainable_weights if "moving" in w.path]
    assert sorted(stored_variables(path)) == [w.shape[0] for w in left]
    # What only training reads is not stored.
    estimator = {id(weight) for weight in model.estimator.weights}
    # Smaller ones may be stored in another form.
    weights = [
        weight.numpy().tobytes()
        for weight in model.trainable_weights
        if id(weight) not in estimator and math.prod(weight.shape) > 16
    ]
    assert len(weights) > 10
    contents = constants(path)
    for weight in weights:
        assert contents.count(weight) == weights.count(weight)


def test_frozen_layers_are_constants_too(tmp_path):
    model = composer()
    for layer in (model.stem, *model.metalayers):
        layer.trainable = False
    model.export(tmp_path / "1")
    left = [w for w in model.non_trainable_weights if "moving" in w.path]
    assert len(stored_variables(tmp_path / "1")) == len(left)


def test_many_weights_are_variables_but_for_the_controller(
    model, tmp_path, monkeypatch
):
    model.export(tmp_path / "1")
    monkeypatch.setattr(exportable_model, "_MAX_CONSTANTS", 100)
    model.export(tmp_path / "2")
    of_controller = model.controller.get_weights()
    rest = [*of_controller, *model.estimator.get_weights()]
    weights = sum(weight.size for weight in model.get_weights())
    sizes = stored_variables(tmp_path / "2")
    assert sum(sizes) == weights - sum(weight.size for weight in rest)
    contents = constants(tmp_path / "2")
    large = [w.tobytes() for w in of_controller if w.size > 16]
    for weight in large:
        assert contents.count(weight) == large.count(weight)
    images, gamma = examples(7)
    for version in ("1", "2"):
        loaded = tf.saved_model.load(str(tmp_path / version))
        answer = loaded.signatures["serving_default"](
            image=tf.constant(images), gamma=tf.constant(gamma)
        )
        assert_same(answer, expected(model, images, gamma))


def test_signatures_share_one_graph(model, tmp_path):
    model.export(tmp_path / "1")
    convolutions = [n for n in nodes(tmp_path / "1") if n.op == "Conv2D"]
    # Batches that agree and batches that do not share a module's function.
    assert len(convolutions) == 6


class Counting(keras.layers.Layer):
    """Counts how often it runs, in the artifact too."""

    def build(self, shape):
        self.runs = self.add_weight(
            shape=(), initializer="zeros", trainable=False, name="runs"
        )

    def call(self, inputs):
        self.runs.assign_add(1.0)
        return inputs + 0.0 * self.runs


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_a_module_that_no_row_chose_does_not_run(tmp_path, policy):
    modules = [Counting(dtype=policy) for _ in range(3)]
    model = ct.Composer([ct.Metalayer(modules)])
    model.build((None, 4))
    model.compile()
    model.export(tmp_path / "1", with_override=True)
    loaded = tf.saved_model.load(str(tmp_path / "1"))
    counters = [v for v in loaded.v if v.shape == () and v.dtype == tf.float32]
    for choices in ([0, 2, 0, 2], [2, 2, 2, 2]):
        loaded.signatures["forced"](
            image=tf.ones([4, 4]), override=tf.constant(choices)[:, None]
        )
    runs = sorted(c.numpy() for c in counters)[-3:]
    assert sorted(runs) == [0.0, 1.0, 2.0]


def test_a_session_fuses_what_comes_before_a_choice(tmp_path):
    convolve = keras.layers.Conv2D
    model = ct.Composer(
        # Biases of 0 would be left out.
        stem=convolve(4, 3, activation="relu", bias_initializer="ones"),
        metalayers=[
            ct.Metalayer([convolve(4, 3), convolve(4, 3)]),
            keras.layers.Flatten(),
            keras.layers.Dense(3),
        ],
        preferences=[ct.GlimpsePreference(ct.Uniform(-1.0, 1.0))],
    )
    model.build((None, 8, 8, 1))
    model.compile()
    model.export(tmp_path / "1")
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        loaded = tf.compat.v1.saved_model.load(
            session, ["serve"], str(tmp_path / "1")
        )
        signature = loaded.signature_def["serving_default"]
        feed = {
            signature.inputs["image"].name: np.ones([2, 8, 8, 1]),
            signature.inputs["gamma"].name: np.zeros([2]),
        }
        metadata = tf.compat.v1.RunMetadata()
        session.run(
            signature.outputs["logits"].name,
            feed,
            tf.compat.v1.RunOptions(output_partition_graphs=True),
            metadata,
        )
    (graph,) = metadata.partition_graphs
    convolutions = [n for n in graph.node if "FusedConv2D" in n.op]
    assert any(b"Relu" in n.attr["fused_ops"].list.s for n in convolutions)
    in_the_stem = [n for n in graph.node if n.op == "Relu" and "conv" in n.name]
    assert not in_the_stem
