"""A run: makes a trained model, its curve and pictures from a config."""

import contextlib
import json
import os
import pathlib
import zlib
from typing import Any

import keras
import tensorflow as tf

from composer_tf import datasets, validation, workers
from composer_tf.composer import Composer
from composer_tf.config import Config, ConfigError, raising_config_errors
from composer_tf.files import atomic_path, write_json
from composer_tf.objectives import rewards
from composer_tf.training import (
    controller_training,
    fitting,
    measurements,
    static_training,
)
from composer_tf.training.fitting import Run
from composer_tf.workdir import (
    check_folder,
    claim,
    is_claimed,
    locked,
    read_json,
)

_OUTPUTS = (
    "model.keras",
    "tradeoff.csv",
    "tradeoff.png",
    "routing.png",
    "examples.png",
    "metrics.json",
)
_NUM_TABLE_ROWS = 9


def run(
    config: Config,
    workdir: str | os.PathLike,
    strategy: tf.distribute.Strategy | None = None,
) -> dict[str, Any]:
    """Trains, evaluates and draws; resumes what an earlier call started.

    The folder receives `config.json`, `checkpoints/` and `logs/` (TensorBoard),
    the same under `controller/` if the controller is trained alone at the end,
    `alone/` and `early_exit/` (the networks to compare with), `model.keras`
    (calibrated on the validation split), `tradeoff.csv`, the pictures and,
    last, `metrics.json`. Each file is written atomically. An empty `.lock`
    keeps other processes away meanwhile.

    Args:
        config: Config of the run.
        workdir: Folder to write to, created if it does not exist. All workers
            of a strategy share it; the chief writes.
        strategy: Strategy that spreads each batch over its replicas. Their
            number changes results by rounding only. Defaults to one device.

    Returns:
        Content of `metrics.json`.

    Raises:
        ConfigError: If a value of the config cannot work; the folder is then
            not changed.
        WorkdirError: If the folder belongs to another config or is in use by
            another process, or a file in it is damaged.
        WorkersError: If the workers do not share the folder.
        DataUnavailableError: If the data is neither here nor obtainable.
        NonFiniteLossError: If the loss stops being finite.
    """
    check(config)
    folder = pathlib.Path(workdir)
    strategy = tf.distribute.get_strategy() if strategy is None else strategy
    workers.check_agreement(strategy, _checksum(config), "a config's checksum")
    check_folder(folder, config.to_json())
    finished = all((folder / name).exists() for name in _OUTPUTS)
    finished = finished and is_claimed(folder, config.to_json())
    workers.check_agreement(strategy, finished, "whether the run is finished")
    if finished:
        metrics = read_json(folder / "metrics.json")
        print(f"{folder} is finished; nothing to do.")
        _report(folder, metrics)
        return metrics
    single_run = fitting.load(config, strategy)
    model = _make_composer(single_run)
    static_training.check(model, single_run)
    chief = workers.is_chief(strategy)
    with locked(folder) if chief else contextlib.nullcontext():
        _claim_for_all(folder, single_run)
        _train(model, single_run, folder)
        if chief:
            metrics = _evaluate(config, folder)
            write_json(metrics, folder / "metrics.json")
            _report(folder, metrics)
    workers.wait_for_all(strategy)
    return read_json(folder / "metrics.json")


def _train(model: Composer, run: Run, folder: pathlib.Path) -> None:
    """Trains the model and the networks to compare with, and saves them."""
    fitting.fit(model, run, folder, run.config.epochs)
    if run.config.controller_epochs:
        controller_training.train(model, run, folder / "controller")
    if workers.is_chief(run.strategy):
        _save(model, run, folder)
    static_training.train(model, run, folder)


def _checksum(config: Config) -> int:
    """A checksum so small that float64 holds its square exactly."""
    return zlib.crc32(json.dumps(config.to_json()).encode()) % 2**20


def check(config: Config) -> None:
    """Finds values that cannot work, as far as possible without data.

    Raises:
        ConfigError: If a value of the config cannot work.
    """
    config.validate()
    with raising_config_errors():
        model = config.model.build(seed=config.seed)
        rewards.get(config.reward, fitting.loss())
        config.to_json()
    if not isinstance(model, Composer):
        raise ConfigError(
            f"`model.build` must return a Composer, got {type(model).__name__}."
        )
    _check_saving(model)
    _check_preference(model, config)


def _make_composer(run: Run) -> Composer:
    """A built and compiled Composer; a config that cannot work fails here."""
    config = run.config
    # After loading the data, which may draw from Python's random numbers.
    keras.utils.set_random_seed(config.seed)
    with raising_config_errors(), run.strategy.scope():
        model = config.model.build(seed=config.seed)
        images: Any = run.train.element_spec[0]  # type: ignore[index]
        model.build(images.shape)
        fitting.compile_network(model, run, config.epochs, reward=config.reward)
    _check_label_groups(config, model.output_row_shape[-1])
    return model


def _check_saving(model: Composer) -> None:
    """Raises `ConfigError` for a model that could not be loaded once trained.

    It has custom layers that are not registered, or whose config is incomplete.
    """
    try:
        config = keras.saving.serialize_keras_object(model)
        keras.saving.deserialize_keras_object(config)
    except Exception as error:  # Raised by Keras, or by a custom layer.
        raise ConfigError(
            "`model` cannot be saved and loaded again, as it will be when it "
            "is trained. Layers of its own need "
            "`keras.saving.register_keras_serializable` and `get_config`: "
            f"{validation.keras_cause(error)}"
        ) from error


def _check_label_groups(config: Config, num_classes: int) -> None:
    groups = config.evaluation.label_groups
    try:
        labels = [label for group in groups for label in group]
        fit = len({*labels} & {*range(num_classes)}) == len(labels)
    except TypeError:
        fit = False
    if not fit:
        raise ConfigError(
            "`evaluation.label_groups` must hold groups of labels, such as "
            f"((0, 1), (2,)), each label from 0 to {num_classes - 1} once at "
            f"most, got {groups!r}."
        )


def _check_preference(model: Composer, config: Config) -> None:
    names = model.preferences.names
    if names and config.evaluation.preference not in names:
        raise ConfigError(
            "`evaluation.preference` must be a steerable one of the model, "
            f"{names}, got {config.evaluation.preference!r}."
        )


def _claim_for_all(folder: pathlib.Path, run: Run) -> None:
    """The chief claims the folder for this config; all workers check it."""
    if workers.is_chief(run.strategy):
        stale = folder / "metrics.json"
        if stale.exists() and not is_claimed(folder, run.config.to_json()):
            stale.unlink()  # It is of another evaluation.
        claim(folder, run.config.to_json())
    workers.wait_for_all(run.strategy)
    claimed = (folder / "config.json").exists()
    workers.check_agreement(
        run.strategy, claimed, "whether the workdir is theirs"
    )


def _save(model: Composer, run: Run, folder: pathlib.Path) -> None:
    # XLA runs every module on every row; a loaded model should not.
    model.compile(
        model.optimizer,
        metrics=["accuracy"],
        reward=model.reward,
    )
    if model.preferences.names:
        model.calibrate(run.validation)
    with atomic_path(folder / "model.keras") as path:
        model.save(path)


def _evaluate(config: Config, folder: pathlib.Path) -> dict[str, Any]:
    """Measures the saved model on the test split and draws the pictures."""
    model: Any = keras.models.load_model(folder / "model.keras")
    data_dir = config.data.data_dir or None
    (test,) = datasets.load(
        config.data.name,
        batch_size=config.evaluation.batch_size,
        splits=("test",),
        data_dir=data_dir,
    )
    alone, exits = static_training.predict(model, test, config, folder)
    return measurements.measure(
        model,
        test,
        alone,
        exits,
        config.evaluation,
        datasets.label_names(config.data.name, data_dir),
        folder,
        config.seed,
    )


def _report(folder: pathlib.Path, metrics: dict[str, Any]) -> None:
    """Prints a small table and the paths of the pictures."""
    points = metrics["lines"]["composer"]
    last = len(points) - 1
    rows = {
        round(i * last / (_NUM_TABLE_ROWS - 1)) for i in range(_NUM_TABLE_ROWS)
    }
    print(f"\n{'gamma':>8}{'cost':>8}{'accuracy':>10}")
    for point in (points[row] for row in sorted(rows)):
        print(
            f"{point['gamma']:8.2f}{point['cost']:8.3f}{point['accuracy']:10.4f}"
        )
    for point in metrics["lines"].get("alone", []):
        print(f"{'alone':>8}{point['cost']:8.3f}{point['accuracy']:10.4f}")
    print()
    for path in sorted(folder.iterdir()):
        if path.suffix in (".png", ".csv", ".keras"):
            print(path)
