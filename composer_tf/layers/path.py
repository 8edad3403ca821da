"""The way of a batch through the metalayers: equations (2) to (4)."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import keras
import tensorflow as tf

from composer_tf.layers.controller import Controller
from composer_tf.layers.metalayer import Metalayer
from composer_tf.policy import STEERING

Decide = Callable[[tf.Tensor, int], tf.Tensor]


class Path(NamedTuple):
    """What happened to R rows.

    Attributes:
        outputs: `[R, ...]`, the activations after the last step.
        logits: n tensors, the i-th float32 `[R, m_i]`, of the controller.
        choices: int32 `[R, n]`, the modules that ran.
        context: float32 `[R, d]`, a summary of the first metalayer's input,
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
    decide: Decide,
    routing: str,
) -> Path:
    """Asks the controller at each metalayer, and runs what is decided.

    Args:
        steps: `Metalayer`s, at least one, and plain layers as fixed steps.
        controller: Built for them.
        activations: `[R, ...]`, a_0.
        gamma: float32 `[R, k]`, scaled to [-1, 1].
        decide: Maps logits float32 `[R, m_i]` and the metalayer's index i to
            choices int32 `[R]`, equation (3).
        routing: Name of a strategy of `composer_tf.layers.routing`.
    """
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
                context = tf.concat([summary, gamma], axis=-1)  # [R, d]
            previous = choices[-1] if choices else None
            step_logits, state = controller(
                activations, previous, gamma, state, index=i
            )  # [R, m_i]
            choice = decide(step_logits, i)  # [R]
        activations = step(activations, choice, routing=routing)
        logits.append(step_logits)
        choices.append(choice)
    return Path(activations, tuple(logits), tf.stack(choices, axis=-1), context)
