"""Many training steps in one XLA program.

Keras compiles one step, and calls it `steps_per_execution` times. Each call
hands over every variable, which on a CPU takes as long as the arithmetic of a
small model. Here the loop over the steps is compiled too.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

_MOST_STEPS = 32  # In one program: more would gain little.
_MOST_BYTES = 2**26  # Of the batches of one program, which are copied.
_ROWS = 256  # Of a batch whose size is not known beforehand.

Step = Callable[[Any], dict[str, tf.Tensor]]


def training_function(
    step: Step, steps_per_execution: int, otherwise: Callable[..., Any]
) -> Callable[[Any], dict[str, tf.Tensor]]:
    """A Keras `train_function` that compiles its loop over steps.

    Batches and results are those of Keras's own.

    Args:
        step: Step that XLA can compile; it maps a batch to logs.
        steps_per_execution: Most steps of one call.
        otherwise: Keras's function, for data that is no `tf.data.Iterator` of
            dense tensors or has batches too large to be copied.

    Returns:
        Function that maps an iterator over batches to the logs of the last
        step. It raises `StopIteration` if no batch is left.
    """

    @tf.function(autograph=False, reduce_retracing=True)
    def run(iterator: tf.data.Iterator) -> tuple[tf.Tensor, Any]:
        return _run(step, iterator, steps_per_execution)

    def train(iterator: Any) -> dict[str, tf.Tensor]:
        if _steps_at_once(iterator, steps_per_execution) < 2:
            return otherwise(iterator)
        executed, logs = run(iterator)
        if not int(executed):
            raise StopIteration
        return logs

    return train


def _steps_at_once(iterator: Any, steps_per_execution: int) -> int:
    """Steps of one program; 0 if the data is of another kind."""
    if not isinstance(iterator, tf.data.Iterator):
        return 0
    specs = tf.nest.flatten(iterator.element_spec)
    size = 0
    for spec in specs:
        if not isinstance(spec, tf.TensorSpec) or spec.shape.rank in (None, 0):
            return 0
        inner = spec.shape[1:].num_elements()
        if inner is None or not (spec.dtype.is_numeric or spec.dtype.is_bool):
            return 0
        size += (spec.shape[0] or _ROWS) * inner * spec.dtype.size
    if not size:
        return 0
    return min(_MOST_STEPS, steps_per_execution, _MOST_BYTES // size)


def _run(
    step: Step, iterator: tf.data.Iterator, most: int
) -> tuple[tf.Tensor, Any]:
    """Runs at most so many steps; returns their number and the last logs."""
    at_once = _steps_at_once(iterator, most)
    batch = iterator.element_spec
    # Traced only: it tells what the logs are.
    traced = tf.function(step, autograph=False).get_concrete_function(batch)
    logs = tf.nest.map_structure(
        lambda log: tf.zeros(log.shape, log.dtype), traced.structured_outputs
    )
    program = _program(step, logs)

    def go_on(executed: tf.Tensor, following: Any, _: Any) -> tf.Tensor:
        return tf.logical_and(executed < most, following.has_value())

    def execute(executed: tf.Tensor, following: Any, _: Any) -> Any:
        wanted = tf.minimum(at_once, most - executed)
        count, batches, following = _collect(
            iterator, following, wanted, at_once
        )
        executed += count
        following = tf.cond(
            tf.logical_or(following.has_value(), executed == most),
            lambda: following,
            iterator.get_next_as_optional,
        )
        return executed, following, program(batches, count)

    executed, _, logs = tf.while_loop(
        go_on, execute, (0, iterator.get_next_as_optional(), logs)
    )
    return executed, logs


def _program(step: Step, logs: Any) -> Callable[[Any, tf.Tensor], Any]:
    @tf.function(jit_compile=True, autograph=False, reduce_retracing=True)
    def program(batches: Any, count: tf.Tensor) -> Any:
        """Runs the first batches of a stack; returns the last logs."""

        def body(i: tf.Tensor, _: Any) -> Any:
            batch = tf.nest.map_structure(lambda stack: stack[i], batches)
            return i + 1, step(batch)

        return tf.while_loop(lambda i, _: i < count, body, (0, logs))[1]

    return program


def _collect(
    iterator: tf.data.Iterator, following: Any, wanted: tf.Tensor, size: int
) -> tuple[tf.Tensor, Any, Any]:
    """Takes batches of equal size.

    Args:
        iterator: Iterator over batches.
        following: Optional with the next batch, which has a value.
        wanted: Most batches to take, at least one; no more are read.
        size: Length of the stack.

    Returns:
        Number of batches, a stack `[size, B, ...]` of them with zeros at its
        end, and an optional: the next batch if it was of another size, else no
        value.
    """
    first = following.get_value()
    rows = _num_rows(first)
    arrays = [
        tf.TensorArray(part.dtype, size, element_shape=part.shape)
        for part in tf.nest.flatten(first)
    ]
    optional: Any = tf.experimental.Optional
    nothing = optional.empty(iterator.element_spec)

    def fits(count: tf.Tensor, following: Any, _: Any) -> tf.Tensor:
        return tf.cond(
            following.has_value(),
            lambda: _num_rows(following.get_value()) == rows,
            lambda: tf.constant(False),
        )

    def take(count: tf.Tensor, following: Any, arrays: Any) -> Any:
        parts = tf.nest.flatten(following.get_value())
        arrays = [
            array.write(count, part)
            for array, part in zip(arrays, parts, strict=True)
        ]
        following = tf.cond(
            count + 1 < wanted, iterator.get_next_as_optional, lambda: nothing
        )
        return count + 1, following, arrays

    count, following, arrays = tf.while_loop(fits, take, (0, following, arrays))
    stacks = [array.stack() for array in arrays]
    return count, tf.nest.pack_sequence_as(first, stacks), following


def _num_rows(batch: Any) -> tf.Tensor:
    return tf.shape(tf.nest.flatten(batch)[0])[0]
