"""LiteRT files for Micro: of its operators, and of no others."""

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from tensorflow.lite.python import schema_py_generated as schema
from tensorflow.lite.tools import flatbuffer_utils

import composer_tf as ct

L = keras.layers


@pytest.mark.parametrize("support", [(-1.0, 1.0), (0.0, 1.0), (0.0, 6.0)])
def test_the_micro_interpreter_runs_any_support(tmp_path, support):
    """The converter turns some clips into operators of their own."""
    model = ct.Composer(
        [ct.Metalayer([L.Dense(3), L.Dense(3)])],
        preferences=[ct.GlimpsePreference(ct.Uniform(*support))],
    )
    model.build((None, 4))
    model.compile()
    path = tmp_path / "m.tflite"
    model.export(path, format="tflite", micro=True)
    file = flatbuffer_utils.read_model(str(path))
    listed = [code.builtinCode for code in file.operatorCodes]
    assert len(listed) == len({*listed})
    assert schema.BuiltinOperator.RELU_N1_TO_1 not in listed
    runtime = pytest.importorskip("tflite_micro").runtime
    micro = runtime.Interpreter.from_file(str(path), arena_size=50_000)
    litert = Interpreter(str(path))
    answer = litert.get_signature_runner("serving_default")
    details = litert.get_input_details()
    gamma_index = next(i for i, d in enumerate(details) if "gamma" in d["name"])
    inputs = np.float32([[1.0, -2.0, 3.0, 0.5]])
    for gamma in (-9.0, *support, 9.0, np.nan):
        micro.set_input(inputs, 1 - gamma_index)
        micro.set_input(np.float32([gamma]), gamma_index)
        micro.invoke()
        wanted = answer(image=inputs, gamma=np.float32([gamma]))
        policy = wanted["module_probabilities"]
        outputs = [micro.get_output(i) for i in range(len(wanted))]
        assert any(
            o.shape == policy.shape and np.allclose(o, policy, atol=1e-6)
            for o in outputs
        ), gamma
        clipped = np.clip(gamma, *support) if gamma == gamma else None
        truth = model(
            inputs, gamma=clipped, training=False, return_composition=True
        ).policy.probabilities[0]
        np.testing.assert_allclose(policy[:, 0], truth, atol=1e-6)


def test_layers_that_micro_lacks_are_named(tmp_path):
    modules = [L.Dense(3), L.Dense(3, activation="gelu")]
    model = ct.Composer(
        [ct.Metalayer(modules)],
        preferences=[ct.GlimpsePreference(ct.Uniform(-1.0, 1.0))],
    )
    model.build((None, 4))
    model.compile()
    path = tmp_path / "m.tflite"
    with pytest.raises(ValueError, match="Micro lacks GELU, which layers"):
        model.export(path, format="tflite", micro=True)
    assert not path.exists()
    model.export(path, format="tflite")
