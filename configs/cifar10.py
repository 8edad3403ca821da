"""Figure 4 on CIFAR-10: skip, depthwise, plain and residual convolutions.

python -m composer_tf --config=configs/cifar10.py --workdir=DIR

Two hours on two cores, half of them for the networks to compare with. Costs are
multiply-accumulates, gammas in accuracy per full cost. `routing.png` has the
modules of the first metalayer by class; `metrics.json` has their mutual
information with man-made and natural things (`group_information`).
"""

from composer_tf.config import (
    Config,
    DataConfig,
    EvaluationConfig,
    OptimizerConfig,
)
from composer_tf.models import Cifar10

MAN_MADE = (0, 1, 8, 9)  # Airplane, automobile, ship, truck.
NATURAL = (2, 3, 4, 5, 6, 7)  # Bird, cat, deer, dog, frog, horse.


def get_config() -> Config:
    """Returns the config of the run."""
    return Config(
        data=DataConfig(name="cifar10", batch_size=128, augment=True),
        model=Cifar10(dearest=6.0, cheapest=0.5, distillation=0.5),
        optimizer=OptimizerConfig(learning_rate=5e-3),
        evaluation=EvaluationConfig(
            alone=("cheapest", "2-1", "dearest"),
            early_exit=True,
            label_groups=(MAN_MADE, NATURAL),
        ),
        reward="accuracy",
        epochs=24,
        controller_epochs=16,
    )
