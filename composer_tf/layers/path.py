"""The way of a batch through the metalayers: equations (2) to (4)."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from composer_tf import replicas, validation
from composer_tf.layers.controller import Controller
from composer_tf.layers.metalayer import Metalayer
from composer_tf.policy import POLICY, STEERING, UNIFORM, categorical, tile_rows

Decide = Callable[[tf.Tensor, int], tf.Tensor]


class Path(NamedTuple):
    """What happened to R rows: K paths of each of B examples.

    Attributes:
        outputs: `[R, ...]`, the activations after the last step.
        logits: n tensors, the i-th float32 `[R, m_i]`, of the controller.
        choices: int32 `[R, n]`, the modules that ran.
        context: float32 `[B, d]`, a summary of the first metalayer's input,
            and gamma.
    """

    outputs: tf.Tensor
    logits: tuple[tf.Tensor, ...]
    choices: tf.Tensor
    context: tf.Tensor


def follow(
    steps: Sequence[keras.layers.Layer],
    controller: Controller,
    activations: tf.Tensor,
    gamma: tf.Tensor,
    prices: Sequence[tf.Tensor] | None,
    decide: Decide,
    routing: str,
    paths: Sequence[Sequence[int]] | None = None,
) -> Path:
    """Asks the controller at each metalayer, and runs what is decided.

    The paths of an example part at the first metalayer: all before it, the
    controller's first answer included, is computed once for them all.

    Args:
        steps: `Metalayer`s, at least one, and plain layers as fixed steps.
        controller: Built for them.
        activations: `[B, ...]`, a_0.
        gamma: float32 `[B, k]`, scaled to [-1, 1].
        prices: n tensors float32 `[B, m_i]`, of gamma, or `None`.
        decide: Maps logits float32 `[R, m_i]` and the metalayer's index i to
            choices int32 `[R]`, equation (3).
        routing: Name of a strategy of `composer_tf.layers.routing`.
        paths: K tuples of n modules that `decide` will choose, negative where
            that is not known beforehand. `None` for one path, not known.
    """
    paths = [[POLICY] * len(steps)] if paths is None else paths
    state = controller.initial_state(tf.shape(gamma)[0])
    context = gamma
    logits: list[tf.Tensor] = []
    choices: list[tf.Tensor] = []
    for step in steps:
        if not isinstance(step, Metalayer):
            activations = step(activations)
            continue
        i = len(logits)
        with tf.name_scope(STEERING):
            if i == 0:
                summary = controller.summarize(activations, i)
                context = tf.concat([summary, gamma], axis=-1)  # [B, d]
            previous = choices[-1] if choices else None
            step_logits, state = controller(
                activations, previous, gamma, state, index=i
            )
            price = None if prices is None else prices[i]
            step_logits = controller.settle(step_logits, price)  # [R, m_i]
            if i == 0:
                gamma, state, step_logits = (
                    tile_rows(tensor, len(paths))
                    for tensor in (gamma, state, step_logits)
                )
                if prices is not None:
                    prices = [tile_rows(price, len(paths)) for price in prices]
            choice = decide(step_logits, i)  # [R]
        activations = step(
            activations,
            choice,
            routing=routing,
            blocks=[max(path[i], POLICY) for path in paths],
            shared=i == 0,
        )
        logits.append(step_logits)
        choices.append(choice)
    return Path(activations, tuple(logits), tf.stack(choices, axis=-1), context)


def known_choices(
    choices: Any,
    paths: Sequence[Sequence[int]] | None,
    num_modules: Sequence[int],
    batch_size: tf.Tensor,
    least: int,
) -> tf.Tensor | None:
    """What is known of the choices beforehand, int32 `[R, n]`, or `None`.

    Args:
        choices: `[B, n]`, or `None`.
        paths: K tuples of n, which every example takes, or `None`.
        num_modules: m_1, ..., m_n.
        batch_size: B.
        least: What a path may hold, down to `POLICY` or `UNIFORM`.

    Raises:
        ValueError: If both are given, or do not fit.
    """
    if paths is not None:
        if choices is not None:
            raise ValueError("Give `choices` or `paths`, got both.")
        table = np.array(paths, np.int32)
        validation.check_paths(table, num_modules, "paths", least)
        return tf.repeat(tf.constant(table), batch_size, axis=0)
    if choices is None:
        return None
    choices = tf.cast(choices, tf.int32)
    validation.check_paths(choices, num_modules)
    rows, wanted = choices.shape[0], tf.get_static_value(batch_size)
    if None not in (rows, wanted) and rows != wanted:
        raise ValueError(
            f"`choices` must have one row per example, {wanted}, got {rows}."
        )
    return choices


def decide_by(
    seeds: tf.Tensor | None,
    choices: tf.Tensor | None,
    paths: Sequence[Sequence[int]] | None = None,
) -> Decide:
    """Equation (3): the mode or a sample of the policy, where none is given.

    Args:
        seeds: Stateless, int32 `[n, 2]`; `None` for the mode.
        choices: Int32 `[R, n]` of what is given, `POLICY` where it is not, or,
            with seeds, `UNIFORM`; or `None`.
        paths: The K paths whose rows the choices are; `None` for one.
    """
    num_paths = 1 if paths is None else len(paths)
    has_uniform = any(UNIFORM in path for path in paths or ())

    def decide(logits: tf.Tensor, index: int) -> tf.Tensor:
        given = None if choices is None else choices[:, index]
        if given is not None and has_uniform:
            is_uniform = tf.expand_dims(given == UNIFORM, -1)
            logits = tf.where(is_uniform, 0.0, logits)
        if seeds is None:
            choice = tf.argmax(logits, axis=-1, output_type=tf.int32)
        else:
            seed = seeds[index]
            choice = replicas.draw(
                lambda rows: categorical(rows).sample(seed=seed),
                logits,
                num_paths,
            )
        if given is None:
            return choice
        given = tf.maximum(given, POLICY)
        # tf.where(given < 0, choice, given), by what devices have too.
        return given - tf.minimum(given, 0) * (choice + 1)

    return decide
