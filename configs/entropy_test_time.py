"""Figure 6: the entropy of the routing, changed at test time.

python -m composer_tf --config=configs/entropy_test_time.py --workdir=DIR

One metalayer of four equal modules, trained with the unbatched entropy
preference sampled, and a constant batch entropy preference, so that all
modules stay in use at its sharp end. About two minutes. `routing.png` has the
heatmaps along gamma, `entropy.png` the entropy against it.
"""

from composer_tf.config import Config, DataConfig, EvaluationConfig
from composer_tf.models import Mnist


def get_config() -> Config:
    """Returns the config of the run."""
    return Config(
        data=DataConfig(name="mnist", batch_size=128),
        model=Mnist(
            hidden_units=(8, 8, 8, 8),
            grid=14,
            entropy=(-1.0, 1.0),
            batch_entropy=(1.0, 1.0),
        ),
        evaluation=EvaluationConfig(preference="entropy"),
        epochs=40,
        jit_compile=True,
        steps_per_execution=0,
    )
