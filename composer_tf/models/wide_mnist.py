"""The Composer of Figure 2: a small module that sees half of the image."""

import dataclasses
from typing import Literal

import keras

from composer_tf.composer import Composer
from composer_tf.layers import Glimpse, Metalayer, RNNController
from composer_tf.models.parts import sandwich
from composer_tf.preferences import (
    BatchEntropyPreference,
    GlimpsePreference,
    Uniform,
)

NUM_CLASSES = 20


@dataclasses.dataclass
class WideMnist:
    """Two modules: a small one for the left half, a large one for all.

    Attributes:
        small_units: Hidden units of the small module, which glimpses the left
            28x28 only.
        large_units: Hidden units of the large module, which sees 28x56.
        controller_units: Size of the controller's hidden state.
        grid: Cells per axis that the controller sees the image in.
        gamma_low: Lowest glimpse preference in training. Below 0, compute is
            rewarded, so the large module is trained on every kind of input.
        gamma_high: Highest glimpse preference in training.
        batch_entropy: The constant batch entropy preference.
        bounding: Of the controller's logits.
        estimator: Name of the gradient estimator.
        sandwich: Weight of the dearest and the cheapest path's own losses; 0
            for plain policy gradients.
        distillation: Weight of what the paths learn from each other; needs
            `sandwich`.
    """

    small_units: int = 64
    large_units: int = 256
    controller_units: int = 16
    grid: int = 4
    gamma_low: float = -4.0
    gamma_high: float = 6.0
    batch_entropy: float = 0.1
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
        layers = keras.layers
        small = keras.Sequential(
            [
                Glimpse(width=28),
                layers.Flatten(),
                layers.Dense(self.small_units, "relu"),
                layers.Dense(NUM_CLASSES),
            ],
            name="small",
        )
        large = keras.Sequential(
            [
                layers.Flatten(),
                layers.Dense(self.large_units, "relu"),
                layers.Dense(NUM_CLASSES),
            ],
            name="large",
        )
        gamma = Uniform(self.gamma_low, self.gamma_high)
        return Composer(
            stem=layers.Rescaling(1.0 / 255.0, name="stem"),
            metalayers=[Metalayer([small, large], name="glimpse")],
            controller=RNNController(
                units=self.controller_units,
                grid=self.grid,
                bounding=self.bounding,
                name="controller",
            ),
            preferences=[
                GlimpsePreference(gamma),
                BatchEntropyPreference(self.batch_entropy),
            ],
            estimator=self.estimator,
            sandwich=sandwich(self.sandwich, self.distillation),
            seed=seed,
            name="wide_mnist",
        )
