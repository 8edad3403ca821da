"""What it brings that logits start from gamma's prices: cost along gamma.

python -m composer_tf --config=configs/price_ablation.py --workdir=DIR

Figure 3's modules, with gammas that favour cheap ones most of the time. Two
things then keep a policy on the cheap path for all gammas: that it has to learn
what gamma does (`unpriced`), and that modules which it seldom chooses stay bad
(`without_sandwich`). About half an hour.
"""

from composer_tf.config import Config, DataConfig
from composer_tf.models import Mnist


def get_config() -> Config:
    """Returns the config of the runs."""
    return Config(
        data=DataConfig(name="mnist", batch_size=128),
        model=Mnist(
            hidden_units=(8, 16, 24),
            num_metalayers=2,
            grid=14,
            glimpse=(-1.0, 10.0),
            dearest=1.0,
            cheapest=1.0,
        ),
        epochs=10,
        jit_compile=True,
        steps_per_execution=0,
        num_seeds=5,
        variants={
            "both": {},
            "unpriced": {"model.price_factor": 0.0},
            "without_sandwich": {"model.dearest": 0.0, "model.cheapest": 0.0},
        },
    )
