"""ONNX files: the contract, in ONNX Runtime."""

import json
import subprocess
import sys

import keras
import numpy as np
import onnx
import onnxruntime
import pytest

import composer_tf as ct
from tests.exporters.small_composer import (
    assert_same,
    composer,
    examples,
    expected,
)


@pytest.fixture(scope="module", name="model")
def _model():
    return composer()


@pytest.fixture(scope="module", name="path")
def _path(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "m.onnx"
    model.export(path, format="onnx")
    return path


@pytest.fixture(scope="module", name="session")
def _session(path):
    return open_session(path)


def open_session(path):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options)


def run(session, **feed):
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, feed), strict=True))


@pytest.mark.parametrize("rows", [1, 7, 40])
def test_every_row_has_its_own_gamma_in_a_batch_of_any_size(
    model, session, rows
):
    images, gamma = examples(rows)
    actual = run(session, image=images, gamma=gamma)
    assert_same(actual, expected(model, images, gamma))
    assert actual["choices"].dtype == np.int32


def test_all_forced_paths(model, tmp_path):
    model.export(tmp_path / "m.onnx", format="onnx", with_override=True)
    session = open_session(tmp_path / "m.onnx")
    paths = np.array([[i, j] for i in range(3) for j in range(2)], np.int32)
    images, gamma = examples(len(paths))
    actual = run(session, image=images, gamma=gamma, override=paths)
    assert_same(actual, expected(model, images, gamma, paths))
    for path in paths:  # All rows on one path; all other modules get none.
        same = np.tile(path, [len(paths), 1])
        actual = run(session, image=images, gamma=gamma, override=same)
        assert_same(actual, expected(model, images, gamma, same))


def test_gamma_is_an_input_that_every_language_can_feed(model, session):
    # Java, JavaScript and others feed inputs only, not what has a default.
    assert [i.name for i in session.get_inputs()] == ["image", "gamma"]
    assert not session.get_overridable_initializers()
    images, _ = examples(4)
    wanted = expected(model, images, np.float32([[1.0, 0.0]]))
    default = np.full([1, 2], np.nan, np.float32)
    assert_same(run(session, image=images, gamma=default), wanted)


def test_a_bad_gamma_costs_its_own_row_only(model, session):
    images, gamma = examples(5)
    bad = gamma.copy()
    bad[1], gamma[1] = [np.nan, np.inf], [1.0, 0.0]
    bad[3], gamma[3] = [1e9, -5.0], [6.0, 0.0]
    assert_same(
        run(session, image=images, gamma=bad), expected(model, images, gamma)
    )


def test_an_empty_batch_is_answered(session):
    images, gamma = examples(0)
    outputs = run(session, image=images, gamma=gamma)
    assert outputs["logits"].shape == (0, 5)


def test_one_gamma_is_for_all_rows(model, session):
    images, _ = examples(4)
    gamma = np.float32([[6.0, 0.5]])
    assert_same(
        run(session, image=images, gamma=gamma),
        expected(model, images, np.repeat(gamma, 4, axis=0)),
    )


@pytest.mark.parametrize(
    ("image", "gamma"),
    [
        ((3, 8, 9, 1), (3, 2)),
        ((3, 8, 8, 1), (2, 2)),
        ((1, 8, 8, 1), (0, 2)),
        ((1, 8, 8, 1), (2, 2)),
        ((0, 8, 8, 1), (2, 2)),
    ],
)
def test_wrong_shapes_are_refused(session, image, gamma):
    errors = (
        onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument,
        onnxruntime.capi.onnxruntime_pybind11_state.RuntimeException,
        onnxruntime.capi.onnxruntime_pybind11_state.Fail,
    )
    with pytest.raises(errors):
        run(
            session,
            image=np.zeros(image, np.float32),
            gamma=np.zeros(gamma, np.float32),
        )


def test_a_fixed_gamma_is_no_input(model, tmp_path):
    fixed = {"entropy": 0.25}
    model.export(tmp_path / "m.onnx", format="onnx", fix=fixed)
    images, gamma = examples(6)
    gamma[:, 1] = 0.25
    actual = run(
        open_session(tmp_path / "m.onnx"), image=images, gamma=gamma[:, 0]
    )
    assert_same(actual, expected(model, images, gamma))
    facts = json.loads((tmp_path / "m.onnx.json").read_text())
    assert facts["fixed"] == fixed
    assert [gamma["name"] for gamma in facts["gamma"]] == ["glimpse"]


def test_a_model_without_preferences_has_no_gamma(tmp_path):
    model = composer(preferences=0)
    model.export(tmp_path / "m.onnx", format="onnx")
    images, _ = examples(3)
    actual = run(open_session(tmp_path / "m.onnx"), image=images)
    assert_same(actual, expected(model, images))


def test_modules_get_only_the_rows_that_chose_them(path):
    graph = onnx.load(path).graph
    maker = {name: node for node in graph.node for name in node.output}

    def comes_from_a_split(name):
        node = maker.get(name)
        if node is None:
            return False
        # A gather takes the rows whose numbers come from the split.
        source = 1 if node.op_type == "Gather" else 0
        return node.op_type == "Split" or any(
            map(comes_from_a_split, node.input[source : source + 1])
        )

    convolutions = [n for n in graph.node if n.op_type == "Conv"]
    assert len(convolutions) == 6
    assert all(comes_from_a_split(conv.input[0]) for conv in convolutions)


_ALONE = """
import sys
sys.modules["tensorflow"] = None
import numpy as np, onnxruntime
feed = np.load(sys.argv[2])
session = onnxruntime.InferenceSession(sys.argv[1])
names = [output.name for output in session.get_outputs()]
np.savez(sys.argv[3], **dict(zip(names, session.run(None, dict(feed)))))
"""


def test_the_runtime_fuses_the_normalization_of_the_controller(tmp_path):
    model, path = composer(), tmp_path / "m.onnx"
    weights = model.get_weights()  # Of those before training some vanish.
    model.set_weights([weight + 0.1 for weight in weights])
    model.export(path, format="onnx")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(path, options)
    nodes = onnx.load(tmp_path / "optimized.onnx").graph.node
    types = [node.op_type for node in nodes]
    assert types.count("LayerNormalization") == 2  # One of each metalayer.


def test_no_layout_is_changed_for_a_shape_or_after_a_merge(path):
    # ONNX Runtime keeps activations in blocks of channels: to tell their shape
    # it copies them, and only next to a convolution is a transposition free.
    nodes = onnx.load(path).graph.node
    makers = {name: node.op_type for node in nodes for name in node.output}

    def sources(kind):
        return {makers.get(n.input[0]) for n in nodes if n.op_type == kind}

    assert not sources("Shape") & {"Conv", "Mul", "Relu", "MaxPool"}
    assert "Concat" not in sources("Transpose")
    assert "TopK" not in makers.values()


def test_it_runs_where_tensorflow_is_not(model, path, tmp_path):
    images, gamma = examples(6)
    np.savez(tmp_path / "in.npz", image=images, gamma=gamma)
    arguments = [path, tmp_path / "in.npz", tmp_path / "out.npz"]
    subprocess.run(
        [sys.executable, "-c", _ALONE, *map(str, arguments)], check=True
    )
    with np.load(tmp_path / "out.npz") as outputs:
        assert_same(dict(outputs), expected(model, images, gamma))


def one_of(*modules):
    model = ct.Composer([ct.Metalayer(modules)])
    model.build((None, 5, 3))
    model.compile()
    return model


def test_an_lstm_that_would_end_the_process_is_refused(tmp_path):
    layers = keras.layers
    flat = keras.Sequential([layers.Flatten(), layers.Dense(4)])
    path = tmp_path / "m.onnx"
    with pytest.raises(ValueError, match=r"has an LSTM, .*`unroll=True`"):
        one_of(flat, layers.LSTM(4)).export(path, "onnx")
    assert not path.exists()
    model = one_of(flat, layers.LSTM(4, unroll=True), layers.GRU(4))
    model.export(path, "onnx", with_override=True)
    session = open_session(path)
    x = np.random.default_rng(0).normal(size=[6, 5, 3]).astype(np.float32)
    for module in range(3):  # The others get no row.
        choices = np.full([6, 1], module, np.int32)
        actual = run(session, image=x, override=choices)
        wanted = model.along(x, [module])
        np.testing.assert_allclose(actual["logits"], wanted, atol=1e-5)


def test_an_exact_gelu_is_converted(tmp_path):
    layers = keras.layers
    dense = [layers.Dense(4, a) for a in ("gelu", "linear")]
    model = one_of(*dense)
    model.export(tmp_path / "m.onnx", "onnx", with_override=True)
    x = np.random.default_rng(0).normal(size=[6, 5, 3]).astype(np.float32) * 3
    actual = run(
        open_session(tmp_path / "m.onnx"),
        image=x,
        override=np.zeros([6, 1], np.int32),
    )
    wanted = model.along(x, [0])
    np.testing.assert_allclose(actual["logits"], wanted, atol=1e-6)


def test_a_normalization_of_integers_is_not_fused(tmp_path):
    """ONNX Runtime would lose their cast, and not load the file."""
    modules = [keras.layers.Dense(2), keras.layers.Dense(2)]
    model = ct.Composer([ct.Metalayer(modules)])
    model.build((None, 4))
    model.compile()
    model.set_weights([weight + 0.1 for weight in model.get_weights()])
    path = tmp_path / "m.onnx"
    model.export(path, "onnx", input_dtypes="int32")
    x = np.arange(12, dtype=np.int32).reshape(3, 4)
    actual = run(open_session(path), image=x)
    np.testing.assert_allclose(actual["logits"], model(x), atol=1e-5)
