"""Blocks of rows whose module is known, which need no routing."""

from collections.abc import Callable, Sequence

import tensorflow as tf

from composer_tf.layers.modules import Module, run_module


def by_blocks(
    modules: Sequence[Module],
    parts: Sequence[tf.Tensor],
    choices: Sequence[tf.Tensor],
    blocks: Sequence[int],
    run_unknown: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
    dtype: str,
) -> tf.Tensor:
    """Runs each module on its own blocks of rows, where they are known.

    It needs no conditionals and compiles under XLA. Several blocks may be the
    same tensor: a module then runs on it once.

    Args:
        modules: m callables that map `[B, ...]` to `[B, *output_shape]`.
        parts: K blocks of rows, each `[B, ...]`.
        choices: Choices of each block, int32 `[B]`, in `[0, m)`.
        blocks: Choice that all rows of a block share; -1 if not known.
        run_unknown: Function that maps rows and their choices to outputs.
        dtype: Data type of the output.

    Returns:
        `[K * B, *output_shape]` of type `dtype`.
    """
    outputs: dict[int, tf.Tensor] = {}
    for index in sorted(set(blocks)):
        own = [k for k, block in enumerate(blocks) if block == index]
        if index < 0:
            outputs |= {k: run_unknown(parts[k], choices[k]) for k in own}
            continue
        rows = {id(parts[k]): parts[k] for k in own}
        together = tf.concat(list(rows.values()), axis=0)
        computed = run_module(modules[index], together, dtype)
        computed = tf.split(computed, len(rows))
        of_rows = dict(zip(rows, computed, strict=True))
        outputs |= {k: of_rows[id(parts[k])] for k in own}
    return tf.concat([outputs[k] for k in range(len(blocks))], axis=0)
