"""What TensorFlow Lite Micro needs besides what LiteRT does."""

from typing import Any

import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

from composer_tf.exporters import litert_surgery as surgery

# Builtin operators of TensorFlow Lite Micro, October 2026.
_OPERATORS = frozenset(
    """
    ABS ADD ADD_N ARG_MAX ARG_MIN ASSIGN_VARIABLE AVERAGE_POOL_2D BATCH_MATMUL
    BATCH_TO_SPACE_ND BROADCAST_ARGS BROADCAST_TO CALL_ONCE CAST CEIL
    CONCATENATION CONV_2D COS CUMSUM DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE
    DIV DYNAMIC_UPDATE_SLICE ELU EMBEDDING_LOOKUP EQUAL EXP EXPAND_DIMS FILL
    FLOOR FLOOR_DIV FLOOR_MOD FULLY_CONNECTED GATHER GATHER_ND GREATER
    GREATER_EQUAL HARD_SWISH IF L2_NORMALIZATION L2_POOL_2D LEAKY_RELU LESS
    LESS_EQUAL LOG LOGICAL_AND LOGICAL_NOT LOGICAL_OR LOGISTIC LOG_SOFTMAX
    MAXIMUM MAX_POOL_2D MEAN MINIMUM MIRROR_PAD MUL NEG NOT_EQUAL PACK PAD PADV2
    PRELU QUANTIZE READ_VARIABLE REDUCE_ALL REDUCE_MAX REDUCE_MIN RELU RELU6
    RESHAPE RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR REVERSE_V2 ROUND RSQRT
    SELECT_V2 SHAPE SIN SLICE SOFTMAX SPACE_TO_BATCH_ND SPACE_TO_DEPTH SPLIT
    SPLIT_V SQRT SQUARE SQUARED_DIFFERENCE SQUEEZE STRIDED_SLICE SUB SUM SVDF
    TANH TRANSPOSE TRANSPOSE_CONV UNIDIRECTIONAL_SEQUENCE_LSTM UNPACK VAR_HANDLE
    WHILE ZEROS_LIKE
    """.split()  # noqa: SIM905
)
_NAMES = {
    number: name
    for name, number in vars(schema.BuiltinOperator).items()
    if isinstance(number, int)
}


def for_micro(content: bytes) -> bytes:
    """The same file, of operators that TensorFlow Lite Micro has.

    Args:
        content: Content of a LiteRT file.

    Raises:
        ValueError: If layers of the model need an operator that it lacks.
    """
    model = surgery.read(content)
    _replace_clips(model)
    used = {
        _NAMES[model.operatorCodes[op.opcodeIndex].builtinCode]
        for graph in model.subgraphs
        for op in graph.operators
    }
    lacking = sorted(used - _OPERATORS)
    if lacking:
        raise ValueError(
            f"TensorFlow Lite Micro lacks {', '.join(lacking)}, which layers "
            "of the model need: use others, or do their part before the model."
        )
    surgery.drop_unused_operators(model)  # Programs for Micro list the rest.
    return surgery.write(model)


def _replace_clips(model: Any) -> None:
    """Clips to [-1, 1] in two steps; gamma is, if that is its support."""
    clip = schema.BuiltinOperator.RELU_N1_TO_1
    for graph in model.subgraphs:
        for op in list(graph.operators):
            if model.operatorCodes[op.opcodeIndex].builtinCode != clip:
                continue
            output = graph.tensors[op.outputs[0]]
            if output.type != schema.TensorType.FLOAT32:
                continue
            between = surgery.add_tensor(graph, output.name + b"/low", output)
            low, high = (
                _add_constant(model, graph, output, value)
                for value in (-1.0, 1.0)
            )
            upper: Any = schema.OperatorT()
            upper.opcodeIndex = _code(model, "MINIMUM")
            upper.inputs, upper.outputs = [between, high], op.outputs
            graph.operators.insert(graph.operators.index(op) + 1, upper)
            op.opcodeIndex = _code(model, "MAXIMUM")
            op.inputs, op.outputs = [op.inputs[0], low], [between]


def _add_constant(model: Any, graph: Any, like: Any, value: float) -> int:
    name = like.name + f"/{value:g}".encode()
    index = surgery.add_tensor(graph, name, like)
    tensor = graph.tensors[index]
    tensor.shape = []
    tensor.buffer = surgery.add_buffer(model, np.array(value, np.float32))
    return index


def _code(model: Any, name: str) -> int:
    """Index of an operator in the file's table, where it is added."""
    return surgery.add_operator(
        model, getattr(schema.BuiltinOperator, name), version=1
    )
