"""The config of a run that takes seconds."""

from composer_tf.config import Config, DataConfig, EvaluationConfig
from composer_tf.models import WideMnist


def tiny_config(data_dir):
    return Config(
        data=DataConfig(
            "wide_mnist/digits", batch_size=500, data_dir=str(data_dir)
        ),
        model=WideMnist(small_units=4, large_units=8),
        evaluation=EvaluationConfig(
            num_gammas=3, num_mixtures=2, alone=("cheapest", "1")
        ),
        epochs=2,
    )
