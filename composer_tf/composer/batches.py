"""Results of a training batch, of each replica and of all together."""

from typing import Any, NamedTuple, Self

import tensorflow as tf

from composer_tf import replicas
from composer_tf.objectives.losses import PerExampleLoss
from composer_tf.objectives.rewards import RewardFunction
from composer_tf.policy import Composition, Policy, tile_rows


class Rows(NamedTuple):
    """Results of K paths of each of B examples.

    Attributes:
        outputs: `[K, B, ...]`.
        losses: float32 `[K, B]`, the data losses.
        rewards: float32 `[K, B]`, without costs.
        policy: Policy of batch shape `[K, B]`.
    """

    outputs: tf.Tensor
    losses: tf.Tensor
    rewards: tf.Tensor
    policy: Policy

    @classmethod
    def of(
        cls,
        composition: Composition,
        targets: Any,
        num_paths: int,
        loss: PerExampleLoss,
        reward: RewardFunction | None,
    ) -> Self:
        """Splits rows `[K * B]` by path, and adds their losses and rewards.

        Args:
            composition: Result of the model for all paths.
            targets: `[B, ...]`.
            num_paths: Number of paths K.
            loss: Function that returns the data loss of each row.
            reward: Function of targets and outputs that returns the reward of
                each row; `None` for minus the loss.
        """
        targets = tile_rows(tf.convert_to_tensor(targets), num_paths)
        losses = loss(targets, composition.outputs)
        rewards = -losses
        if reward is not None:
            rewards = reward(targets, composition.outputs)
        return cls(
            tf.stack(tf.split(composition.outputs, num_paths)),
            tf.reshape(losses, [num_paths, -1]),
            tf.reshape(rewards, [num_paths, -1]),
            composition.policy.split_paths(num_paths),
        )

    def take(self, paths: slice) -> Self:
        """The rows of some paths."""
        return self._replace(
            outputs=self.outputs[paths],
            losses=self.losses[paths],
            rewards=self.rewards[paths],
            policy=self.policy.take_paths(paths),
        )

    def most_weighted_outputs(self, path_weights: tf.Tensor) -> tf.Tensor:
        """The output `[B, ...]` of each example's path of greatest weight.

        Args:
            path_weights: float32 `[K, B]`.
        """
        if path_weights.shape[0] == 1:
            return self.outputs[0]
        path = tf.argmax(path_weights, axis=0, output_type=tf.int32)  # [B]
        rows = tf.stack([path, tf.range(tf.shape(path)[0])], axis=-1)
        return tf.gather_nd(self.outputs, rows)


class Batch(NamedTuple):
    """What an estimator sees of the rows of all replicas.

    Attributes:
        losses: float32 `[K, B]`, the data losses.
        rewards: float32 `[K, B]`, without costs.
        policy: Policy of batch shape `[K, B]`.
        gamma: float32 `[B, k]`.
        context: float32 `[B, d]`.
        weights: float32 `[B]`, 1 where no sample weights are given.
        path_weights: float32 `[K, B]`, weight of each path in the logs.
    """

    losses: tf.Tensor
    rewards: tf.Tensor
    policy: Policy
    gamma: tf.Tensor
    context: tf.Tensor
    weights: tf.Tensor
    path_weights: tf.Tensor

    def over_paths(self, values: tf.Tensor) -> tf.Tensor:
        """The mean `[B]` of values `[K, B]` over paths, weighted."""
        return tf.reduce_sum(self.path_weights * values, axis=0)


def whole_batch(
    rows: Rows,
    composition: Composition,
    sample_weight: tf.Tensor | None,
    path_weights: tf.Tensor,
) -> Batch:
    """Joins the rows of all replicas.

    Args:
        rows: Rows of this replica, as are all arguments.
        composition: Result of the model that the rows were taken from.
        sample_weight: `[B]` or `[B, 1]`, if given.
        path_weights: float32 `[K, B]`.
    """
    batch = Batch(
        rows.losses,
        rows.rewards,
        rows.policy,
        composition.gamma,
        composition.context,
        example_weights(sample_weight, rows.losses[0]),
        path_weights,
    )
    if replicas.count() == 1:
        return batch

    def swap(tensor: tf.Tensor) -> tf.Tensor:
        return tf.transpose(tensor, [1, 0, 2])  # [K, B, ...] or [B, K, ...]

    numbers = tf.stack([batch.losses, batch.rewards, path_weights], axis=-1)
    by_path = [numbers, *rows.policy.logits, rows.policy.choices]
    *by_path, gamma, context, weights = replicas.gather(
        [*map(swap, by_path), batch.gamma, batch.context, batch.weights]
    )
    numbers, *logits, choices = map(swap, by_path)
    losses, rewards, path_weights = tf.unstack(numbers, num=3, axis=-1)
    policy = rows.policy._replace(logits=tuple(logits), choices=choices)
    return Batch(losses, rewards, policy, gamma, context, weights, path_weights)


def example_weights(
    sample_weight: tf.Tensor | None, values: tf.Tensor
) -> tf.Tensor:
    """Sample weights float32 `[B]` of values `[B]`, 1 where none are given."""
    if sample_weight is None:
        return tf.ones_like(values)
    return tf.reshape(tf.cast(sample_weight, tf.float32), tf.shape(values))
