"""The graph of a SavedModel: what it holds, and what of it runs."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

import composer_tf as ct
from tests.exporters.small_composer import composer

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


def test_weights_are_stored_once(model, tmp_path):
    """Those of the controller as constants of the graph."""
    path = tmp_path / "1"
    model.export(path)
    of_controller = model.controller.get_weights()
    stored = [
        shape
        for name, shape in tf.train.list_variables(
            str(path / "variables" / "variables")
        )
        if not name.startswith(("_CHECKPOINTABLE", "save_counter"))
    ]
    sizes = [np.prod(shape) for shape in stored]
    # What only training reads is not stored.
    rest = [*of_controller, *model.estimator.get_weights()]
    weights = sum(weight.size for weight in model.get_weights())
    assert sum(sizes) == weights - sum(weight.size for weight in rest)
    constants = [n.attr["value"].tensor for n in nodes(path) if n.op == "Const"]
    contents = [constant.tensor_content for constant in constants]
    weights = [w.tobytes() for w in of_controller if w.size > 16]
    assert weights  # Smaller ones may be stored in another form.
    for weight in weights:
        assert contents.count(weight) == weights.count(weight)


def test_signatures_share_one_graph(model, tmp_path):
    model.export(tmp_path / "1")
    convolutions = [n for n in nodes(tmp_path / "1") if n.op == "Conv2D"]
    # Six, for batches that agree and for batches that do not.
    assert len(convolutions) == 2 * 6


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
        stem=convolve(4, 3, activation="relu"),
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
