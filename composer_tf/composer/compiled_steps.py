"""Many training steps in one XLA program.

Keras compiles one step, and calls it `steps_per_execution` times. Each call
hands over every variable, which on a CPU takes as long as the arithmetic of a
small model. Here the loop over the steps is compiled too:

    while steps are left, and a next batch:
        stack = it and those after it, of its size: 32, or 64 MiB, at most
        logs = program(stack)  # XLA: for batch in stack: logs = step(batch)
    return logs
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

_MOST_STEPS = 32  # In one program: more would gain little.
_MOST_BYTES = 2**26  # Of the batches of one program, which are copied.

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
            dense tensors of numbers.

    Returns:
        Function that maps an iterator over batches to the logs of the last
        step. It raises `StopIteration` if no batch is left.
    """

    @tf.function(autograph=False, reduce_retracing=True)
    def run(iterator: tf.data.Iterator) -> tuple[tf.Tensor, Any]:
        return _run(step, iterator, steps_per_execution)

    def train(iterator: Any) -> dict[str, tf.Tensor]:
        if not _has_dense_batches(iterator):
            return otherwise(iterator)
        executed, logs = run(iterator)
        if not int(executed):
            raise StopIteration
        return logs

    return train


def _has_dense_batches(iterator: Any) -> bool:
    if not isinstance(iterator, tf.data.Iterator):
        return False
    return all(
        isinstance(spec, tf.TensorSpec)
        and (spec.dtype.is_numeric or spec.dtype.is_bool)
        and spec.shape.rank
        and spec.shape[1:].is_fully_defined()
        for spec in tf.nest.flatten(iterator.element_spec)
    )


def _run(
    step: Step, iterator: tf.data.Iterator, most: int
) -> tuple[tf.Tensor, Any]:
    """Runs at most so many steps; returns their number and the last logs."""
    traced: Any = tf.function(step, autograph=False, reduce_retracing=True)
    shapes = traced.get_concrete_function(iterator.element_spec)
    logs = tf.nest.map_structure(
        lambda log: tf.zeros(log.shape, log.dtype), shapes.structured_outputs
    )
    program = _program(traced, logs)

    def go_on(executed: tf.Tensor, following: Any, _: Any) -> tf.Tensor:
        return tf.logical_and(executed < most, following.has_value())

    def execute(executed: tf.Tensor, following: Any, _: Any) -> Any:
        count, batches, following = _collect(
            iterator, following, most - executed, most
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
    iterator: tf.data.Iterator, following: Any, wanted: tf.Tensor, most: int
) -> tuple[tf.Tensor, Any, Any]:
    """Takes batches of equal size, as many as one program may have.

    Args:
        iterator: Iterator over batches.
        following: Optional with the next batch, which has a value.
        wanted: Most batches to take, at least one; no more are read.
        most: Most batches that are ever wanted.

    Returns:
        Number of batches, a stack `[S, B, ...]` of them with zeros at its end,
        and an optional: the next batch if it was of another size, else no
        value. S depends on the size of a batch alone: each is a program.
    """
    first = following.get_value()
    rows = _num_rows(first)
    parts = tf.nest.flatten(first)
    bytes_of_batch = tf.add_n(
        [tf.size(part, tf.int64) * part.dtype.size for part in parts]
    )
    size = tf.cast(_MOST_BYTES // tf.maximum(bytes_of_batch, 1), tf.int32)
    size = tf.clip_by_value(size, 1, min(_MOST_STEPS, most))
    wanted = tf.minimum(wanted, size)
    arrays = [
        tf.TensorArray(part.dtype, size, element_shape=part.shape)
        for part in parts
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
