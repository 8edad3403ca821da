"""The Composer of Figure 2: a small module that sees half of the image."""

import dataclasses

import keras

from composer_tf.composer import Composer
from composer_tf.layers import Glimpse, Metalayer
from composer_tf.models.settings import ComposerSettings, Range

NUM_CLASSES = 20


@dataclasses.dataclass(kw_only=True)
class WideMnist(ComposerSettings):
    """Two modules: a small one for the left half, a large one for the whole.

    Attributes:
        small_units: Hidden units of the small module, which glimpses the left
            28x28 only.
        large_units: Hidden units of the large module, which sees 28x56.
    """

    small_units: int = 64
    large_units: int = 256
    controller_units: int = 16
    glimpse: Range | None = (-4.0, 6.0)
    batch_entropy: Range | None = (0.1, 0.1)

    def build(self, seed: int | None = None) -> Composer:
        """Makes the Composer, without compiling it.

        Args:
            seed: Seed of its sampling; `keras.utils.set_random_seed` governs
                the initial weights.
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
        return self.compose(
            stem=layers.Rescaling(1.0 / 255.0, name="stem"),
            metalayers=[Metalayer([small, large], name="glimpse")],
            seed=seed,
            name="wide_mnist",
        )
