"""The sandwich rule: both ends of the curve train on every example."""

from collections.abc import Sequence
from typing import Any, Literal, Self

import keras
import tensorflow as tf

from composer_tf import validation
from composer_tf.policy import UNIFORM


@keras.saving.register_keras_serializable(package="composer_tf")
class Sandwich:
    """Trains the ends of the curve, and paths between, on every example.

    REINFORCE trains a module on the examples that the policy sends to it. With
    the sandwich rule the two ends of the curve, the dearest and the cheapest
    path, see every example, so the controller compares paths that are as good
    as they get. A third path, drawn uniformly for each example, does the same
    for the paths between: otherwise a policy that settled on the two ends would
    never find out how good those could be. These paths add their cost to a
    training step and nothing to inference. The policy's reward is unchanged.

    With distillation the paths learn from each other: the teacher is the mean
    of what the two ends predict, or the dearest path alone, and all paths that
    ran are its students.

    Args:
        dearest: Weight of the dearest path's loss, float >= 0. Defaults to 1.
        cheapest: Weight of the cheapest path's loss, float >= 0. Defaults to 1.
        distillation: Weight of the distillation loss, float >= 0. Above 0 it
            needs a classifier trained on logits, and both ends run. Defaults
            to 0.
        teacher: `"mean"` (default) or `"dearest"`. The mean suits a cheapest
            path that is good enough to teach.
        temperature: Divisor of the logits of teacher and students, float > 0.
            Defaults to 2.
        random: Weight of a random path's loss, float >= 0. Defaults to 0, which
            runs no such path.

    Raises:
        ValueError: If an argument is out of range, or all weights are 0.

    References:
        Yu and Huang (2019), Universally slimmable networks and improved
        training techniques. Hinton, Vinyals and Dean (2015), Distilling the
        knowledge in a neural network. Zhang et al. (2018), Deep mutual
        learning.

    Example:
        >>> Sandwich(distillation=0.5).get_config()["distillation"]
        0.5
    """

    def __init__(
        self,
        dearest: float = 1.0,
        cheapest: float = 1.0,
        distillation: float = 0.0,
        teacher: Literal["mean", "dearest"] = "mean",
        temperature: float = 2.0,
        random: float = 0.0,
    ) -> None:
        for name, weight in (
            ("dearest", dearest),
            ("cheapest", cheapest),
            ("distillation", distillation),
            ("random", random),
        ):
            if not 0.0 <= weight < float("inf"):
                raise ValueError(
                    f"`{name}` must be finite and at least 0, got {weight}."
                )
        if not any((dearest, cheapest, distillation, random)):
            raise ValueError(
                "Of `dearest`, `cheapest`, `distillation` and `random` one "
                "must be above 0."
            )
        validation.check_choice("teacher", teacher, ("mean", "dearest"))
        if not 0.0 < temperature < float("inf"):
            raise ValueError(
                f"`temperature` must be finite and above 0, got {temperature}."
            )
        self.dearest = float(dearest)
        self.cheapest = float(cheapest)
        self.distillation = float(distillation)
        self.teacher = teacher
        self.temperature = float(temperature)
        self.random = float(random)

    @property
    def runs_both_ends(self) -> bool:
        """Whether the dearest and the cheapest path are both run."""
        return bool(self.distillation or (self.dearest and self.cheapest))

    def paths(
        self, dearest: Sequence[int], cheapest: Sequence[int]
    ) -> list[Sequence[int]]:
        """The paths that every example takes, n modules each."""
        uniform = [UNIFORM] * len(dearest)
        return self._in_use([dearest, cheapest, uniform])

    def loss(
        self,
        data_losses: Sequence[tf.Tensor],
        outputs: Sequence[tf.Tensor],
        sampled: tf.Tensor,
    ) -> tf.Tensor:
        """The loss that is added to the surrogate loss of each example.

        Args:
            data_losses: float32 `[B]` for each of `paths`, its data loss.
            outputs: `[B, ...]` for each of `paths`; logits if there is
                distillation.
            sampled: `[K, B, ...]`, outputs of the paths that the policy
                sampled.

        Returns:
            float32 `[B]`.
        """
        weights = self._in_use([self.dearest, self.cheapest, self.random])
        total = tf.add_n(
            [w * loss for w, loss in zip(weights, data_losses, strict=True)]
        )
        if not self.distillation:
            return total
        softened = [self._soften(logits) for logits in outputs]
        taught_by = softened[: 2 if self.teacher == "mean" else 1]
        targets = tf.add_n([tf.exp(end) for end in taught_by]) / len(taught_by)
        targets = tf.stop_gradient(targets)  # [B, classes]
        students = softened if self.teacher == "mean" else softened[1:]
        cross_entropies = [
            _cross_entropy(targets, student) for student in students
        ]
        of_paths = [
            _cross_entropy(targets, self._soften(path))
            for path in tf.unstack(sampled)
        ]
        cross_entropies.append(tf.add_n(of_paths) / len(of_paths))
        scale = self.distillation * self.temperature**2
        return total + scale * tf.add_n(cross_entropies)

    def _in_use(self, values: Sequence[Any]) -> list[Any]:
        """Of the values for dearest, cheapest and random path, those that run.

        With distillation both ends run.
        """
        weights = (
            self.dearest or self.distillation,
            self.cheapest or self.distillation,
            self.random,
        )
        return [v for v, weight in zip(values, weights, strict=True) if weight]

    def _soften(self, logits: tf.Tensor) -> tf.Tensor:
        """Log probabilities at the temperature."""
        return tf.nn.log_softmax(tf.cast(logits, tf.float32) / self.temperature)

    def get_config(self) -> dict[str, Any]:
        return {
            "dearest": self.dearest,
            "cheapest": self.cheapest,
            "distillation": self.distillation,
            "teacher": self.teacher,
            "temperature": self.temperature,
            "random": self.random,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return cls(**config)


def _cross_entropy(targets: tf.Tensor, log_probs: tf.Tensor) -> tf.Tensor:
    """Cross-entropy of `[B, ..., classes]`, averaged to float32 `[B]`."""
    per_label = -tf.reduce_sum(targets * log_probs, axis=-1)  # [B, ...]
    return tf.reduce_mean(per_label, axis=range(1, per_label.shape.rank))
