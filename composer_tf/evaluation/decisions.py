"""What a Composer decided on a data set; all other measures use this."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from composer_tf import validation
from composer_tf.composer import Composer
from composer_tf.composer.inputs import without_gamma
from composer_tf.objectives import losses

LabelledData = tf.data.Dataset | tuple[Any, Any]

_BATCH_SIZE = 128


class Decisions(NamedTuple):
    """The decisions on N examples, in the order of the data.

    Attributes:
        labels: int64 `[N]`.
        correct: bool `[N]`, whether the likeliest class is the label.
        cost: float32 `[N]`, fraction of full cost, overhead included.
        entropy: float32 `[N]`, entropy of the policy, in nats.
        choices: int32 `[N, n]`, the module taken at each metalayer.
        probabilities: n arrays, the i-th float32 `[N, m_i]`: the policy.
    """

    labels: np.ndarray
    correct: np.ndarray
    cost: np.ndarray
    entropy: np.ndarray
    choices: np.ndarray
    probabilities: tuple[np.ndarray, ...]


class Recorder:
    """Runs a model over a data set, compiled once for any gamma and path.

    Args:
        model: Classifier whose outputs are `[batch, classes]`, or `[batch, 1]`
            if it was compiled with binary cross-entropy.
        data: Batches of (inputs, integer labels), or one such pair of arrays.
            Sample weights are ignored, and examples whose label is the loss's
            `ignore_class` are left out.

    Raises:
        ValueError: If the data can be read only once.
    """

    def __init__(self, model: Composer, data: LabelledData) -> None:
        self._model = model
        self._data = batched(data)
        if not model.built:
            inputs, _ = _unpack(next(iter(self._data)))
            model(inputs)
        self._run = tf.function(
            self._batch, autograph=False, reduce_retracing=True
        )

    def at(self, gamma: Mapping[str, float] | float | None = None) -> Decisions:
        """The decisions at a given gamma.

        Args:
            gamma: Preference name to gamma, or a number if there is only one
                preference. Preferences that are left out keep their defaults.

        Raises:
            ValueError: If labels are missing or not integers, one for each
                example, or the outputs are not `[batch, classes]`.
        """
        parsed = None if gamma is None else self._model.preferences.parse(gamma)
        return self._record(parsed, lambda size: None)

    def forced(self, choose: Callable[[int], np.ndarray]) -> Decisions:
        """The decisions along forced paths.

        Args:
            choose: Function that maps a batch size B to paths, int32 `[B, n]`.
        """
        return self._record(None, lambda size: tf.constant(choose(size)))

    def _record(self, gamma: Any, choose: Callable[[int], Any]) -> Decisions:
        parts: list[tuple[np.ndarray, ...]] = []
        probabilities: list[list[np.ndarray]] = []
        for batch_of_data in self._data:
            inputs, labels = _unpack(batch_of_data)
            rows = len(keras.tree.flatten(without_gamma(inputs))[0])
            labels = tf.constant(validation.label_vector(labels, rows))
            *batch, probs = self._run(inputs, labels, gamma, choose(rows))
            num_classes = max(2, self._model.output_row_shape[-1] or 0)
            losses.check_labels(self._model.loss, labels, (num_classes,))
            known = losses.is_known(self._model.loss, labels.numpy())
            parts.append(tuple(tensor.numpy()[known] for tensor in batch))
            probabilities.append([p.numpy()[known] for p in probs])
        columns = [np.concatenate(c) for c in zip(*parts, strict=True)]
        by_step = zip(*probabilities, strict=True)
        return Decisions(
            *columns, probabilities=tuple(np.concatenate(p) for p in by_step)
        )

    def _batch(self, inputs, labels, gamma, choices):
        composition = self._model(
            inputs,
            gamma=gamma,
            choices=choices,
            decision="mode",
            training=False,
            return_composition=True,
        )
        policy = composition.policy
        return (
            labels,
            self._classes(composition.outputs) == labels,
            composition.cost,
            policy.entropy,
            policy.choices,
            policy.probabilities,
        )

    def _classes(self, outputs: tf.Tensor) -> tf.Tensor:
        """The likeliest class of each example, int64 `[B]`."""
        _, *row_shape = outputs.shape
        if len(row_shape) == 1 and row_shape != [1]:
            return tf.argmax(outputs, axis=-1)
        answers = losses.predictions(self._model.loss, outputs)
        if row_shape != [1] or "probabilities" not in answers:
            raise ValueError(
                "An accuracy needs outputs [batch, classes], or [batch, 1] of "
                f"a model trained by binary cross-entropy, got {outputs.shape} "
                f"and the loss {self._model.loss!r}."
            )
        return tf.cast(answers["probabilities"][:, 0] > 0.5, tf.int64)


def _unpack(batch: Any) -> tuple[Any, Any]:
    """Inputs and labels of a batch."""
    inputs, labels, _ = keras.utils.unpack_x_y_sample_weight(batch)
    if labels is None:
        raise ValueError(
            "`data` must be batches of (inputs, labels), got inputs only."
        )
    return inputs, labels


def batched(data: LabelledData) -> tf.data.Dataset:
    """Batches of the data; a `tf.data.Dataset` is batched already."""
    validation.check_rereadable(data)
    if not isinstance(data, tuple):
        return data
    return tf.data.Dataset.from_tensor_slices(data).batch(_BATCH_SIZE)
