"""Edits of LiteRT files that the converter does not offer."""

from typing import Any

import numpy as np
from tensorflow.lite.python import convert
from tensorflow.lite.python import schema_py_generated as schema
from tensorflow.lite.tools import flatbuffer_utils

from composer_tf.policy import STEERING


def with_constant_input(content: bytes, name: str, value: int) -> bytes:
    """Replaces an int32 input by a constant, filled with one value.

    Args:
        content: Content of a LiteRT file.
        name: Name of the input, in every signature that has it.
        value: Value of the constant.
    """
    model = read(content)
    for entry in model.signatureDefs:
        graph = model.subgraphs[entry.subgraphIndex]
        for item in list(entry.inputs):
            if item.name != name.encode():
                continue
            tensor = graph.tensors[item.tensorIndex]
            constant = np.full(np.prod(tensor.shape), value, np.int32)
            tensor.buffer = add_buffer(model, constant)
            graph.inputs = [i for i in graph.inputs if i != item.tensorIndex]
            entry.inputs.remove(item)
    return write(model)


def with_signature_first(content: bytes, name: str) -> bytes:
    """Makes one signature the first, of the first subgraph.

    That is what APIs that know no signatures run; the converter sorts them by
    name. No operator refers to a signature's subgraph, so two can change
    places.
    """
    model = read(content)
    entries = model.signatureDefs
    first = next(e for e in entries if e.signatureKey == name.encode())
    head = next(e for e in entries if e.subgraphIndex == 0)
    graphs, place = model.subgraphs, first.subgraphIndex
    graphs[0], graphs[place] = graphs[place], graphs[0]
    head.subgraphIndex, first.subgraphIndex = place, 0
    entries.sort(key=lambda entry: entry is not first)
    return write(model)


def with_float16_weights(content: bytes) -> bytes:
    """Stores the weights of all modules in half the space, as float16.

    Weights of what steers stay float32: they are few, and a choice must not
    depend on the last bits of a weight.
    """
    model = read(content)
    dequantize = add_operator(
        model,
        schema.BuiltinOperator.DEQUANTIZE,
        version=3,  # The first that takes float16.
    )
    halved: dict[int, int] = {}  # From a buffer to its float16 buffer.
    for graph in model.subgraphs:
        weights = {
            i
            for op in graph.operators
            if not _steers(model, graph, op)
            for i in op.inputs
            if i >= 0 and _is_weight(model, graph.tensors[i])
        }
        for i in sorted(weights):
            tensor = graph.tensors[i]
            if tensor.buffer not in halved:
                data = np.asarray(model.buffers[tensor.buffer].data, np.uint8)
                half = data.view(np.float32).astype(np.float16)
                halved[tensor.buffer] = add_buffer(model, half)
            stored = add_tensor(graph, tensor.name + b"/float16", tensor)
            graph.tensors[stored].type = schema.TensorType.FLOAT16
            graph.tensors[stored].buffer = halved[tensor.buffer]
            tensor.buffer = 0  # It is now computed.
            op: Any = schema.OperatorT()
            op.opcodeIndex = dequantize
            op.inputs, op.outputs = [stored], [i]
            graph.operators.insert(0, op)
    used = {t.buffer for graph in model.subgraphs for t in graph.tensors}
    for buffer in halved.keys() - used:  # Others may share their bytes.
        model.buffers[buffer].data = None
    return write(model)


def quantized(calibrated: bytes) -> bytes:
    """Quantizes a calibrated model to int8, except for what steers.

    Neither a choice nor gamma's effect may depend on 8 bits. The public
    converter cannot exclude nodes. A node without ranges stays float, unless
    its operator has a fixed range, such as softmax: so names are given too.
    """
    model = read(calibrated)
    names = []
    for graph in model.subgraphs:
        steering = [op for op in graph.operators if _steers(model, graph, op)]
        others = [op for op in graph.operators if op not in steering]
        names += [_name(graph, op) for op in steering]
        # Gamma too, which is an input and no operator's output.
        tensors = set(graph.inputs).difference(*(op.inputs for op in others))
        tensors.update(*(op.outputs for op in steering))
        for i in tensors:
            graph.tensors[i].quantization = None
    content: Any = convert.mlir_quantize(write(model), denylisted_nodes=names)
    return content


def read(content: bytes) -> Any:
    """The objects of a LiteRT file, to be edited."""
    model: Any = flatbuffer_utils.convert_bytearray_to_object(
        bytearray(content)
    )
    for graph in model.subgraphs:
        # There are none in a subgraph that only returns a constant.
        graph.operators = graph.operators or []
    return model


def write(model: Any) -> bytes:
    """The content of a file of such objects."""
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def add_tensor(graph: Any, name: bytes, like: Any) -> int:
    """Adds a computed tensor of the same shape and type; returns its index."""
    tensor: Any = schema.TensorT()
    tensor.name, tensor.buffer = name, 0
    tensor.shape, tensor.type = like.shape, like.type
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def add_buffer(model: Any, array: np.ndarray) -> int:
    """Adds the values of a constant; returns the index of their buffer."""
    buffer: Any = schema.BufferT()
    buffer.data = array.reshape(-1).view(np.uint8)
    model.buffers.append(buffer)
    return len(model.buffers) - 1


def drop_unused_operators(model: Any) -> None:
    """Leaves in the file's table each operator that is used, once."""
    codes: list[Any] = []
    places: dict[Any, int] = {}
    for graph in model.subgraphs:
        for op in graph.operators:
            code = model.operatorCodes[op.opcodeIndex]
            key = (code.builtinCode, code.customCode, code.version)
            if key not in places:
                places[key] = len(codes)
                codes.append(code)
            op.opcodeIndex = places[key]
    model.operatorCodes = codes


def add_operator(model: Any, builtin: int, version: int) -> int:
    """Adds a builtin operator to the file's table; returns its index there."""
    code: Any = schema.OperatorCodeT()
    code.builtinCode = builtin
    code.deprecatedBuiltinCode = min(builtin, 127)  # A placeholder above.
    code.version = version
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def _steers(model: Any, graph: Any, op: Any) -> bool:
    """Whether an operator steers, or computes an output without weights."""
    if len(op.outputs) == 0:  # It fills a lookup table.
        return False
    inputs = [graph.tensors[i] for i in op.inputs if i >= 0]
    if STEERING in _name(graph, op):
        return True
    has_weights = any(_is_weight(model, tensor) for tensor in inputs)
    return op.outputs[0] in graph.outputs and not has_weights


def _name(graph: Any, op: Any) -> str:
    return graph.tensors[op.outputs[0]].name.decode()


def _is_weight(model: Any, tensor: Any) -> bool:
    return (
        tensor.type == schema.TensorType.FLOAT32
        and tensor.shape is not None
        and len(tensor.shape) > 1
        and model.buffers[tensor.buffer].data is not None
    )
