"""The settings that all ready Composers share."""

import dataclasses
import functools
from collections.abc import Sequence
from numbers import Real
from typing import Literal, cast

import keras

from composer_tf import validation
from composer_tf.composer import Composer
from composer_tf.costs import CostUnit
from composer_tf.layers import RNNController
from composer_tf.objectives.sandwich import Sandwich
from composer_tf.preferences import (
    BatchEntropyPreference,
    Constant,
    EntropyPreference,
    GammaDistribution,
    GlimpsePreference,
    Preference,
    Uniform,
)

Range = tuple[float, float]


@dataclasses.dataclass(kw_only=True)
class ComposerSettings:
    """Settings of how a Composer is steered and trained, for any modules.

    A preference is left out if its range is `None`, and is constant, so that it
    cannot be steered, if both ends of its range are equal. With gammas below 0,
    the glimpse preference rewards compute, so expensive modules see every kind
    of input.

    Attributes:
        controller_units: Size of the controller's hidden state.
        grid: Cells per spatial axis that the controller sees activations in.
        max_gap: Largest gap of a logit below the greatest, or `None`.
        price_factor: Gap in nats that gamma's prices put between logits, or 0.
        probe: Whether the controller guesses the answer before it chooses.
        glimpse: Range of the glimpse preference's gamma in training.
        glimpse_per: What draws such a gamma, an `"example"` or a `"batch"`.
        batch_entropy: Range of the batch entropy preference's gamma.
        entropy: Range of the unbatched entropy preference's gamma.
        costs: Unit of the glimpse preference: `"macs"` or `"parameters"`.
        estimator: Name of the gradient estimator.
        dearest: Weight of the dearest path's own loss, same as in `Sandwich`.
        cheapest: Weight of the cheapest path's own loss.
        random: Weight of a random path's own loss. With all three at 0,
            training is by plain policy gradients.
        distillation: Weight of the distillation loss; needs one of the three.
        teacher: Teacher of the distillation, `"mean"` or `"dearest"`.
    """

    controller_units: int = 32
    grid: int = 4
    max_gap: float | None = 4.0
    price_factor: float = 16.0
    probe: bool = False
    glimpse: Range | None = None
    glimpse_per: str = "example"
    batch_entropy: Range | None = None
    entropy: Range | None = None
    costs: str = "parameters"
    estimator: str = "reinforce"
    dearest: float = 0.0
    cheapest: float = 0.0
    random: float = 0.0
    distillation: float = 0.0
    teacher: str = "mean"

    def compose(
        self,
        stem: keras.layers.Layer,
        metalayers: Sequence[keras.layers.Layer],
        seed: int | None,
        name: str,
    ) -> Composer:
        """Makes a Composer of the layers, with these settings.

        Args:
            stem: Stem of the Composer.
            metalayers: Metalayers of the Composer.
            seed: Seed of its sampling.
            name: Name of the Composer.

        Raises:
            ValueError: If a setting is out of range, or there is distillation
                without a sandwich.
        """
        return Composer(
            metalayers,
            controller=RNNController(
                units=self.controller_units,
                grid=self.grid,
                max_gap=self.max_gap,
                price_factor=self.price_factor,
                probe=self.probe,
                name="controller",
            ),
            preferences=self._preferences(),
            stem=stem,
            estimator=self.estimator,
            sandwich=self._sandwich(),
            costs=cast(CostUnit, self.costs),
            seed=seed,
            name=name,
        )

    def _preferences(self) -> list[Preference]:
        glimpse = functools.partial(
            GlimpsePreference,
            per=cast(Literal["example", "batch"], self.glimpse_per),
        )
        kinds = (
            ("glimpse", glimpse),
            ("batch_entropy", BatchEntropyPreference),
            ("entropy", EntropyPreference),
        )
        return [
            kind(gamma=_distribution(name, getattr(self, name)))
            for name, kind in kinds
            if getattr(self, name) is not None
        ]

    def _sandwich(self) -> Sandwich | None:
        validation.check_choice("teacher", self.teacher, ("mean", "dearest"))
        if not any((self.dearest, self.cheapest, self.random)):
            if self.distillation:
                raise ValueError(
                    "`distillation` needs `dearest`, `cheapest` or `random` "
                    "above 0."
                )
            return None
        return Sandwich(
            self.dearest,
            self.cheapest,
            self.distillation,
            cast(Literal["mean", "dearest"], self.teacher),
            random=self.random,
        )


def _distribution(name: str, support: Range) -> GammaDistribution:
    if len(support) != 2 or not all(isinstance(x, Real) for x in support):
        raise ValueError(
            f"`{name}` must be two numbers, such as (-4.0, 6.0), got {support}."
        )
    low, high = support
    return Constant(low) if low == high else Uniform(low, high)
