"""ONNX, for ONNX Runtime on any platform."""

import os
from typing import Any

import numpy as np

from composer_tf import validation
from composer_tf.exporters.description import describe
from composer_tf.exporters.exposure import STEER_BY, Gammas, SteerBy, expose
from composer_tf.exporters.routed_model import RoutedModel
from composer_tf.exporters.signatures import MAIN, signature
from composer_tf.exporters.tables import check_tables
from composer_tf.exporters.targets import prepare_target
from composer_tf.files import atomic_path, write_json

OPSET = 18


def export_onnx(
    model: RoutedModel,
    path: str | os.PathLike,
    fix: Gammas | None = None,
    default_gamma: Gammas | None = None,
    steer_by: SteerBy = "gamma",
    with_override: bool = False,
) -> dict[str, Any]:
    """Writes a file for a batch of any size, and its description beside it.

    All inputs must be fed; a NaN of `gamma` stands for its default. Each module
    runs on the rows that chose it; one that no row chose gets an empty batch,
    on which ONNX Runtime does no work.

    Args:
        model: Model to export.
        path: File to write. The description goes to `path` + `.json`.
        fix: Values of gammas to fix, so that they are no inputs, by name; or a
            number if there is only one gamma.
        default_gamma: Defaults to use in place of the model's, in the same
            form.
        steer_by: Input that steers, `"gamma"` (default), or `"budget"` for a
            calibrated model.
        with_override: Whether to add the input `override`, int32 `[batch, n]`:
            modules to take, -1 to ask the controller.

    Returns:
        Description of the artifact.

    Raises:
        ValueError: If an argument does not fit the model, the model is not
            calibrated for budgets or has lookup tables or other operators that
            ONNX lacks, or the path is a folder.
        ImportError: If tf2onnx is missing.
    """
    try:
        import onnx
        import tf2onnx  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "Format 'onnx' needs `pip install '.[export]'` in a clone."
        ) from error
    target = prepare_target(path, "onnx")
    validation.check_choice("steer_by", steer_by, STEER_BY)
    exposure = expose(model.gammas, fix, default_gamma, model.calibration)
    function = signature(
        model,
        exposure,
        "unguarded_scatter",
        steer_by=steer_by,
        with_override=with_override,
    )
    check_tables(model, {MAIN: function}, "ONNX")
    proto = _convert(function)
    try:
        onnx.checker.check_model(proto)
    except onnx.checker.ValidationError as error:
        cause = str(error).partition("\n")[0]
        raise ValueError(
            f"The model cannot be converted to ONNX: {cause}."
        ) from error
    with atomic_path(target) as partial:
        onnx.save(proto, partial)
    description = describe(
        model,
        exposure,
        "onnx",
        {MAIN: function},
        with_override,
        opset=OPSET,
        steer_by=steer_by,
    )
    write_json(description, target.with_name(target.name + ".json"))
    return description


def _convert(function: Any) -> Any:
    """The ONNX model of a signature."""
    import tf2onnx

    proto, _ = tf2onnx.convert.from_function(
        function,
        input_signature=function.input_signature,
        opset=OPSET,
        custom_op_handlers={
            "Erfc": (_convert_erfc, []),
            "Square": (_convert_square, []),
        },
    )
    if any(node.op_type == "LSTM" for node in proto.graph.node):
        raise ValueError(
            "The model has an LSTM, and that of ONNX Runtime ends the process "
            "on an empty batch, as of a module that no row chose: make it with "
            "`unroll=True`, or use a GRU."
        )
    return proto


def _convert_erfc(context: Any, node: Any, name: str, _: Any) -> None:
    """A handler of tf2onnx: erfc(x) = 1 - erf(x), as in the exact GELU."""
    from tf2onnx.utils import map_onnx_to_numpy_type

    dtype = context.get_dtype(node.input[0])
    shapes = [context.get_shape(node.output[0])]
    one = context.make_const(
        f"{name}_one", np.ones([], map_onnx_to_numpy_type(dtype))
    )
    context.remove_node(node.name)
    erf = context.make_node("Erf", node.input, shapes=shapes, dtypes=[dtype])
    context.make_node(
        "Sub",
        [one.output[0], erf.output[0]],
        name=name,
        outputs=node.output,
        shapes=shapes,
        dtypes=[dtype],
    )


def _convert_square(context: Any, node: Any, name: str, _: Any) -> None:
    """A handler of tf2onnx: x ** 2, not x * x.

    ONNX Runtime then fuses layer normalization. It would lose a cast of
    integers right before it, though, and refuse the file.
    """
    from tf2onnx.utils import map_onnx_to_numpy_type

    (x,) = node.input
    shapes, dtypes = node.output_shapes, node.output_dtypes
    source = context.get_node_by_output(x)
    while source is not None and source.type == "Sub":  # From its mean.
        source = context.get_node_by_output(source.input[0])
    is_cast = source is not None and source.type == "Cast"
    two = np.full([], 2, map_onnx_to_numpy_type(dtypes[0]))
    context.remove_node(node.name)
    other = x if is_cast else context.make_const(f"{name}_two", two).output[0]
    context.make_node(
        "Mul" if is_cast else "Pow",
        [x, other],
        name=name,
        outputs=node.output,
        shapes=shapes,
        dtypes=dtypes,
    )
