"""The path of a batch through the metalayers: equations (2) to (4)."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from composer_tf import replicas, validation
from composer_tf.layers.continuations import Continuation, with_continuations
from composer_tf.layers.controller import Controller
from composer_tf.layers.metalayer import Metalayer
from composer_tf.layers.routing import MERGING_LATE
from composer_tf.policy import (
    POLICY,
    STEERING,
    UNIFORM,
    categorical,
    take_blocks,
    tile_rows,
)

Decide = Callable[[tf.Tensor, int, Sequence[int]], tf.Tensor]


class Path(NamedTuple):
    """What happened to R rows: K paths of each of B examples.

    Attributes:
        outputs: `[R, ...]`, the activations after the last step.
        logits: n tensors, the i-th float32 `[R, m_i]`, from the controller.
        choices: int32 `[R, n]`, the modules that ran.
        context: float32 `[B, d]`, a summary of the first metalayer's input,
            and gamma.
        guesses: n tensors float32 `[D_i, B, classes]`, logits of the
            controller's probes before each metalayer, where D_i blocks of rows
            arrive; none without probes.
    """

    outputs: tf.Tensor
    logits: tuple[tf.Tensor, ...]
    choices: tf.Tensor
    context: tf.Tensor
    guesses: tuple[tf.Tensor, ...]


class Fork(NamedTuple):
    """How paths part at a metalayer: D blocks of rows arrive, D' go on.

    Attributes:
        sources: Index of the arriving block, for each block that goes on.
        choices: Module of each block that goes on, negative if not known.
        block_of_path: Index of the block that goes on, for each of K paths.
    """

    sources: tuple[int, ...]
    choices: tuple[int, ...]
    block_of_path: tuple[int, ...]


def forks(paths: Sequence[Sequence[int]]) -> list[Fork]:
    """Where paths part; until then they share one block, which is run once.

    Args:
        paths: K tuples of n modules, negative if not known.

    Returns:
        One `Fork` per metalayer.

    Example:
        >>> first, second = forks([(0, 0), (0, 1), (1, -1), (0, 1)])
        >>> first.sources, first.choices, first.block_of_path
        ((0, 0), (0, 1), (0, 0, 1, 0))
        >>> second.sources, second.choices, second.block_of_path
        ((0, 0, 1), (0, 1, -1), (0, 1, 2, 1))
    """
    block_of_path = (0,) * len(paths)
    result = []
    for i in range(len(paths[0])):
        blocks: dict[tuple[int, ...], int] = {}
        sources, choices, next_blocks = [], [], []
        for k, path in enumerate(paths):
            beginning = tuple(path[: i + 1])
            if min(beginning) < 0:  # Unknown modules: it stays apart.
                beginning = (*beginning, k)
            block = blocks.setdefault(beginning, len(blocks))
            if block == len(sources):
                sources.append(block_of_path[k])
                choices.append(path[i])
            next_blocks.append(block)
        block_of_path = tuple(next_blocks)
        result.append(Fork(tuple(sources), tuple(choices), block_of_path))
    return result


def follow(
    steps: Sequence[keras.layers.Layer],
    controller: Controller,
    activations: tf.Tensor,
    gamma: tf.Tensor,
    prices: Sequence[tf.Tensor] | None,
    decide: Decide,
    routing: str,
    paths: Sequence[Sequence[int]],
) -> Path:
    """Asks the controller at each metalayer, and runs the chosen modules.

    The common beginning of several paths of an example is computed once.

    Args:
        steps: `Metalayer`s, at least one, and plain layers as fixed steps.
        controller: Controller that is built for them.
        activations: `[B, ...]`, a_0.
        gamma: float32 `[B, k]`, scaled to [-1, 1].
        prices: n tensors float32 `[B, m_i]`, what gamma charges, or `None`.
        decide: Function that maps logits float32 `[D * B, m_i]`, the
            metalayer's index i and the modules of the D blocks (negative if not
            known) to choices int32 `[D * B]`, equation (3).
        routing: Name of a strategy of `composer_tf.layers.routing`.
        paths: K tuples of n modules that `decide` will choose, negative if not
            known beforehand.
    """
    coming = iter(forks(paths))
    block_of_path: Sequence[int] = (0,) * len(paths)
    steering = _Steering(controller, gamma, prices, decide)
    stages: Sequence[tuple[keras.layers.Layer, Continuation]]
    stages = [(step, ()) for step in steps]
    if routing in MERGING_LATE:
        stages = with_continuations(steps)
    for step, continuation in stages:
        if not isinstance(step, Metalayer):
            activations = step(activations)
            continue
        fork = next(coming)
        activations = step(
            activations,
            steering.choose(activations, fork),
            routing=routing,
            blocks=[max(module, POLICY) for module in fork.choices],
            sources=fork.sources,
            continuation=continuation,
        )
        block_of_path = fork.block_of_path
    return Path(
        take_blocks(activations, block_of_path),
        tuple(steering.logits),
        tf.stack(steering.choices, axis=-1),
        steering.context,
        tuple(steering.guesses),
    )


class _Steering:
    """A controller along a path, and its decisions so far, as in `Path`.

    Args:
        controller: Same as in `follow`.
        gamma: Same as in `follow`.
        prices: Same as in `follow`.
        decide: Same as in `follow`.
    """

    def __init__(
        self,
        controller: Controller,
        gamma: tf.Tensor,
        prices: Sequence[tf.Tensor] | None,
        decide: Decide,
    ) -> None:
        self._controller = controller
        self._gamma = gamma
        self._prices = prices
        self._decide = decide
        self._state = controller.initial_state(tf.shape(gamma)[0])
        self._choice: tf.Tensor | None = None  # At the previous metalayer.
        self.context = gamma
        self.logits: list[tf.Tensor] = []
        self.choices: list[tf.Tensor] = []
        self.guesses: list[tf.Tensor] = []

    def choose(self, activations: tf.Tensor, fork: Fork) -> tf.Tensor:
        """Equations (2) and (3) at the next metalayer.

        Args:
            activations: `[D * B, ...]`, the input of the metalayer.
            fork: Fork of the paths at this metalayer.

        Returns:
            int32 `[D' * B]`, the module of each row that goes on.
        """
        i = len(self.logits)
        num_blocks = max(fork.sources) + 1
        with tf.name_scope(STEERING):
            observed = self._controller.observe(activations, i)
            if i == 0:
                both = [observed.summary, self._gamma]
                self.context = tf.concat(both, axis=-1)  # [B, d]
            if observed.guess is not None:
                self.guesses.append(
                    tf.stack(tf.split(observed.guess, num_blocks))
                )
            logits, state = self._controller(
                observed.features,
                self._choice,
                tile_rows(self._gamma, num_blocks),
                self._state,
                index=i,
            )
            price = None
            if self._prices is not None:
                price = tile_rows(self._prices[i], num_blocks)
            logits = self._controller.finalize_logits(logits, price)
            logits = take_blocks(logits, fork.sources)
            self._state = take_blocks(state, fork.sources)
            choice = self._decide(logits, i, fork.choices)
        self._choice = choice
        self.logits.append(take_blocks(logits, fork.block_of_path))
        self.choices.append(take_blocks(choice, fork.block_of_path))
        return choice


def known_paths(
    choices: Any,
    paths: Sequence[Sequence[int]] | None,
    num_modules: Sequence[int],
    batch_size: tf.Tensor,
    least: int,
) -> tuple[tf.Tensor | None, list[tuple[int, ...]]]:
    """Checks the choices that are known beforehand, by example or by path.

    Args:
        choices: `[B, n]`, or `None`.
        paths: K tuples of n modules, which every example takes, or `None`.
        num_modules: Numbers of modules m_1, ..., m_n.
        batch_size: Batch size B.
        least: Smallest value in a path, `POLICY` or `UNIFORM`.

    Returns:
        Choices int32 `[B, n]` or `None`, and the K paths: if none are given,
        one path that asks the policy everywhere.

    Raises:
        ValueError: If both are given, or do not fit.
    """
    if paths is not None:
        if choices is not None:
            raise ValueError("Give `choices` or `paths`, got both.")
        try:
            table = np.array(paths)
        except ValueError as error:
            raise ValueError(
                "`paths` must be tuples of equal length, one module for each "
                f"metalayer, got {paths!r}."
            ) from error
        if table.dtype.kind not in "iu":
            raise ValueError(f"`paths` must be integers, got {paths!r}.")
        validation.check_paths(table, num_modules, "paths", least)
        return None, [tuple(path) for path in table.tolist()]
    unknown = [(POLICY,) * len(num_modules)]
    if choices is None:
        return None, unknown
    choices = tf.convert_to_tensor(choices)
    if not choices.dtype.is_integer:
        raise ValueError(
            f"`choices` must be integers, got {choices.dtype.name}."
        )
    choices = tf.cast(choices, tf.int32)
    validation.check_paths(choices, num_modules)
    rows, wanted = choices.shape[0], tf.get_static_value(batch_size)
    if None not in (rows, wanted) and rows != wanted:
        raise ValueError(
            f"`choices` must have one row per example, {wanted}, got {rows}."
        )
    return choices, unknown


def decide_by(
    seeds: tf.Tensor | None,
    choices: tf.Tensor | None,
    batch_size: tf.Tensor,
) -> Decide:
    """Equation (3): the mode or a sample of the policy, if no module is given.

    Args:
        seeds: int32 `[n, 2]`, stateless seeds; `None` for the mode.
        choices: int32 `[B, n]`, modules to take, `POLICY` to ask the policy;
            or `None`. For one path only.
        batch_size: Batch size B.
    """

    def decide(
        logits: tf.Tensor, index: int, blocks: Sequence[int]
    ) -> tf.Tensor:
        if choices is not None:
            given = choices[:, index]
        elif set(blocks) == {POLICY}:
            return of_policy(logits, index, len(blocks))
        else:
            given = tf.repeat(tf.constant(blocks), batch_size)
        if min(blocks) >= 0:
            return given
        if UNIFORM in blocks:
            is_uniform = tf.expand_dims(given == UNIFORM, -1)
            logits = tf.where(is_uniform, 0.0, logits)
        return _or_else(given, of_policy(logits, index, len(blocks)))

    def of_policy(logits: tf.Tensor, index: int, num_blocks: int) -> tf.Tensor:
        if seeds is None:
            return tf.argmax(logits, axis=-1, output_type=tf.int32)
        seed = seeds[index]
        drawn = replicas.draw(
            lambda rows: categorical(rows).sample(seed=seed), logits, num_blocks
        )
        # A sample from NaN is no module. It is clipped, so that the loss shows
        # the NaN and no kernel fails.
        return tf.minimum(drawn, tf.shape(logits)[-1] - 1)

    return decide


def _or_else(given: tf.Tensor, choice: tf.Tensor) -> tf.Tensor:
    """`given` where it names a module, else `choice`; int32 `[D * B]`.

    It is tf.where(given < 0, choice, given), by operators that devices have.
    """
    given = tf.maximum(given, POLICY)  # -1 if negative.
    return given - tf.minimum(given, 0) * (choice + 1)
