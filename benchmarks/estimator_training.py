"""How well each estimator trains, in equal steps and in equal time.

python benchmarks/estimator_training.py [--seeds=5] [--output=FILE.json]
  [--data=wide_mnist/mnist --epochs=9]

Trains the Composer of configs/wide_mnist_digits.py with each estimator and
prints, as mean and standard deviation over the seeds, what training maximizes:
the objective (10), log p plus cost, averaged over the support of gamma, on the
test split; and the accuracy at the cheapest, at 0.6 of full cost and at best.
First every estimator takes the same number of steps, then as many as it can in
the time that REINFORCE without a baseline takes.
"""

import multiprocessing
import pathlib
import statistics
import time
from concurrent import futures
from typing import Any

import keras
import numpy as np
from absl import app, flags
from harness import Spread, print_table, ratio
from pictures import Bar, draw

import composer_tf as ct
from composer_tf import datasets, evaluation, models
from composer_tf.files import write_json
from composer_tf.training import experiment

_SEEDS = flags.DEFINE_integer("seeds", 5, "Trainings of each estimator.")
_EPOCHS = flags.DEFINE_integer(
    "epochs", 20, "Epochs of one pass over MNIST, or ten over the digits."
)
_PASSES = {"wide_mnist/digits": 10, "wide_mnist/mnist": 1}
_DATA = flags.DEFINE_enum(
    "data", "wide_mnist/digits", _PASSES, "Data set of 20 classes."
)
_OUTPUT = flags.DEFINE_string(
    "output", None, "JSON file to write, with a picture beside it."
)

_ROUNDS = 6

_ESTIMATORS = {
    "none": lambda: ct.Reinforce("none"),
    "batch_mean": lambda: ct.Reinforce("batch_mean"),
    "moving_average": lambda: ct.Reinforce("moving_average"),
    "learned": lambda: ct.Reinforce("learned"),
    "leave_one_out of 2": lambda: ct.LeaveOneOut(2),
    "leave_one_out of 4": lambda: ct.LeaveOneOut(4),
    "exact": ct.Exact,
}


def prepare(estimator: ct.Estimator, data: str, seed: int, epochs: int) -> Any:
    """A compiled model, and its data for `fit` and `measure`."""
    train_data, test = datasets.load(
        data,
        batch_size=128,
        shuffle=datasets.EpochShuffle(seed),
        passes=_PASSES[data],
    )
    keras.utils.set_random_seed(seed)
    config = models.WideMnist().build(seed=seed).get_config()
    config["estimator"] = keras.saving.serialize_keras_object(estimator)
    model = ct.Composer.from_config(config)
    steps = epochs * len(train_data)
    rate: Any = keras.optimizers.schedules.CosineDecay(1e-3, steps)
    model.compile(
        keras.optimizers.Adam(rate),
        metrics=["accuracy"],
        jit_compile=True,
        steps_per_execution=len(train_data),
    )
    return model, train_data, test


def step_times() -> dict[str, Spread]:
    """Time of a training step over that without a baseline, in turns."""
    contestants = {
        name: prepare(make(), _DATA.value, 0, _ROUNDS)
        for name, make in _ESTIMATORS.items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(_ROUNDS):
        for name, (model, train_data, _) in contestants.items():
            start = time.perf_counter()
            model.fit(train_data, verbose=0)
            seconds[name].append(time.perf_counter() - start)
    # The first turn compiles.
    timed = {name: np.array(times[1:]) for name, times in seconds.items()}
    return {name: ratio(times, timed["none"]) for name, times in timed.items()}


def measure(model: ct.Composer, test: Any) -> dict[str, float | None]:
    """Measures the objective and points of the curve, on the test split."""
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
        "at_0.6": evaluation.accuracy_at_cost(curve, 0.6),
        "best": max(point.accuracy for point in curve),
    }


def train(
    name: str, data: str, seed: int, epochs: int
) -> dict[str, float | None]:
    """Trains with the estimator of a name, and measures."""
    model, train_data, test = prepare(_ESTIMATORS[name](), data, seed, epochs)
    model.fit(train_data, epochs=epochs, verbose=0)
    return measure(model, test)


def over_seeds(name: str, epochs: int) -> dict[str, Any]:
    """Mean and standard deviation of each measure."""
    # A process each: what XLA has compiled is never freed.
    with futures.ProcessPoolExecutor(
        max_workers=1,
        mp_context=multiprocessing.get_context("spawn"),
        max_tasks_per_child=1,
    ) as pool:
        runs = {
            seed: pool.submit(train, name, _DATA.value, seed, epochs).result()
            for seed in range(_SEEDS.value)
        }
    return {"epochs": epochs, **experiment.summarize(runs)}


def report(name: str, result: dict[str, Any]) -> None:
    """Prints a line of the table."""
    cells = [
        f"{key} {experiment.cell(value)}"
        for key, value in result.items()
        if key != "epochs" and value["mean"] is not None
    ]
    line = (f"{name:<32}{result['epochs']:>4} epochs", *cells)
    print(*line, sep="  ", flush=True)


def tables(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Time of a step, and what each estimator reaches, with its deviation."""

    def bar(value: dict[str, Any]) -> Bar:
        mean, std = value["mean"], value["std"] or 0.0  # Of one seed: None.
        return Bar(mean, mean - std, mean + std)

    quantities = {"objective": "objective", "at_0.6": "accuracy at 0.6"}
    return {"time of a step": result["step_time"]} | {
        f"{title}, {budget.replace('_', ' ')}": {
            name: bar(row[quantity])
            for name, row in result[budget].items()
            if row[quantity]["mean"] is not None
        }
        for budget in ("equal_steps", "equal_time")
        for quantity, title in quantities.items()
    }


def main(argv: list[str]) -> None:
    """Trains, prints a table and writes the JSON."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}.")
    ratios = step_times()
    print_table("time of a step", ratios)
    equal_steps, equal_time = {}, {}
    for name, step_time in ratios.items():
        equal_steps[name] = over_seeds(name, _EPOCHS.value)
        report(f"{name}, equal steps", equal_steps[name])
        epochs = max(1, round(_EPOCHS.value / step_time["median"]))
        equal_time[name] = equal_steps[name]
        if epochs != _EPOCHS.value:
            equal_time[name] = over_seeds(name, epochs)
        report(f"{name}, equal time", equal_time[name])
    if _OUTPUT.value:
        result = {
            "seeds": _SEEDS.value,
            "data": _DATA.value,
            "step_time": ratios,
            "equal_steps": equal_steps,
            "equal_time": equal_time,
        }
        output = pathlib.Path(_OUTPUT.value)
        write_json(result, output)
        draw(tables(result), output.with_suffix(".png"))


if __name__ == "__main__":
    app.run(main)
