"""What the Composer of CIFAR-10 owes to each part of its training.

python -m composer_tf --config=configs/cifar10_ablation.py --workdir=DIR

`whole` is `cifar10.py` for six epochs, and three of the controller anew, which
`joint_only` leaves out. `log_probability` has the paper's reward, with gammas
in nats; `without_probe` leaves the controller to average activations;
`wide_range` samples gammas mostly from where nothing changes; `equal_weights`
trains the dearest path no more than the cheapest, and without distillation.
"""

from composer_tf.config import (
    Config,
    DataConfig,
    EvaluationConfig,
    OptimizerConfig,
)
from composer_tf.models import Cifar10


def get_config() -> Config:
    """Returns the config of the runs."""
    return Config(
        data=DataConfig(name="cifar10", batch_size=128, augment=True),
        model=Cifar10(dearest=6.0, cheapest=0.5, distillation=0.5),
        optimizer=OptimizerConfig(learning_rate=5e-3),
        evaluation=EvaluationConfig(),
        reward="accuracy",
        epochs=6,
        controller_epochs=3,
        variants={
            "whole": {},
            "joint_only": {"controller_epochs": 0},
            "log_probability": {
                "reward": "log_probability",
                "model.glimpse": (-0.2, 1.0),
            },
            "without_probe": {"model.probe": False},
            "wide_range": {"model.glimpse": (-1.0, 4.0)},
            "equal_weights": {
                "model.dearest": 1.0,
                "model.cheapest": 1.0,
                "model.distillation": 0.0,
            },
        },
    )
