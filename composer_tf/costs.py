"""beta: the cost of each module, in parameters or multiply-accumulates."""

import contextlib
import math
import numbers
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import keras
import numpy as np
import tensorflow as tf

CostUnit = Literal["parameters", "macs"]
UserCosts = Sequence[Sequence[float]]

# The profiler counts two operations per multiply-accumulate for these.
_CONTRACTIONS = {
    "BatchMatMulV2",
    "Conv2D",
    "Conv3D",
    "DepthwiseConv2dNative",
    "MatMul",
}
# These hide work in functions of their own, or have no rule at all.
_UNCOUNTABLE = {
    "Case",
    "Conv3DBackpropInputV2",
    "CudnnRNN",
    "CudnnRNNV2",
    "CudnnRNNV3",
    "EagerPyFunc",
    "If",
    "PartitionedCall",
    "PyFunc",
    "StatefulPartitionedCall",
    "StatelessCase",
    "StatelessIf",
    "StatelessWhile",
    "While",
    "XlaDotV2",
}


Shape = tuple[int | None, ...]


class CostTable(NamedTuple):
    """The cost of each part of a Composer, in one unit.

    Attributes:
        unit: `"parameters"`, `"macs"` or `"user"`.
        fixed: Cost of the stem and the fixed steps, which every path pays.
        controller: Cost of the controller, which every path pays.
        modules: n tuples, the costs of the m_i modules of each metalayer.
    """

    unit: str
    fixed: float
    controller: float
    modules: tuple[tuple[float, ...], ...]

    @property
    def full(self) -> float:
        """Cost of the dearest path: fixed, controller and dearest modules."""
        return self.fixed + self.controller + sum(map(max, self.modules))

    @property
    def overhead(self) -> float:
        """Stem, fixed steps and controller as a fraction of `full`."""
        return (self.fixed + self.controller) / self.full

    @property
    def dearest(self) -> tuple[int, ...]:
        """The most expensive path; the first of equally expensive modules."""
        return dearest_path(self.modules)

    @property
    def cheapest(self) -> tuple[int, ...]:
        """The least expensive path; the first of equally cheap modules."""
        return cheapest_path(self.modules)

    @property
    def fractions(self) -> tuple[tuple[float, ...], ...]:
        """Beta of equation (6): each module as a fraction of `full`."""
        return tuple(
            tuple(cost / self.full for cost in costs) for costs in self.modules
        )

    def of_paths(self, paths: Any) -> np.ndarray:
        """Cost of each path, a fraction of `full`, float64 `[N]`.

        Args:
            paths: Modules c_1, ..., c_n, integers `[N, n]`.

        Example:
            >>> table = CostTable("macs", 1.0, 1.0, ((2.0, 6.0), (0.0, 2.0)))
            >>> table.of_paths([(0, 0), (0, 1), (1, 1)])
            array([0.4, 0.6, 1. ])
        """
        chosen = [
            np.array(fractions)[modules]
            for fractions, modules in zip(
                self.fractions, np.array(paths).T, strict=True
            )
        ]
        return self.overhead + np.sum(chosen, axis=0)


def dearest_path(module_costs: Sequence[Sequence[float]]) -> tuple[int, ...]:
    """The dearest module of each metalayer; the first of equal ones.

    Example:
        >>> dearest_path([(0.1, 0.4, 0.4), (0.2, 0.1)])
        (1, 0)
    """
    return tuple(costs.index(max(costs)) for costs in map(list, module_costs))


def cheapest_path(module_costs: Sequence[Sequence[float]]) -> tuple[int, ...]:
    """The cheapest module of each metalayer; the first of equal ones."""
    return tuple(costs.index(min(costs)) for costs in map(list, module_costs))


def count_parameters(
    layer: keras.layers.Layer, *_: Shape | Mapping[str, Shape]
) -> float:
    """Number of weights of a built layer, trained or not."""
    return float(layer.count_params())


def count_macs(
    function: Callable[..., object], *input_shapes: Shape | Mapping[str, Shape]
) -> float:
    """Multiply-accumulates for one example, by TensorFlow's own profiler.

    Counts matrix products and convolutions; element-wise work is not a
    multiply-accumulate.

    Args:
        function: Built layer, or any function of tensors.
        *input_shapes: Shape of each float32 argument, or a mapping of shapes,
            with the batch axis; the other axes must be known.

    Returns:
        Multiply-accumulates of a batch of one.

    Raises:
        ValueError: If a shape is not known, or the function hides work from
            the profiler: a loop, as in recurrent layers without
            `unroll=True`, or a condition.

    Example:
        >>> layer = keras.layers.Dense(3)
        >>> layer.build((None, 5))
        >>> count_macs(layer, (None, 5))
        15.0
    """
    specs = [_spec(shape) for shape in input_shapes]
    if not all(s.shape.is_fully_defined() for s in tf.nest.flatten(specs)):
        raise ValueError(
            "Multiply-accumulates need known input shapes, got "
            f"{list(input_shapes)}; give costs as numbers, or in parameters."
        )
    with tf.init_scope(), _inlined_functions():
        traced = tf.function(function, autograph=False)
        graph = traced.get_concrete_function(*specs).graph
    hidden = {op.type for op in graph.get_operations()} & _UNCOUNTABLE
    if hidden:
        raise ValueError(
            f"{getattr(function, 'name', function)!r} has operations that "
            f"TensorFlow's profiler cannot count: {sorted(hidden)}. Give costs "
            "as numbers; recurrent layers can be counted with unroll=True."
        )
    options = (
        tf.compat.v1.profiler.ProfileOptionBuilder(
            tf.compat.v1.profiler.ProfileOptionBuilder.float_operation()
        )
        .with_empty_output()
        .build()
    )
    profile = tf.compat.v1.profiler.profile(graph, cmd="op", options=options)
    macs = sum(
        child.float_ops / 2.0
        for child in _descendants(profile)
        if child.name in _CONTRACTIONS
    )
    return macs + sum(
        _OWN_RULES[op.type](op)
        for op in graph.get_operations()
        if op.type in _OWN_RULES
    )


@contextlib.contextmanager
def _inlined_functions() -> Iterator[None]:
    """A scope in which a `tf.function` within another is traced in place.

    Keras has one around grouped convolutions, which the profiler cannot see
    into.
    """
    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)


COUNTERS: dict[str, Callable[..., float]] = {
    "parameters": count_parameters,
    "macs": count_macs,
}


def count(
    unit: str,
    fixed: Sequence[tuple[Any, Any]],
    routed: Sequence[tuple[Sequence[Any], Any]],
    controller: Any,
) -> CostTable:
    """Counts every part of a Composer.

    Args:
        unit: Unit to count in, a name in `COUNTERS`.
        fixed: Layers that every path runs, each with its input shape.
        routed: Modules of each metalayer, with their input shape.
        controller: Built `Controller`.

    Raises:
        ValueError: If a part cannot be counted in this unit.
    """
    counter = COUNTERS[unit]
    shapes = [shape for _, shape in routed]
    asked = controller.all_steps if unit == "macs" else controller
    return CostTable(
        unit,
        fixed=sum((counter(layer, shape) for layer, shape in fixed), 0.0),
        controller=counter(asked, *shapes),
        modules=tuple(
            tuple(counter(module, shape) for module in modules)
            for modules, shape in routed
        ),
    )


def check_user_costs(costs: UserCosts, num_modules: Sequence[int]) -> None:
    """Raises `ValueError` unless there is one number per module, all >= 0."""
    given = None
    if isinstance(costs, Sequence | np.ndarray):
        given = [len(row) if np.ndim(row) == 1 else 0 for row in costs]
    if given != list(num_modules):
        raise ValueError(
            f"`costs` must be one of {tuple(COUNTERS)}, or one number per "
            "module of each metalayer, "
            f"{list(num_modules)} of them, got {costs!r}."
        )
    flat = [cost for row in costs for cost in row]
    for cost in flat:
        if not (isinstance(cost, numbers.Real) and 0 <= cost < math.inf):
            raise ValueError(
                f"`costs` must be finite numbers, 0 or more, got {cost!r}."
            )
    if not any(flat):
        raise ValueError("`costs` must not all be 0.")


def _spec(shape: Shape | Mapping[str, Shape]) -> Any:
    if isinstance(shape, Mapping):
        return {name: _spec(s) for name, s in shape.items()}
    return tf.TensorSpec([1, *shape[1:]], tf.float32)


def _einsum_macs(op: tf.Operation) -> float:
    """The product of the sizes of all indices; the profiler has no rule."""
    operands = op.get_attr("equation").decode().split("->")[0].split(",")
    sizes: dict[str, float] = {}
    for labels, operand in zip(operands, op.inputs, strict=True):
        named = len(labels.replace("...", ""))
        # "..." stands for the remaining axes, broadcast from the right.
        left = operand.shape.rank - named
        rest = "".join(chr(0x100 + left - i) for i in range(left))
        indices = labels.replace("...", rest)
        for index, size in zip(indices, operand.shape, strict=True):
            sizes[index] = max(float(size or 0), sizes.get(index, 0.0))
    return math.prod(sizes.values()) if len(operands) > 1 else 0.0


def _transposed_convolution_macs(op: tf.Operation) -> float:
    """Each input cell meets the whole filter; the profiler assumes "same"."""
    kernel, gradient = op.inputs[1], op.inputs[2]
    cells = gradient.shape[1:3].num_elements() or 0
    return float(cells * (kernel.shape.num_elements() or 0))


_OWN_RULES: dict[str, Callable[[tf.Operation], float]] = {
    "Conv2DBackpropInput": _transposed_convolution_macs,
    "Einsum": _einsum_macs,
}


def _descendants(profile):
    """All nodes of the profiler's op view, which nests one child in another."""
    for child in profile.children:
        yield child
        yield from _descendants(child)
