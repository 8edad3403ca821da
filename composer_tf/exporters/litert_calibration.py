"""Examples that give int8 the ranges of values in a LiteRT file."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from composer_tf.exporters.exposure import STEER_BY, Exposure
from composer_tf.exporters.routed_model import RoutedModel
from composer_tf.exporters.signatures import OVERRIDE
from composer_tf.policy import sample_paths

Example = Mapping[str, np.ndarray]

_LOOPS = ("While", "StatelessWhile")
_LIST = tf.variant.as_datatype_enum
_NUM_GAMMAS = 9  # To calibrate at, over the support of each.


def checked_examples(
    model: RoutedModel, quantization: str, data: Iterable[Example] | None
) -> list[Example]:
    """`calibration_data` as a list, empty if the quantization needs none.

    Raises:
        ValueError: If it is missing, empty or not needed, holds anything but
            mappings from each input's name to an array `[1, ...]` of finite
            numbers, or an input is text.
    """
    if data is None:
        if quantization == "int8":
            raise ValueError(
                "`quantization='int8'` needs `calibration_data`: a few hundred "
                "examples of the model's inputs."
            )
        return []
    if quantization != "int8":
        raise ValueError(
            "`calibration_data` is for `quantization='int8'`, got "
            f"{quantization!r}, which would ignore it."
        )
    for name, spec in model.inputs.items():
        if spec.dtype == tf.string:
            raise ValueError(
                "`quantization='int8'` cannot be calibrated on text, got input "
                f"{name!r} of type string: use 'dynamic' or 'float16'."
            )
    examples = list(data)
    if not examples:
        raise ValueError("`calibration_data` must not be empty.")
    shapes = {
        name: tf.TensorShape([1, *spec.shape[1:]])
        for name, spec in model.inputs.items()
    }
    for example in examples:
        _check_example(example, shapes)
    for name, spec in model.inputs.items():
        if spec.dtype.is_floating and not all(
            np.isfinite(example[name]).all() for example in examples
        ):
            raise ValueError(
                f"`calibration_data` must hold finite numbers, got NaN or "
                f"infinity in {name!r}, which would spoil all ranges."
            )
    return examples


def _check_example(example: Any, shapes: Mapping[str, tf.TensorShape]) -> None:
    got: Any = type(example).__name__
    if isinstance(example, Mapping):
        got = {name: np.shape(value) for name, value in example.items()}
        if got.keys() == shapes.keys() and all(
            shape.is_compatible_with(got[name])
            for name, shape in shapes.items()
        ):
            return
    wanted = {name: tuple(shape) for name, shape in shapes.items()}
    raise ValueError(
        "`calibration_data` must hold examples that map each input's name to "
        f"an array of one row, {wanted}, got {got}."
    )


def check_loops(signatures: Mapping[str, Any]) -> None:
    """Raises `ValueError` for loops on which TensorFlow's calibrator crashes.

    These hold lists of tensors, such as time steps; other loops run.

    Args:
        signatures: Functions by name.
    """
    for function in signatures.values():
        graph = function.get_concrete_function().graph.as_graph_def()
        nodes = [*graph.node]
        for inner in graph.library.function:
            nodes += inner.node_def
        if any(
            node.op in _LOOPS and _LIST in node.attr["T"].list.type
            for node in nodes
        ):
            raise ValueError(
                "`quantization='int8'` cannot calibrate loops over lists of "
                "tensors, as of recurrent layers: make them with "
                "`unroll=True`, or use 'dynamic' or 'float16'."
            )


def feeds(
    model: RoutedModel,
    exposure: Exposure,
    examples: Sequence[Example],
    signatures: Mapping[str, Any],
) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Every example, at gammas of the whole support and on forced paths.

    First come all paths, or a sample if there are many; in a batch, whose rows
    are examples that follow each other, then each module beside others. The
    rest is random, and -1 asks the controller, which computes its logits either
    way.

    Args:
        model: Model to calibrate.
        exposure: Exposure of its gammas.
        examples: One or more examples from `checked_examples`.
        signatures: Functions by name.

    Yields:
        Name of a signature, and its inputs.
    """
    random = np.random.default_rng(0)
    sizes = np.array([len(costs) for costs in model.module_costs])
    for key, function in signatures.items():
        specs = {spec.name: spec for spec in function.input_signature}
        rows = next(iter(specs.values())).shape[0]
        forced = _forced(sizes, rows)
        for i in range(max(len(examples), len(forced))):
            some = [examples[(i + row) % len(examples)] for row in range(rows)]
            if i < len(forced):
                paths = forced[i]
            else:
                unlike = rows if i % 2 else 1
                paths = random.integers(-1, sizes, [unlike, len(sizes)])
            feed = {
                name: np.concatenate([example[name] for example in some])
                for name in model.inputs
            }
            feed[OVERRIDE] = paths.astype(np.int32)
            for steer_by in specs.keys() & STEER_BY:
                shares = random.random(len(exposure.free))
                shares[i % len(shares)] = i % _NUM_GAMMAS / (_NUM_GAMMAS - 1)
                feed[steer_by] = exposure.at_share(shares, steer_by)
            yield (
                key,
                {
                    name: np.broadcast_to(feed[name], spec.shape).astype(
                        spec.dtype.as_numpy_dtype
                    )
                    for name, spec in specs.items()
                },
            )


def _forced(sizes: np.ndarray, rows: int) -> list[np.ndarray]:
    """Paths `[1, n]`, or `[rows, n]` that differ, through every module."""
    alike = [np.array([path]) for path in sample_paths(sizes.tolist())]
    if rows == 1:
        return alike
    most = max(sizes, default=0)
    starts = range(0, most, rows)
    turns = [np.arange(start, start + rows) % most for start in starts]
    return [*alike, *(np.minimum(t[:, np.newaxis], sizes - 1) for t in turns)]
