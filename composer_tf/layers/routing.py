"""Ways to run the chosen module on each row: one set of weights, equal results.

Each strategy takes the modules of a metalayer, the activations and one choice
per row, and returns `a_i = f_{i, c_i}(a_{i-1})` of equation (4).

=================== ================================ ==========================
strategy            how                              for
=================== ================================ ==========================
dense               all modules, take the chosen     XLA, tiny modules, tests
partition           split the rows, each module on   training
                    its own if it has any, merge
serving             branch if all rows agree, else   servers
                    scatter
branch              a tree of conditions, row by row one example: devices
scatter             gather each module's rows, if    tests, `serving`
                    it has any, and put them back
static_scatter      the same, of LiteRT's operators; batches on devices
                    without copies if rows agree
unguarded_scatter   the same, without conditions     ONNX, where an empty batch
                                                     costs nothing
=================== ================================ ==========================
"""

import functools
from collections.abc import Callable, Sequence

import tensorflow as tf

from composer_tf.layers.modules import Module, run_module

Strategy = Callable[
    [Sequence[Module], tf.Tensor, tf.Tensor, tf.TensorShape, str], tf.Tensor
]


def dense(
    modules: Sequence[Module],
    inputs: tf.Tensor,
    choices: tf.Tensor,
    output_shape: tf.TensorShape,
    dtype: str,
) -> tf.Tensor:
    """Runs every module on every row and takes the chosen row.

    It compiles under XLA and is the reference that the others are tested
    against. A module that normalizes over the batch sees all rows, and one
    whose gradient is not finite on some row, such as x / |x| at 0, has no
    finite gradient even if that row did not choose it. On a batch of zero rows
    every module runs too, which TensorFlow's convolutions cannot.

    Args:
        modules: m callables that map `[R, ...]` to `[R, *output_shape]`.
        inputs: `[B, ...]`.
        choices: int32 `[B]`, in `[0, m)`.
        output_shape: Shape of one row of the output.
        dtype: Data type of the output.

    Returns:
        `[B, *output_shape]` of type `dtype`.
    """
    rows = tf.reshape(choices, [-1] + [1] * output_shape.rank)  # [B, 1, ...]
    chosen = run_module(modules[0], inputs, dtype)  # [B, ...]
    for index, module in enumerate(modules[1:], start=1):
        outputs = run_module(module, inputs, dtype)
        chosen = tf.where(rows == index, outputs, chosen)
    return chosen


def partition(
    modules: Sequence[Module],
    inputs: tf.Tensor,
    choices: tf.Tensor,
    output_shape: tf.TensorShape,
    dtype: str,
) -> tf.Tensor:
    """Runs each module on its own rows only; one without rows does not run.

    The condition around each module keeps it from running without rows, which
    some layers cannot handle. Not for XLA.

    Args:
        modules: m callables that map `[R, ...]` to `[R, *output_shape]`.
        inputs: `[B, ...]`.
        choices: int32 `[B]`, in `[0, m)`.
        output_shape: Shape of one row of the output, fully defined.
        dtype: Data type of the output.

    Returns:
        `[B, *output_shape]` of type `dtype`.
    """
    num_modules = len(modules)
    positions = tf.range(tf.shape(choices)[0])  # [B]
    positions = tf.dynamic_partition(positions, choices, num_modules)
    parts = tf.dynamic_partition(inputs, choices, num_modules)
    outputs = [
        _run_unless_empty(module, rows, output_shape, dtype)
        for module, rows in zip(modules, parts, strict=True)
    ]
    merged = tf.dynamic_stitch(positions, outputs)
    return tf.ensure_shape(merged, [inputs.shape[0], *output_shape])


def branch(
    modules: Sequence[Module],
    inputs: tf.Tensor,
    choices: tf.Tensor,
    output_shape: tf.TensorShape,
    dtype: str,
) -> tf.Tensor:
    """Runs the chosen module of each row, found by a tree of conditions.

    The tree is binary and balanced: log2(m) conditions lead to a module. A
    static batch of one needs no loop over rows. Not for XLA.

    Arguments and result are those of `partition`.
    """

    def run(row: tf.Tensor, choice: tf.Tensor) -> tf.Tensor:
        """Runs one row `[1, ...]` by a scalar choice."""
        return _search(modules, 0, row, choice, output_shape, dtype)

    if inputs.shape[0] == 1:
        return run(inputs, tf.reshape(choices, []))

    def run_row(elements: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        row, choice = elements
        return run(row[tf.newaxis], choice)[0]

    outputs = tf.map_fn(
        run_row,
        (inputs, choices),
        fn_output_signature=tf.TensorSpec(output_shape, dtype),
    )
    return tf.ensure_shape(outputs, [inputs.shape[0], *output_shape])


def serving(
    modules: Sequence[Module],
    inputs: tf.Tensor,
    choices: tf.Tensor,
    output_shape: tf.TensorShape,
    dtype: str,
) -> tf.Tensor:
    """Like `scatter`, but a batch that agrees on one module is not copied.

    With one gamma for all rows, many batches agree. The graph that runs holds
    each module twice, which is why training does not use it; what is stored
    holds it once, as a function.

    Arguments and result are those of `partition`.
    """
    if not tf.executing_eagerly():
        rows = tf.TensorSpec([None, *inputs.shape[1:]], inputs.dtype)
        modules = [
            tf.function(
                functools.partial(run_module, module, dtype=dtype),
                input_signature=[rows],
                autograph=False,
            )
            for module in modules
        ]
    highest = tf.reduce_max(choices)  # Below 0 without rows.
    agree = tf.reduce_all(choices == highest)
    # A session adds control edges to the tensors that a condition reads. On a
    # convolution they would prevent fusing it with its activation; the identity
    # takes them in its place, without a copy.
    inputs = tf.identity(inputs)

    def apart() -> tf.Tensor:
        return scatter(modules, inputs, choices, output_shape, dtype)

    # One condition with many branches: through nested ones, all variables of
    # modules would pass at each level.
    outputs = tf.switch_case(
        tf.where(agree, highest, len(modules)),
        [functools.partial(run_module, m, inputs, dtype) for m in modules],
        default=apart,
    )
    return tf.ensure_shape(outputs, [inputs.shape[0], *output_shape])


def scatter(
    modules: Sequence[Module],
    inputs: tf.Tensor,
    choices: tf.Tensor,
    output_shape: tf.TensorShape,
    dtype: str,
) -> tf.Tensor:
    """Like `partition`, by gathering, which TensorFlow does on all cores.

    The gradient of each gather is as large as the batch, which is why it is
    not the default in training.

    Arguments and result are those of `partition`.
    """
    order, vectors = _by_module(
        modules, inputs, choices, output_shape, dtype, _run_unless_empty
    )
    # TensorFlow gathers on all cores, and would update a copy.
    merged = tf.gather(vectors, tf.math.invert_permutation(order))
    # Choices of no module leave rows out, and fail here.
    num_rows = inputs.shape[0] or tf.shape(choices)[0]
    return tf.reshape(merged, [num_rows, *output_shape])


def static_scatter(
    modules: Sequence[Module],
    inputs: tf.Tensor,
    choices: tf.Tensor,
    output_shape: tf.TensorShape,
    dtype: str,
) -> tf.Tensor:
    """Like `serving`, of operators that LiteRT has, for one row or more.

    A batch that agrees on one module keeps its static shapes, which LiteRT runs
    faster.

    Arguments and result are those of `partition`.
    """

    def run(module: Module, rows: tf.Tensor) -> tf.Tensor:
        outputs = run_module(module, rows, dtype)
        # LiteRT has no operator for `tf.ensure_shape`.
        outputs.set_shape([None, *output_shape])
        return outputs

    def together() -> tf.Tensor:
        return _search(modules, 0, inputs, choices[0], output_shape, dtype)

    def apart() -> tf.Tensor:
        places = [
            tf.cast(tf.where(choices == i), tf.int32)  # [R, 1]
            for i in range(len(modules))
        ]
        outputs = []
        for module, rows in zip(modules, places, strict=True):
            # A delegate of LiteRT prepares a module even if it will not run,
            # and fails for zero rows.
            is_empty = tf.shape(rows)[0] == 0
            spare = tf.zeros([tf.cast(is_empty, tf.int32), 1], tf.int32)
            gathered = tf.gather_nd(inputs, tf.concat([rows, spare], axis=0))
            outputs.append(
                tf.cond(
                    tf.logical_not(is_empty),
                    functools.partial(run, module, gathered),
                    lambda: tf.zeros([0, *output_shape], dtype),
                )
            )
        return tf.scatter_nd(
            tf.concat(places, axis=0),
            tf.concat(outputs, axis=0),
            [num_rows, *output_shape],
        )

    num_rows = inputs.shape[0] or tf.shape(inputs)[0]
    agree = tf.reduce_all(choices == choices[0])
    return tf.cond(agree, together, apart)


def unguarded_scatter(
    modules: Sequence[Module],
    inputs: tf.Tensor,
    choices: tf.Tensor,
    output_shape: tf.TensorShape,
    dtype: str,
) -> tf.Tensor:
    """Like `scatter`, but a module without rows runs on an empty batch.

    For runtimes where that works and costs nothing, such as ONNX Runtime;
    TensorFlow's own convolutions return wrong shapes for it.

    Arguments and result are those of `partition`.
    """

    def run(module, rows, output_shape, dtype):
        outputs = run_module(module, rows, dtype)
        return tf.ensure_shape(outputs, [None, *output_shape])

    order, vectors = _by_module(
        modules, inputs, choices, output_shape, dtype, run
    )
    # One operator, where an inverse permutation would take five.
    merged = tf.tensor_scatter_nd_update(
        vectors, tf.expand_dims(order, axis=-1), vectors
    )
    return tf.reshape(merged, [inputs.shape[0] or -1, *output_shape])


def _by_module(
    modules: Sequence[Module],
    inputs: tf.Tensor,
    choices: tf.Tensor,
    output_shape: tf.TensorShape,
    dtype: str,
    run: Callable[[Module, tf.Tensor, tf.TensorShape, str], tf.Tensor],
) -> tuple[tf.Tensor, tf.Tensor]:
    """Runs each module on its rows.

    Returns:
        Rows in the order of their modules, int64 `[B]`, and their outputs in
        that order as vectors, `[B, size]`.
    """
    num_modules = len(modules)
    chosen = tf.range(num_modules)[:, tf.newaxis] == choices  # [m, B]
    # ONNX Runtime takes a fixed time for each operator: few, without casts.
    order = tf.gather(tf.where(chosen), 1, axis=1)  # int64 [B]
    counts = tf.reduce_sum(tf.cast(chosen, tf.int64), axis=1)  # [m]
    outputs = [
        run(module, tf.gather(inputs, rows), output_shape, dtype)
        for module, rows in zip(
            modules, tf.split(order, counts, num=num_modules), strict=True
        )
    ]
    # As vectors: tf2onnx would move transpositions of images behind the merge,
    # where ONNX Runtime cannot join them with those of convolutions.
    size = output_shape.num_elements()
    vectors = [tf.reshape(rows, [-1, size]) for rows in outputs]
    return order, tf.concat(vectors, axis=0)


def _search(
    modules: Sequence[Module],
    first: int,
    rows: tf.Tensor,
    choice: tf.Tensor,
    output_shape: tf.TensorShape,
    dtype: str,
) -> tf.Tensor:
    """Runs module `choice - first` on all rows, found by bisection."""
    if len(modules) == 1:
        outputs = run_module(modules[0], rows, dtype)
        return tf.ensure_shape(outputs, [rows.shape[0], *output_shape])
    half = len(modules) // 2

    def lower() -> tf.Tensor:
        return _search(modules[:half], first, rows, choice, output_shape, dtype)

    def upper() -> tf.Tensor:
        return _search(
            modules[half:], first + half, rows, choice, output_shape, dtype
        )

    return tf.cond(choice < first + half, lower, upper)


def _run_unless_empty(
    module: Module, rows: tf.Tensor, output_shape: tf.TensorShape, dtype: str
) -> tf.Tensor:
    def run() -> tf.Tensor:
        outputs = run_module(module, rows, dtype)
        return tf.ensure_shape(outputs, [None, *output_shape])

    def skip() -> tf.Tensor:
        return tf.zeros([0, *output_shape], dtype)

    return tf.cond(tf.shape(rows)[0] > 0, run, skip)


# Strategies that merge rows behind pooling: those of exported batches.
MERGING_LATE = ("serving", "static_scatter", "unguarded_scatter")

STRATEGIES: dict[str, Strategy] = {
    "dense": dense,
    "partition": partition,
    "serving": serving,
    "branch": branch,
    "scatter": scatter,
    "static_scatter": static_scatter,
    "unguarded_scatter": unguarded_scatter,
}
