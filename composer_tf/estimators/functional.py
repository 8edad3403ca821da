"""Policy gradients as pure functions of tensors (appendix A).

Losses here are surrogates: their gradient is minus the estimate of equation
(11). `...` is empty, or `[K]` where every example takes K paths.
"""

import tensorflow as tf


def reinforce_loss(
    losses: tf.Tensor,
    costs: tf.Tensor,
    advantages: tf.Tensor,
    log_probs: tf.Tensor,
) -> tf.Tensor:
    """REINFORCE with the direct term: minus equation (11), per example.

    loss - C - stop_gradient(advantage) * log p(c|x)

    Args:
        losses: float32 `[..., B]`, -log p(y|x,c), differentiable in the
            modules.
        costs: float32 `[..., B]`, C(p, c, gamma), differentiable in p.
        advantages: float32 `[..., B]`, log p(y|x,c) + C minus a baseline.
        log_probs: float32 `[..., B]`, log p(c|x).

    Returns:
        float32 `[..., B]`.

    References:
        Williams (1992), Simple statistical gradient-following algorithms for
        connectionist reinforcement learning.
    """
    return losses - costs - tf.stop_gradient(advantages) * log_probs


def exact_loss(
    losses: tf.Tensor,
    expected_costs: tf.Tensor,
    log_probs: tf.Tensor,
    rewards: tf.Tensor | None = None,
) -> tf.Tensor:
    """Minus the objective (10) itself, summed over every path.

    Args:
        losses: float32 `[P, B]`, -log p(y|x,c) of each of the P paths.
        expected_costs: float32 `[B]`, E_c[C(p, c, gamma)].
        log_probs: float32 `[P, B]`, log p(c|x) of each path.
        rewards: float32 `[P, B]`, what the policy maximizes in place of minus
            the losses, which then train only the modules.

    Returns:
        float32 `[B]`.
    """
    if rewards is not None:
        probs = tf.exp(log_probs)
        of_modules = tf.stop_gradient(probs) * losses
        of_policy = -probs * tf.stop_gradient(rewards)
        return tf.reduce_sum(of_modules + of_policy, axis=0) - expected_costs
    return tf.reduce_sum(tf.exp(log_probs) * losses, axis=0) - expected_costs


def mean_of_others(rewards: tf.Tensor, axis: int) -> tf.Tensor:
    """The mean of the other entries along an axis; 0 if there are none.

    As a baseline it does not depend on the entry's own choices, so it keeps
    the gradient unbiased. Along the batch it is the batch-mean baseline; along
    K samples of an example it is leave-one-out.

    Args:
        rewards: float32, any shape.
        axis: Axis to average along.

    Returns:
        float32, same shape.

    References:
        Kool, van Hoof and Welling (2019), Buy 4 REINFORCE samples, get a
        baseline for free!

    Example:
        >>> rewards = tf.constant([1.0, 2.0, 6.0])
        >>> mean_of_others(rewards, axis=0).numpy().tolist()
        [4.0, 3.5, 1.5]
    """
    others = tf.cast(tf.shape(rewards)[axis] - 1, tf.float32)
    total = tf.reduce_sum(rewards, axis=axis, keepdims=True)
    return (total - rewards) / tf.maximum(others, 1.0) * tf.sign(others)
