"""How well each estimator trains, over seeds.

python benchmarks/estimator_training.py [--seeds=5] [--output=FILE.json]

Trains the Composer of configs/wide_mnist_digits.py with each estimator and
prints, as mean and standard deviation over the seeds, what training maximises:
the objective (10), log p plus cost, averaged over the support of gamma, on the
test split; and the accuracy at the cheapest, at 0.6 of full cost and at best.
"""

import json
import pathlib
import statistics
from typing import Any

import keras
from absl import app, flags

import composer_tf as ct
from composer_tf import datasets, evaluation, models

_SEEDS = flags.DEFINE_integer("seeds", 5, "Trainings of each estimator.")
_EPOCHS = flags.DEFINE_integer("epochs", 20, "Of ten passes each.")
_OUTPUT = flags.DEFINE_string("output", None, "JSON file to write.")

_ESTIMATORS = {
    "none": lambda: ct.Reinforce("none"),
    "batch_mean": lambda: ct.Reinforce("batch_mean"),
    "moving_average": lambda: ct.Reinforce("moving_average"),
    "learned": lambda: ct.Reinforce("learned"),
    "leave_one_out of 4": lambda: ct.LeaveOneOut(4),
    "exact": ct.Exact,
}


def train(estimator: ct.Estimator, seed: int) -> dict[str, float]:
    """Trains one model and measures it on the test split."""
    train_data, test = datasets.load(
        "wide_mnist/digits",
        batch_size=128,
        shuffle=datasets.EpochShuffle(seed),
        passes=10,
    )
    keras.utils.set_random_seed(seed)
    config = models.WideMnist().build(seed=seed).get_config()
    config["estimator"] = keras.saving.serialize_keras_object(estimator)
    model = ct.Composer.from_config(config)
    steps = _EPOCHS.value * len(train_data)
    rate: Any = keras.optimizers.schedules.CosineDecay(1e-3, steps)
    model.compile(
        keras.optimizers.Adam(rate),
        metrics=["accuracy"],
        jit_compile=True,
        steps_per_execution=len(train_data),
    )
    model.fit(train_data, epochs=_EPOCHS.value, verbose=0)
    gammas = evaluation.gamma_grid(model, "glimpse", 17)
    rewards = [
        model.evaluate(
            test,
            gamma=gamma,
            decision="sample",
            verbose=0,
            return_dict=True,
        )["reward"]
        for gamma in gammas
    ]
    curve = evaluation.evaluate_tradeoff(model, test, gammas)
    return {
        "objective": statistics.mean(rewards),
        "cheapest_cost": min(point.cost for point in curve),
        "cheapest": min(curve, key=lambda point: point.cost).accuracy,
        "at_0.6": evaluation.accuracy_at_cost(curve, 0.6) or float("nan"),
        "best": max(point.accuracy for point in curve),
    }


def main(argv: list[str]) -> None:
    """Trains, prints a table and writes the JSON."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}.")
    results = {}
    for name, make in _ESTIMATORS.items():
        runs = [train(make(), seed) for seed in range(_SEEDS.value)]
        results[name] = {
            key: {
                "mean": statistics.mean(run[key] for run in runs),
                "std": statistics.stdev(run[key] for run in runs),
            }
            for key in runs[0]
        }
        row = "".join(
            f"  {key} {value['mean']:.4f} ± {value['std']:.4f}"
            for key, value in results[name].items()
        )
        print(f"{name:<20}{row}", flush=True)
    if _OUTPUT.value:
        result = {"seeds": _SEEDS.value, "estimators": results}
        pathlib.Path(_OUTPUT.value).write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    app.run(main)
