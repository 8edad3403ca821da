"""Dense Composers for MNIST: Figures 3, 5 and 6."""

import dataclasses
from typing import Literal

import keras

from composer_tf.composer import Composer
from composer_tf.layers import Metalayer, RNNController
from composer_tf.models.parts import Range, preferences, sandwich

NUM_CLASSES = 10


@dataclasses.dataclass
class Mnist:
    """Metalayers of modules with one hidden layer each.

    Attributes:
        hidden_units: Of the modules of each metalayer; the parameters of
            modules stand in this ratio.
        num_metalayers: n, int >= 1.
        features: Size of the activations between metalayers.
        controller_units: Size of the controller's hidden state.
        grid: Cells per axis that the controller sees the image in.
        glimpse: Range of the glimpse preference in training, or `None`.
        batch_entropy: Range of the batch entropy preference, or `None`.
        entropy: Range of the unbatched entropy preference, or `None`.
        max_logit: Bound of the controller's logits.
        bounding: How they are bounded.
        estimator: Name of the gradient estimator.
        sandwich: Weight of the dearest and the cheapest path's own losses; 0
            for plain policy gradients.
        distillation: Weight of what the paths learn from each other; needs
            `sandwich`.
    """

    hidden_units: tuple[int, ...] = (8, 8, 8, 8)
    num_metalayers: int = 1
    features: int = 32
    controller_units: int = 32
    grid: int = 7
    glimpse: Range | None = None
    batch_entropy: Range | None = None
    entropy: Range | None = None
    max_logit: float | None = 2.0
    bounding: Literal["clip", "tanh"] = "tanh"
    estimator: str = "reinforce"
    sandwich: float = 0.0
    distillation: float = 0.0

    def build(self, seed: int | None = None) -> Composer:
        """Makes the Composer, not compiled.

        Args:
            seed: Of its sampling; `keras.utils.set_random_seed` governs the
                initial weights.
        """
        return Composer(
            stem=keras.layers.Rescaling(1.0 / 255.0, name="stem"),
            metalayers=[self._metalayer(i) for i in range(self.num_metalayers)],
            controller=RNNController(
                units=self.controller_units,
                grid=self.grid,
                max_logit=self.max_logit,
                bounding=self.bounding,
                name="controller",
            ),
            preferences=preferences(
                self.glimpse, self.batch_entropy, self.entropy
            ),
            estimator=self.estimator,
            sandwich=sandwich(self.sandwich, self.distillation),
            seed=seed,
            name="mnist",
        )

    def _metalayer(self, index: int) -> Metalayer:
        layers = keras.layers
        is_last = index == self.num_metalayers - 1
        return Metalayer(
            [
                keras.Sequential(
                    [
                        layers.Flatten(),
                        layers.Dense(units, "relu"),
                        layers.Dense(NUM_CLASSES)
                        if is_last
                        else layers.Dense(self.features, "relu"),
                    ],
                    name=f"module_{j}",
                )
                for j, units in enumerate(self.hidden_units)
            ],
            name=f"metalayer_{index}",
        )
