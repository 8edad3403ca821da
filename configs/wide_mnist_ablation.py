"""What the sandwich rule brings on Figure 2's task, one variant for each part.

python -m composer_tf --config=configs/wide_mnist_ablation.py --workdir=DIR

`plain` is REINFORCE alone, `sandwich` also trains both modules on every image;
`wide_mnist.py` has them learn from each other too. About half an hour.
"""

from composer_tf.config import (
    Config,
    DataConfig,
    EvaluationConfig,
    OptimizerConfig,
)
from composer_tf.models import WideMnist


def get_config() -> Config:
    """Returns the config of the runs."""
    return Config(
        data=DataConfig(name="wide_mnist/mnist", batch_size=128),
        model=WideMnist(small_units=84, large_units=320),
        optimizer=OptimizerConfig(learning_rate=1e-3),
        evaluation=EvaluationConfig(),
        epochs=20,
        jit_compile=True,
        steps_per_execution=32,
        num_seeds=5,
        variants={
            "plain": {},
            "sandwich": {"model.dearest": 1.0, "model.cheapest": 1.0},
        },
    )
