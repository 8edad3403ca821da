"""The sandwich rule: the ends of the curve are trained on every example."""

from collections.abc import Sequence
from typing import Any, Literal, Self

import keras
import tensorflow as tf

from composer_tf import validation
from composer_tf.policy import UNIFORM


@keras.saving.register_keras_serializable(package="composer_tf")
class Sandwich:
    """Trains the ends of the curve, and what lies between, on every example.

    REINFORCE trains a module on the examples that the policy sends to it. With
    the sandwich rule the two ends of the curve see every example, so that the
    controller compares paths that are as good as they get. A third path, drawn
    uniformly for each example, does the same for what lies between: else a
    policy that settled on the two ends would never find out how good the paths
    between them could be. All this adds the cost of these paths to a training
    step, and nothing to inference. The policy's reward stays what it is.

    Distillation has the paths learn from each other: the teacher is the mean of
    what the two ends predict, or the dearest path alone, and all paths that ran
    are its students.

    Args:
        dearest: Weight of the dearest path's loss, float >= 0. Defaults to 1.
        cheapest: Weight of the cheapest path's loss, float >= 0. Defaults to 1.
        distillation: Weight of the distillation loss, float >= 0. It needs a
            classifier trained on logits; both ends run then. Defaults to 0.
        teacher: `"mean"` (default) or `"dearest"`; the mean is for a cheapest
            path that is worth listening to.
        temperature: That divides the logits of teacher and students, float > 0.
            Defaults to 2.
        random: Weight of a random path's loss, float >= 0. Defaults to 0, where
            there is none.

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
        """What is added to the surrogate loss of each example.

        Args:
            data_losses: Of each of `paths`, float32 `[B]`.
            outputs: Of each, `[B, ...]`; logits if there is distillation.
            sampled: Outputs of the paths that the policy sampled,
                `[K, B, ...]`.

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

        With distillation both ends do, as they teach.
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
    """Of `[B, ..., classes]`, a mean over all axes between, float32 `[B]`."""
    per_label = -tf.reduce_sum(targets * log_probs, axis=-1)  # [B, ...]
    return tf.reduce_mean(per_label, axis=range(1, per_label.shape.rank))
