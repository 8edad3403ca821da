"""Figure 2 on MNIST: 20 classes, two modules, in about three minutes.

python -m composer_tf --config=configs/wide_mnist.py --workdir=DIR

Both modules learn from every image and from each other, beside what REINFORCE
sends them (`ct.Sandwich`); `wide_mnist_ablation.py` shows what that brings. Add
`--config.num_seeds=5` for the table of `results/`.
"""

from composer_tf.config import (
    Config,
    DataConfig,
    EvaluationConfig,
    OptimizerConfig,
)
from composer_tf.models import WideMnist


def get_config() -> Config:
    """Returns the config of the run."""
    return Config(
        data=DataConfig(name="wide_mnist/mnist", batch_size=128),
        model=WideMnist(
            small_units=84,
            large_units=320,
            dearest=1.0,
            cheapest=1.0,
            distillation=1.0,
        ),
        optimizer=OptimizerConfig(learning_rate=1e-3),
        evaluation=EvaluationConfig(alone=("cheapest", "dearest")),
        epochs=20,
        jit_compile=True,
        steps_per_execution=32,
    )
