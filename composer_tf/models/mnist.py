"""Dense Composers for MNIST: Figures 3, 5 and 6."""

import dataclasses

import keras

from composer_tf.composer import Composer
from composer_tf.layers import Metalayer
from composer_tf.models.settings import ComposerSettings

NUM_CLASSES = 10


@dataclasses.dataclass(kw_only=True)
class Mnist(ComposerSettings):
    """Metalayers of modules with one hidden layer each.

    Attributes:
        hidden_units: Hidden units of each module of a metalayer; the numbers of
            parameters of modules have about this ratio.
        num_metalayers: Number of metalayers n, int >= 1.
        features: Size of the activations between metalayers.
    """

    hidden_units: tuple[int, ...] = (8, 8, 8, 8)
    num_metalayers: int = 1
    features: int = 32
    grid: int = 7

    def build(self, seed: int | None = None) -> Composer:
        """Makes the Composer, without compiling it.

        Args:
            seed: Seed of its sampling; `keras.utils.set_random_seed` governs
                the initial weights.
        """
        return self.compose(
            stem=keras.layers.Rescaling(1.0 / 255.0, name="stem"),
            metalayers=[self._metalayer(i) for i in range(self.num_metalayers)],
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
