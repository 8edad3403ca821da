"""Figure 3: modules of 1 : 2 : 3 parameters share the digits among them.

python -m composer_tf --config=configs/mnist_specialisation.py --workdir=DIR

About three minutes. `examples.png` has test digits in rows by the module of the
first metalayer.

A batch shares its gamma, so that only the images can spread it over the
modules, which is what the batch entropy preference asks for. It is weak enough
that both ends of gamma's range outbid it. Without prices and without a bound on
logits, as both cost specialisation: they guard against collapse, to which this
balanced range is not prone.
"""

from composer_tf.config import Config, DataConfig
from composer_tf.models import Mnist


def get_config() -> Config:
    """Returns the config of the run."""
    return Config(
        data=DataConfig(name="mnist", batch_size=128),
        model=Mnist(
            hidden_units=(8, 16, 24),
            num_metalayers=2,
            grid=14,
            max_gap=None,
            price_factor=0.0,
            glimpse=(-8.0, 12.0),
            glimpse_per="batch",
            batch_entropy=(0.6, 0.6),
        ),
        epochs=40,
        jit_compile=True,
        steps_per_execution=0,
    )
