"""A run: a config and a folder make a trained model, its curve and pictures."""

import contextlib
import os
import pathlib
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from composer_tf import datasets, evaluation
from composer_tf.composer import Composer
from composer_tf.config import Config, ConfigError, differences
from composer_tf.workdir import (
    EpochCheckpoint,
    WorkdirError,
    atomic_path,
    is_partial,
    read_json,
    write_json,
)

_OUTPUTS = (
    "model.keras",
    "tradeoff.csv",
    "tradeoff.png",
    "routing.png",
    "metrics.json",
)
_COSTS_TO_REPORT = (0.15, 0.25, 0.5, 0.57, 0.6, 0.75, 1.0)
_NUM_HEATMAPS = 5
_NUM_TABLE_ROWS = 9


class _Prepared(NamedTuple):
    model: Composer
    train: tf.data.Dataset
    validation: tf.data.Dataset
    shuffle: datasets.EpochShuffle


def run(config: Config, workdir: str | os.PathLike) -> dict[str, Any]:
    """Trains, evaluates and draws; resumes what an earlier call began.

    The folder receives `config.json`, `checkpoints/`, `logs/` (TensorBoard),
    `model.keras`, `tradeoff.csv`, `tradeoff.png`, `routing.png` and, last,
    `metrics.json`. Each file appears whole.

    Args:
        config: What to do.
        workdir: The folder, created if it does not exist.

    Returns:
        The content of `metrics.json`.

    Raises:
        ConfigError: If a value of the config cannot work; the folder is then
            left as it was.
        WorkdirError: If the folder belongs to another config, or a file in it
            is damaged.
        DataUnavailableError: If the data is not here and not to be had.
    """
    config.validate()
    folder = pathlib.Path(workdir)
    _check_folder(folder, config)
    if all((folder / name).exists() for name in _OUTPUTS):
        metrics = read_json(folder / "metrics.json")
        print(f"{folder} is finished; nothing to do.")
        _report(folder, metrics)
        return metrics
    prepared = _prepare(config)
    _claim(folder, config)
    _train(prepared, config, folder)
    metrics = _evaluate(prepared.model, config, folder)
    write_json(metrics, folder / "metrics.json")
    _report(folder, metrics)
    return metrics


def _check_folder(folder: pathlib.Path, config: Config) -> None:
    """Raises `WorkdirError` if the folder is not this config's or free."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise WorkdirError(f"workdir {folder} is not a folder.")
    path = folder / "config.json"
    if path.exists():
        changes = differences(read_json(path), config.to_json())
        if changes:
            raise WorkdirError(
                f"workdir {folder} belongs to another config (its value -> "
                "the one given): " + "; ".join(changes) + ". Use another "
                "workdir, or the config it was started with."
            )
    elif any(not is_partial(path) for path in folder.iterdir()):
        raise WorkdirError(
            f"workdir {folder} is not empty and holds no config.json. Use "
            "another workdir."
        )


def _claim(folder: pathlib.Path, config: Config) -> None:
    """Makes the folder this config's."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WorkdirError(
            f"workdir {folder} cannot be created: {error}."
        ) from error
    if not (folder / "config.json").exists():
        write_json(config.to_json(), folder / "config.json")


def _prepare(config: Config) -> _Prepared:
    """Data and compiled model; a config that cannot work fails here."""
    shuffle = datasets.EpochShuffle(config.seed)
    with _values_of_the_config():
        train, validation = datasets.load(
            config.data.name,
            batch_size=config.data.batch_size,
            splits=("train", "validation"),
            shuffle=shuffle,
            passes=config.data.passes,
            data_dir=config.data.data_dir or None,
        )
    # After the data: preparing it draws from Python's random numbers.
    keras.utils.set_random_seed(config.seed)
    with _values_of_the_config():
        model = config.model.build(seed=config.seed)
        evaluation.gamma_grid(model, config.evaluation.preference, 2)
    _compile(model, config, steps_per_epoch=len(train))
    images, _ = next(iter(train))
    model.build(images.shape)
    return _Prepared(model, train, validation, shuffle)


@contextlib.contextmanager
def _values_of_the_config() -> Iterator[None]:
    """Makes a refused argument an error of the config that holds it."""
    try:
        yield
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _train(prepared: _Prepared, config: Config, folder: pathlib.Path) -> None:
    """Trains from the last checkpoint on, and saves the model."""
    model = prepared.model
    checkpoint = EpochCheckpoint(folder / "checkpoints")
    epoch = checkpoint.restore(model)
    if epoch:
        print(f"Resuming after epoch {epoch} of {config.epochs}.")
    model.fit(
        prepared.train,
        validation_data=prepared.validation,
        initial_epoch=epoch,
        epochs=config.epochs,
        callbacks=[
            prepared.shuffle,
            checkpoint,
            keras.callbacks.TensorBoard(
                str(folder / "logs"), write_graph=False
            ),
        ],
        verbose=1 if sys.stdout.isatty() else 2,
    )
    # XLA runs every module on every row; a loaded model shall skip them.
    model.compile(model.optimizer, metrics=["accuracy"], jit_compile=False)
    with atomic_path(folder / "model.keras") as path:
        model.save(path)


def _compile(model: Composer, config: Config, steps_per_epoch: int) -> None:
    learning_rate: Any = config.optimizer.learning_rate
    if config.optimizer.decay:
        learning_rate = keras.optimizers.schedules.CosineDecay(
            learning_rate, config.epochs * steps_per_epoch
        )
    model.compile(
        optimizer=keras.optimizers.Adam(learning_rate),
        metrics=["accuracy"],
        jit_compile=config.jit_compile,
        steps_per_execution=config.steps_per_execution or steps_per_epoch,
    )


def _evaluate(
    model: Composer, config: Config, folder: pathlib.Path
) -> dict[str, Any]:
    """Measures on the test split and draws the pictures."""
    settings = config.evaluation
    data_dir = config.data.data_dir or None
    (test,) = datasets.load(
        config.data.name,
        batch_size=settings.batch_size,
        splits=("test",),
        data_dir=data_dir,
    )
    gammas = evaluation.gamma_grid(
        model, settings.preference, settings.num_gammas
    )
    composer = evaluation.evaluate_tradeoff(
        model, test, gammas, settings.preference
    )
    mixture = evaluation.evaluate_random_mixture(
        model,
        test,
        np.linspace(0.0, 1.0, settings.num_mixtures).tolist(),
        config.seed,
    )
    with atomic_path(folder / "tradeoff.csv") as path:
        evaluation.write_csv([*composer, *mixture], path)
    with atomic_path(folder / "tradeoff.png") as path:
        evaluation.plot_tradeoff([*composer, *mixture], path)
    names = datasets.label_names(config.data.name, data_dir)
    _draw_routing(model, test, settings.preference, names, folder)
    return {
        "costs": model.cost_table._asdict(),
        "composer": [point._asdict() for point in composer],
        "random_mixture": [point._asdict() for point in mixture],
        "accuracy_at_cost": {
            f"{cost:g}": {
                "composer": evaluation.accuracy_at_cost(composer, cost),
                "random_mixture": evaluation.accuracy_at_cost(mixture, cost),
            }
            for cost in _COSTS_TO_REPORT
        },
    }


def _draw_routing(
    model: Composer,
    test: tf.data.Dataset,
    preference: str,
    label_names: list[str],
    folder: pathlib.Path,
) -> None:
    gammas = evaluation.gamma_grid(model, preference, _NUM_HEATMAPS)
    probabilities = evaluation.module_probabilities(
        model, test, gammas, len(label_names), preference
    )
    module_names = [module.name for module in model.choosing[0].modules]
    with atomic_path(folder / "routing.png") as path:
        evaluation.plot_routing(
            probabilities, gammas, module_names, label_names, path
        )


def _report(folder: pathlib.Path, metrics: dict[str, Any]) -> None:
    """Prints a small table, and where the pictures are."""
    points = metrics["composer"]
    last = len(points) - 1
    rows = sorted(
        {
            round(i * last / (_NUM_TABLE_ROWS - 1))
            for i in range(_NUM_TABLE_ROWS)
        }
    )
    print(f"\n{'gamma':>8}{'cost':>8}{'accuracy':>10}")
    for row in rows:
        point = points[row]
        print(
            f"{point['gamma']:8.2f}{point['cost']:8.3f}{point['accuracy']:10.4f}"
        )
    print()
    for name in ("tradeoff.png", "routing.png", "tradeoff.csv", "model.keras"):
        print(folder / name)
