"""The record of a controller's decisions and their probabilities."""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

# Values of a choice that name no module: ask the policy, or draw uniformly.
POLICY, UNIFORM = -1, -2
# Name scope of all operations that decide: gamma, controller, choices.
STEERING = "composer_tf_steering"


class Policy(NamedTuple):
    """Choices along a path and the distributions they come from.

    Besides gamma, a preference's cost C(p, c, gamma) may depend on nothing
    else. `...` is empty, or `[K]` if every example takes K paths. The batch
    axis is the one before the last.

    Attributes:
        logits: n tensors, the i-th float32 `[..., B, m_i]`: unnormalized log
            probabilities of p_i, equation (2).
        choices: int32 `[..., B, n]`: c_i, equation (3).
        module_costs: n tensors, the i-th float32 `[m_i]`: beta_i of equation
            (6), normalized so that the most expensive path of the whole model
            costs 1.
    """

    logits: tuple[tf.Tensor, ...]
    choices: tf.Tensor
    module_costs: tuple[tf.Tensor, ...]

    @property
    def distributions(self) -> tuple[tfp.distributions.Categorical, ...]:
        """The n categorical distributions, each of batch shape `[..., B]`."""
        return tuple(categorical(logits) for logits in self.logits)

    @property
    def probabilities(self) -> tuple[tf.Tensor, ...]:
        """p_i: n tensors, the i-th float32 `[..., B, m_i]`."""
        return tuple(tf.nn.softmax(logits) for logits in self.logits)

    @property
    def log_prob(self) -> tf.Tensor:
        """Log p(c|x), float32 `[..., B]`, in nats."""
        terms = [
            distribution.log_prob(choice)
            for distribution, choice in zip(
                self.distributions, self._choice_columns, strict=True
            )
        ]
        return tf.add_n(terms)  # [..., B]

    @property
    def entropy(self) -> tf.Tensor:
        """Entropy of the n choices along the path, float32 `[..., B]`, nats."""
        return tf.add_n([d.entropy() for d in self.distributions])

    @property
    def path_cost(self) -> tf.Tensor:
        """sum_i beta_{i,c_i}, float32 `[..., B]`, in units of full cost."""
        table = tf.concat(self.module_costs, axis=0)  # [m_1 + ... + m_n]
        sizes = [costs.shape[0] or 0 for costs in self.module_costs]
        starts = np.cumsum([0, *sizes[:-1]], dtype=np.int32)
        costs = tf.gather(table, self.choices + starts)  # [..., B, n]
        return tf.reduce_sum(costs, axis=-1)  # [..., B]

    @property
    def _choice_columns(self) -> list[tf.Tensor]:
        """c_1, ..., c_n, each int32 `[..., B]`."""
        return tf.unstack(self.choices, num=len(self.logits), axis=-1)

    def split_paths(self, num_paths: int) -> Self:
        """Splits the batch axis `[K * B]` into `[K, B]`."""

        def split(tensor: tf.Tensor) -> tf.Tensor:
            return tf.reshape(tensor, [num_paths, -1, tensor.shape[-1]])

        return self._replace(
            logits=tuple(split(logits) for logits in self.logits),
            choices=split(self.choices),
        )

    def take_paths(self, paths: slice) -> Self:
        """Some of the K paths of a policy of batch shape `[K, B]`."""
        return self._replace(
            logits=tuple(logits[paths] for logits in self.logits),
            choices=self.choices[paths],
        )


def categorical(logits: tf.Tensor) -> tfp.distributions.Categorical:
    """The distribution of equation (3) over the modules of one metalayer."""
    return tfp.distributions.Categorical(logits=logits, dtype=tf.int32)


class Composition(NamedTuple):
    """What a Composer did with a batch; R rows are K paths of B examples.

    Attributes:
        outputs: `[R, ...]`, the activations after the last step.
        policy: Choices and probabilities, of batch shape `[R]`.
        gamma: float32 `[B, k]`, the gamma used, clipped to its support.
        context: float32 `[B, d]`, a summary of the first metalayer's input and
            of gamma, without gradient.
        guesses: n tensors float32 `[D_i, B, classes]`, logits of the
            controller's probes for the D_i different beginnings of the paths;
            none without probes.
        overhead: Cost of the controller, the stem and the fixed steps, a
            fraction of full cost.
    """

    outputs: tf.Tensor
    policy: Policy
    gamma: tf.Tensor
    context: tf.Tensor
    guesses: tuple[tf.Tensor, ...] = ()
    overhead: float = 0.0

    @property
    def cost(self) -> tf.Tensor:
        """Cost of each row, a fraction of full cost, float32 `[R]`."""
        return self.policy.path_cost + self.overhead


def tile_rows(tensor: tf.Tensor, num_paths: int) -> tf.Tensor:
    """`[B, ...]` to `[K * B, ...]`, the whole batch repeated per path."""
    if num_paths == 1:
        return tensor
    return tf.tile(tensor, [num_paths] + [1] * (tensor.shape.rank - 1))


def take_blocks(tensor: tf.Tensor, sources: Sequence[int]) -> tf.Tensor:
    """`[D * B, ...]` to `[len(sources) * B, ...]`, by taking blocks of rows.

    Args:
        tensor: `[D * B, ...]`, D = max(sources) + 1 blocks of rows.
        sources: Index of a block of `tensor`, for each block of the result.
    """
    num_blocks = max(sources) + 1
    if list(sources) == list(range(num_blocks)):
        return tensor
    blocks = tf.split(tensor, num_blocks)
    return tf.concat([blocks[source] for source in sources], axis=0)


def all_paths(
    num_modules: Sequence[int], max_paths: int = 256
) -> list[tuple[int, ...]]:
    """Every path c_1, ..., c_n through m_1, ..., m_n modules.

    Raises:
        ValueError: If there are more than `max_paths`.

    Example:
        >>> all_paths([2, 1])
        [(0, 0), (1, 0)]
    """
    num_paths = math.prod(num_modules)
    if num_paths > max_paths:
        raise ValueError(
            f"At most {max_paths} paths can be run, but modules "
            f"{list(num_modules)} make {num_paths}."
        )
    return list(itertools.product(*map(range, num_modules)))


def sample_paths(
    num_modules: Sequence[int], max_paths: int = 64
) -> list[tuple[int, ...]]:
    """Every path, or a fixed sample through every module if there are more.

    The sample is, for each i, the path of all modules i (or the last of a
    metalayer that has fewer), and at most `max_paths` random ones.

    Example:
        >>> sample_paths([2, 3]) == all_paths([2, 3])
        True
        >>> sample_paths([2, 3], max_paths=2)
        [(0, 0), (1, 1), (1, 2), (1, 0)]
    """
    sizes = np.array(num_modules)
    if math.prod(num_modules) <= max_paths:
        return all_paths(num_modules)
    straight = [np.minimum(i, sizes - 1) for i in range(max(num_modules))]
    drawn = np.random.default_rng(0).integers(
        0, sizes, [max_paths, len(num_modules)]
    )
    paths = map(tuple, np.stack([*straight, *drawn]).tolist())
    return list(dict.fromkeys(paths))
