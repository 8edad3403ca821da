"""Figure 3: modules of 1 : 2 : 3 parameters share the digits among them.

python -m composer_tf --config=configs/mnist_specialisation.py --workdir=DIR

About three minutes. `examples.png` has test digits in rows by the module of the
first metalayer.

Without prices, as these spread a batch over the modules by gamma alone, which
is all that the batch entropy preference asks for; and without a bound on
logits, as that costs specialisation too. Both guard against collapse, to which
this balanced range of gamma is not prone.
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
            glimpse=(-4.0, 8.0),
            batch_entropy=(1.0, 1.0),
        ),
        epochs=40,
        jit_compile=True,
        steps_per_execution=0,
    )
