"""LiteRT files: the contract, in LiteRT and in the Micro interpreter."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from tensorflow.lite.python import schema_py_generated as schema
from tensorflow.lite.python.convert_phase import ConverterError
from tensorflow.lite.tools import flatbuffer_utils

import composer_tf as ct
from tests.exporters.small_composer import (
    assert_same,
    composer,
    examples,
    expected,
)

L = keras.layers

_OPERATORS = {
    value: name
    for name, value in vars(schema.BuiltinOperator).items()
    if not name.startswith("_")
}


@pytest.fixture(scope="module", name="model")
def _model():
    return composer()


@pytest.fixture(scope="module", name="folder")
def _folder(model, tmp_path_factory):
    """One file of each kind."""
    folder = tmp_path_factory.mktemp("tflite")
    images, _ = examples(120, seed=5)
    calibration = [{"image": image[None]} for image in images]
    kinds = {
        "none": {"batch_size": 6, "with_override": True},
        "float16": {"quantization": "float16"},
        "dynamic": {"quantization": "dynamic"},
        "int8": {
            "quantization": "int8",
            "calibration_data": calibration,
            "batch_size": 6,
        },
        "micro": {"micro": True},
        "micro_int8": {
            "micro": True,
            "quantization": "int8",
            "calibration_data": calibration,
        },
    }
    for name, options in kinds.items():
        model.export(folder / f"{name}.tflite", format="tflite", **options)
    return folder


def run(interpreter, signature="serving_default", **feed):
    """Row by row."""
    runner = interpreter.get_signature_runner(signature)
    rows = len(next(iter(feed.values())))
    outputs = [
        runner(**{k: v[i : i + 1] for k, v in feed.items()})
        for i in range(rows)
    ]
    return {k: np.concatenate([o[k] for o in outputs]) for k in outputs[0]}


def load(folder, kind):
    return Interpreter(str(folder / f"{kind}.tflite"))


def read(folder, kind):
    content = (folder / f"{kind}.tflite").read_bytes()
    return flatbuffer_utils.convert_bytearray_to_object(bytearray(content))


def operators(model, graph):
    return [
        _OPERATORS[model.operatorCodes[op.opcodeIndex].builtinCode]
        for op in graph.operators
    ]


ASK = np.full([12, 2], -1, np.int32)


def test_every_gamma_gives_what_the_model_gives(model, folder):
    images, gamma = examples(12)
    actual = run(load(folder, "none"), image=images, gamma=gamma, override=ASK)
    assert_same(actual, expected(model, images, gamma))


def test_all_forced_paths(model, folder):
    paths = np.array([[i, j] for i in range(3) for j in range(2)], np.int32)
    images, gamma = examples(len(paths))
    actual = run(
        load(folder, "none"), image=images, gamma=gamma, override=paths
    )
    assert_same(actual, expected(model, images, gamma, paths))


def test_a_static_batch_takes_a_gamma_per_row(model, folder):
    images, gamma = examples(6)
    runner = load(folder, "none").get_signature_runner("batch")
    all_but_one = np.int32([[0, 0]] * 5 + [[2, 1]])
    each = np.int32([[i % 3, i % 2] for i in range(6)])
    alike = [np.tile(np.int32([i, 1]), [6, 1]) for i in range(3)]
    for paths in (ASK[:6], *alike, all_but_one, each, alike[0]):
        actual = runner(image=images, gamma=gamma, override=paths)
        assert_same(actual, expected(model, images, gamma, paths))


def test_a_static_batch_of_int8_is_near(model, folder):
    images, gamma = examples(6)
    runner = load(folder, "int8").get_signature_runner("batch")
    actual = runner(image=images, gamma=gamma)
    wanted = expected(model, images, gamma)
    same = np.all(actual["choices"] == wanted["choices"], axis=1)
    assert same.sum() >= 4
    np.testing.assert_allclose(
        actual["probabilities"][same], wanted["probabilities"][same], atol=0.1
    )


def test_float16_is_near(model, folder):
    images, gamma = examples(12)
    actual = run(load(folder, "float16"), image=images, gamma=gamma)
    assert_same(actual, expected(model, images, gamma), atol=5e-3)


@pytest.mark.parametrize("kind", ["dynamic", "int8"])
def test_choices_and_gammas_effect_survive_quantization(model, folder, kind):
    images, gamma = examples(60)
    actual = run(load(folder, kind), image=images, gamma=gamma)
    wanted = expected(model, images, gamma)
    same = np.all(actual["choices"] == wanted["choices"], axis=1)
    assert same.mean() >= 0.95  # Many of them are near to ties.
    # What the controller sees of an image has 8 bits; gamma has all of its.
    error = actual["module_probabilities"] - wanted["module_probabilities"]
    assert np.abs(error[:, 0]).mean() < 0.03
    np.testing.assert_allclose(
        actual["probabilities"][same], wanted["probabilities"][same], atol=0.1
    )


def test_no_module_stays_float_in_int8(folder):
    model = read(folder, "int8")
    for graph in model.subgraphs:
        for op, name in zip(
            graph.operators, operators(model, graph), strict=True
        ):
            if "CONV_2D" in name:
                types = [graph.tensors[i].type for i in op.inputs[:2]]
                assert types == [schema.TensorType.INT8] * 2


def test_no_dense_or_recurrent_module_stays_float_in_int8(tmp_path):
    dense = [L.Flatten(), L.Dense(11, "relu"), L.Dense(7)]
    model = ct.Composer(
        [
            ct.Metalayer([L.GRU(7, unroll=True), keras.Sequential(dense)]),
            ct.Metalayer([L.Dense(5), L.Dense(5, "tanh")]),
        ],
        controller=ct.RNNController(units=13),
        preferences=[ct.GlimpsePreference(ct.Uniform(-1.0, 1.0))],
    )
    model.build((None, 4, 3))
    model.compile()
    rows = np.random.default_rng(0).normal(size=[30, 1, 4, 3])
    model.export(
        tmp_path / "m.tflite",
        format="tflite",
        quantization="int8",
        calibration_data=[{"image": row.astype(np.float32)} for row in rows],
    )
    types = {}
    read_model = read(tmp_path, "m")
    for graph in read_model.subgraphs:
        for op, name in zip(
            graph.operators, operators(read_model, graph), strict=True
        ):
            if name == "FULLY_CONNECTED":
                weights = graph.tensors[op.inputs[1]]
                types.setdefault(weights.shape[0], set()).add(weights.type)
    for units in (3 * 7, 11, 7, 5):
        assert types[units] == {schema.TensorType.INT8}
    assert types[3 * 13] == {schema.TensorType.FLOAT32}  # The controller's.


@pytest.mark.parametrize(
    "kind", ["none", "float16", "dynamic", "int8", "micro"]
)
def test_builtin_operators_only_and_modules_stand_inside_conditions(
    folder, kind
):
    model = read(folder, kind)
    graphs = {graph.name.decode(): graph for graph in model.subgraphs}
    names = [name for g in graphs.values() for name in operators(model, g)]
    assert "CUSTOM" not in names
    assert names.count("IF") >= 3  # Two to find one of three, one of two.
    # No module has its convolution where it would always run.
    for entry in model.signatureDefs:
        always = operators(model, model.subgraphs[entry.subgraphIndex])
        assert "IF" in always or entry.signatureKey == b"batch"
        assert not any("CONV_2D" in name for name in always)


def test_few_operators_part_what_a_delegate_runs_at_once(folder):
    model = read(folder, "micro")
    always = operators(model, model.subgraphs[0])
    # Of two gammas at once, and of the costs of both choices.
    assert always.count("NOT_EQUAL") == always.count("SELECT_V2") == 1
    assert always.count("GATHER") == 2  # And c_1, for the second metalayer.
    assert not {"SPLIT_V", "UNPACK"}.intersection(always)


def test_no_shape_is_found_out_at_run_time(folder):
    for graph in read(folder, "micro").subgraphs:
        for tensor in graph.tensors:
            signature = tensor.shapeSignature
            assert signature is None or -1 not in signature


def test_inputs_and_signatures_have_the_names_of_the_contract(folder):
    signatures = load(folder, "float16").get_signature_list()
    outputs = [
        "choices",
        "cost",
        "logits",
        "module_probabilities",
        "probabilities",
    ]
    assert signatures == {
        "serving_default": {"inputs": ["gamma", "image"], "outputs": outputs},
        "default_gamma": {"inputs": ["image"], "outputs": outputs},
    }
    assert list(load(folder, "micro").get_signature_list()) == [
        "serving_default"
    ]


def test_apis_that_know_no_signatures_run_the_main_one(model, folder):
    interpreter = Interpreter(str(folder / "none.tflite"))
    assert next(iter(interpreter.get_signature_list())) == "serving_default"
    interpreter.allocate_tensors()
    images, gamma = examples(1)
    override = np.full([1, 2], -1, np.int32)
    fed = {"image": images, "gamma": gamma, "override": override}
    for tensor in interpreter.get_input_details():
        name = tensor["name"].removeprefix("serving_default_").split(":")[0]
        interpreter.set_tensor(tensor["index"], fed.pop(name))
    assert not fed
    interpreter.invoke()
    actual = [
        interpreter.get_tensor(tensor["index"])
        for tensor in interpreter.get_output_details()
    ]
    wanted = expected(model, images, gamma)["probabilities"]
    assert any(
        output.shape == wanted.shape and np.allclose(output, wanted, atol=1e-5)
        for output in actual
    )


def test_without_gamma_the_default_is_taken(model, folder):
    images, _ = examples(5)
    wanted = expected(model, images, np.float32([[1.0, 0.0]]))
    actual = run(load(folder, "float16"), "default_gamma", image=images)
    assert_same(actual, wanted, atol=5e-3)


@pytest.mark.parametrize("kind", ["float16", "int8", "micro"])
def test_bad_gammas_are_replaced_as_everywhere(folder, kind):
    images, _ = examples(1)
    interpreter = load(folder, kind)

    def at(*gamma):
        return run(interpreter, image=images, gamma=np.float32([gamma]))

    pairs = {
        (np.nan, np.inf): (1.0, 0.0),  # The defaults.
        (-np.inf, 0.5): (1.0, 0.5),
        (99.0, -1.0): (6.0, 0.0),  # The nearest of the support.
    }
    for bad, good in pairs.items():
        np.testing.assert_array_equal(
            at(*bad)["module_probabilities"], at(*good)["module_probabilities"]
        )


@pytest.mark.parametrize(
    ("image", "gamma"), [((1, 8, 9, 1), (1, 2)), ((1, 8, 8, 1), (2,))]
)
def test_wrong_shapes_are_refused(folder, image, gamma):
    runner = load(folder, "float16").get_signature_runner("serving_default")
    with pytest.raises((ValueError, RuntimeError)):
        runner(
            image=np.zeros(image, np.float32), gamma=np.zeros(gamma, np.float32)
        )


def test_the_micro_interpreter_runs_it(model, folder):
    images, gamma = examples(12)
    # Kernels may round int8 differently by a step.
    for kind, atol in (("micro", 1e-5), ("micro_int8", 0.05)):
        litert = load(folder, kind)
        wanted = run(litert, image=images, gamma=gamma)
        details = litert.get_input_details()
        places = {
            name: next(i for i, d in enumerate(details) if name in d["name"])
            for name in ("image", "gamma")
        }
        runtime = pytest.importorskip("tflite_micro").runtime
        micro = runtime.Interpreter.from_file(
            str(folder / f"{kind}.tflite"), arena_size=100_000
        )
        for i in range(len(images)):
            micro.set_input(images[i : i + 1], places["image"])
            micro.set_input(gamma[i : i + 1], places["gamma"])
            micro.invoke()
            outputs = [micro.get_output(j) for j in range(5)]
            steered = ("choices", "cost", "module_probabilities")
            for name in wanted if kind == "micro" else steered:
                value = wanted[name][i : i + 1]
                assert any(
                    o.shape == value.shape and np.allclose(o, value, atol=atol)
                    for o in outputs
                ), name


def test_no_weight_is_stored_twice(tmp_path):
    dense = keras.layers.Dense
    model = ct.Composer(
        [ct.Metalayer([dense(256), dense(256)]), dense(256)],
        preferences=[ct.GlimpsePreference(ct.Uniform(0.0, 1.0))],
    )
    model.build((None, 512))
    model.compile()
    model.export(tmp_path / "m.tflite", format="tflite", batch_size=4)
    weights = 4 * model.count_params()
    assert (tmp_path / "m.tflite").stat().st_size < 1.05 * weights


def test_the_description_stands_beside_it(folder):
    facts = json.loads((folder / "int8.tflite.json").read_text())
    assert facts["format"] == "tflite"
    assert facts["quantization"] == "int8"
    assert [gamma["name"] for gamma in facts["gamma"]] == ["glimpse", "entropy"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quantization": "int4"}, "`quantization` must be one of"),
        ({"quantization": "int8"}, "needs `calibration_data`"),
        ({"batch_size": 0}, "`batch_size` must be at least 1, or None, got 0"),
        ({"micro": True, "batch_size": 4}, "`micro` allows no `batch_size`"),
        ({"micro": True, "quantization": "float16"}, "cannot load"),
    ],
)
def test_bad_options_leave_nothing_behind(model, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        model.export(tmp_path / "m.tflite", format="tflite", **options)
    assert not list(tmp_path.iterdir())


def test_a_loop_that_cannot_be_converted_says_what_helps(tmp_path):
    def export(unroll):
        recurrent = L.GRU(4, unroll=unroll)
        mean = keras.Sequential([L.GlobalAveragePooling1D(), L.Dense(4)])
        series = ct.Composer([ct.Metalayer([recurrent, mean]), L.Dense(3)])
        series.build((None, 5, 2))
        series.compile()
        series.export(tmp_path / "m.tflite", "tflite")

    with pytest.raises(ConverterError, match="`unroll=True`") as raised:
        export(unroll=False)
    assert "TensorListGetItem" in str(raised.value.__cause__)
    assert not list(tmp_path.iterdir())
    export(unroll=True)
    assert (tmp_path / "m.tflite").exists()


_ALONE = """
import sys
sys.modules["tensorflow"] = None
import numpy as np
from ai_edge_litert.interpreter import Interpreter
feed = np.load(sys.argv[2])
runner = Interpreter(sys.argv[1]).get_signature_runner("serving_default")
np.savez(sys.argv[3], **runner(image=feed["image"], gamma=feed["gamma"]))
"""


def test_it_runs_where_tensorflow_is_not(folder, tmp_path):
    images, gamma = examples(1)
    np.savez(tmp_path / "in.npz", image=images, gamma=gamma)
    path = folder / "int8.tflite"
    arguments = [path, tmp_path / "in.npz", tmp_path / "out.npz"]
    subprocess.run(
        [sys.executable, "-c", _ALONE, *map(str, arguments)], check=True
    )
    wanted = run(load(folder, "int8"), image=images, gamma=gamma)
    with np.load(tmp_path / "out.npz") as outputs:
        assert_same(dict(outputs), wanted)
