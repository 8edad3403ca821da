"""Figure 5: the batch entropy preference against the ordinary entropy penalty.

python -m composer_tf --config=configs/entropy_ablation.py --workdir=DIR

One metalayer of four equal modules, a constant preference, 100,000 steps, five
seeds of each variant: about two hours on two cores. `unbatched` has the penalty
at the strength of `batch`, `unbatched_weak` at a tenth, which suits it better.
The gradient is exact, which with one metalayer costs no more than a sample. As
in the paper logits have no bound: with one, each module sees some of every kind
of digit, and the preferences have less to part.
"""

from composer_tf.config import Config, DataConfig, EvaluationConfig
from composer_tf.models import Mnist


def get_config() -> Config:
    """Returns the config of the runs."""
    return Config(
        data=DataConfig(name="mnist", batch_size=64, passes=5),
        model=Mnist(
            hidden_units=(8, 8, 8, 8),
            controller_units=64,
            grid=28,
            max_gap=None,
            estimator="exact",
        ),
        evaluation=EvaluationConfig(preference=""),
        epochs=24,
        jit_compile=True,
        steps_per_execution=0,
        num_seeds=5,
        variants={
            "batch": {
                "model.batch_entropy": (1.0, 1.0),
                "evaluation.alone": ("cheapest",),
            },
            "unbatched_weak": {"model.entropy": (0.1, 0.1)},
            "unbatched": {"model.entropy": (1.0, 1.0)},
        },
    )
