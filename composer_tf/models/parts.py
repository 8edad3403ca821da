"""Parts of a Composer as a config writes them."""

from typing import Literal

from composer_tf.preferences import (
    BatchEntropyPreference,
    Constant,
    EntropyPreference,
    GammaDistribution,
    GlimpsePreference,
    Preference,
    Uniform,
)
from composer_tf.sandwich import Sandwich

Range = tuple[float, float]


def preferences(
    glimpse: Range | None = None,
    batch_entropy: Range | None = None,
    entropy: Range | None = None,
) -> list[Preference]:
    """The preferences whose range is given, in this order.

    Args:
        glimpse: Lowest and highest gamma in training; equal ones make it a
            constant, which cannot be steered.
        batch_entropy: As `glimpse`.
        entropy: As `glimpse`.

    Example:
        >>> [p.name for p in preferences(glimpse=(-4, 6), entropy=(0.1, 0.1))]
        ['glimpse', 'entropy']
    """
    kinds = (
        (GlimpsePreference, glimpse),
        (BatchEntropyPreference, batch_entropy),
        (EntropyPreference, entropy),
    )
    return [
        kind(gamma=_distribution(*support))
        for kind, support in kinds
        if support is not None
    ]


def sandwich(
    weight: float,
    distillation: float,
    teacher: Literal["mean", "dearest"] = "mean",
) -> Sandwich | None:
    """The sandwich rule with equal weights of both ends; `None` for weight 0.

    Raises:
        ValueError: If there is distillation without it.
    """
    if weight == 0.0:
        if distillation:
            raise ValueError("`distillation` needs `sandwich` above 0, got 0.")
        return None
    return Sandwich(weight, weight, distillation, teacher)


def _distribution(low: float, high: float) -> GammaDistribution:
    return Constant(low) if low == high else Uniform(low, high)
