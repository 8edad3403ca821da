"""Ways to run the chosen module on each row: one set of weights, equal results.

Each strategy takes the modules of a metalayer, the activations and one choice
per row, and returns `a_i = f_{i, c_i}(a_{i-1})` of equation (4).
"""

from collections.abc import Callable, Sequence

import tensorflow as tf

Module = Callable[[tf.Tensor], tf.Tensor]
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
    against. A module that normalises over the batch sees all rows.

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
    chosen = tf.cast(modules[0](inputs), dtype)  # [B, ...]
    for index, module in enumerate(modules[1:], start=1):
        outputs = tf.cast(module(inputs), dtype)
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

    The guard around each module is what keeps it from running, and it keeps
    layers that cannot take zero rows from being given any. Not for XLA.

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


def _run_unless_empty(
    module: Module, rows: tf.Tensor, output_shape: tf.TensorShape, dtype: str
) -> tf.Tensor:
    def run() -> tf.Tensor:
        outputs = tf.cast(module(rows), dtype)
        return tf.ensure_shape(outputs, [None, *output_shape])

    def skip() -> tf.Tensor:
        return tf.zeros([0, *output_shape], dtype)

    outputs = tf.cond(tf.shape(rows)[0] > 0, run, skip)
    _check_no_leaked_losses(module, rows)
    return outputs


def _check_no_leaked_losses(module: Module, rows: tf.Tensor) -> None:
    """A loss added inside a guard cannot be read outside of it."""
    if tf.executing_eagerly():
        return
    for loss in getattr(module, "losses", ()):
        if loss.graph is not rows.graph:
            raise ValueError(
                f"Module {getattr(module, 'name', module)!r} adds a loss that "
                "depends on its input (`add_loss` or an activity "
                "regularizer). Routing 'partition' cannot collect it: pass "
                "routing='dense' to the Composer."
            )


STRATEGIES: dict[str, Strategy] = {"dense": dense, "partition": partition}
