"""A run: a config and a folder make a trained model, its curve and pictures."""

import contextlib
import functools
import os
import pathlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from composer_tf import (
    datasets,
    measurements,
    rewards,
    static_networks,
    validation,
    workers,
)
from composer_tf.composer import Composer
from composer_tf.config import Config, ConfigError
from composer_tf.workdir import (
    EpochCheckpoint,
    atomic_path,
    check_folder,
    claim,
    read_json,
    write_json,
)

_OUTPUTS = (
    "model.keras",
    "tradeoff.csv",
    "tradeoff.png",
    "routing.png",
    "examples.png",
    "metrics.json",
)
_EARLY_EXIT = "early_exit"
_NUM_TABLE_ROWS = 9


class _Run(NamedTuple):
    """What is the same for all networks of a run."""

    config: Config
    strategy: tf.distribute.Strategy
    train: tf.data.Dataset
    validation: tf.data.Dataset
    shuffle: datasets.EpochShuffle


def run(
    config: Config,
    workdir: str | os.PathLike,
    strategy: tf.distribute.Strategy | None = None,
) -> dict[str, Any]:
    """Trains, evaluates and draws; resumes what an earlier call began.

    The folder receives `config.json`, `checkpoints/`, `logs/` (TensorBoard),
    `alone/` and `early_exit/` (the networks to compare with), `model.keras`
    (calibrated on the validation split), `tradeoff.csv`, the pictures and,
    last, `metrics.json`. Each file appears whole.

    Args:
        config: What to do.
        workdir: The folder, created if it does not exist. All workers of a
            strategy share it; the chief writes.
        strategy: Over whose replicas each batch is spread. Their number
            changes no result, but for rounding. Defaults to one device.

    Returns:
        The content of `metrics.json`.

    Raises:
        ConfigError: If a value of the config cannot work; the folder is then
            left as it was.
        WorkdirError: If the folder belongs to another config, or a file in it
            is damaged.
        WorkersError: If the workers do not share the folder.
        DataUnavailableError: If the data is not here and not to be had.
    """
    check(config)
    folder = pathlib.Path(workdir)
    strategy = tf.distribute.get_strategy() if strategy is None else strategy
    check_folder(folder, config.to_json())
    finished = all((folder / name).exists() for name in _OUTPUTS)
    workers.check_agreement(strategy, finished, "whether the run is finished")
    if finished:
        metrics = read_json(folder / "metrics.json")
        print(f"{folder} is finished; nothing to do.")
        _report(folder, metrics)
        return metrics
    single_run = _load(config, strategy)
    model = _make_composer(single_run)
    # A path may have several names.
    alone = config.evaluation.alone
    paths = list(dict.fromkeys(_parse_path(name, model) for name in alone))
    if config.evaluation.early_exit:
        _check_early_exit(model, single_run)
    chief = workers.is_chief(strategy)
    if chief:
        claim(folder, config.to_json())
    workers.wait_for_all(strategy)
    claimed = (folder / "config.json").exists()
    workers.check_agreement(strategy, claimed, "whether the workdir is theirs")
    _fit(model, single_run, folder)
    if chief:
        _save(model, single_run, folder)
    for path in paths:
        make = functools.partial(static_networks.path_network, path=path)
        _train_beside(make, model, single_run, _folder_alone(path, folder))
    if config.evaluation.early_exit:
        make = static_networks.early_exit_network
        _train_beside(make, model, single_run, folder / _EARLY_EXIT)
    if chief:
        metrics = _evaluate(paths, config, folder)
        write_json(metrics, folder / "metrics.json")
        _report(folder, metrics)
    workers.wait_for_all(strategy)
    return read_json(folder / "metrics.json")


def check(config: Config) -> None:
    """Finds what cannot work, as far as that shows without any data.

    Raises:
        ConfigError: If a value of the config cannot work.
    """
    config.validate()
    with _values_of_the_config():
        model = config.model.build(seed=config.seed)
        rewards.get(config.reward, _loss())
    _check_preference(model, config)


def _load(config: Config, strategy: tf.distribute.Strategy) -> _Run:
    replicas = strategy.num_replicas_in_sync
    if config.data.batch_size % replicas:
        raise ConfigError(
            f"`data.batch_size` must be a multiple of the {replicas} replicas, "
            f"got {config.data.batch_size}."
        )
    chief = workers.is_chief(strategy)
    if not chief:  # The chief prepares the data.
        workers.wait_for_all(strategy)
    shuffle = datasets.EpochShuffle(config.seed)
    with _values_of_the_config():
        train, validation = datasets.load(
            config.data.name,
            batch_size=config.data.batch_size,
            splits=("train", "validation"),
            shuffle=shuffle,
            passes=config.data.passes,
            augment=config.data.augment,
            data_dir=config.data.data_dir or None,
        )
    if chief:
        workers.wait_for_all(strategy)
    return _Run(config, strategy, train, validation, shuffle)


def _make_composer(run: _Run) -> Composer:
    """Built and compiled; a config that cannot work fails here."""
    config = run.config
    # After the data: preparing it draws from Python's random numbers.
    keras.utils.set_random_seed(config.seed)
    with _values_of_the_config(), run.strategy.scope():
        model = config.model.build(seed=config.seed)
        images: Any = run.train.element_spec[0]  # type: ignore[index]
        model.build(images.shape)
        _compile(model, run, reward=config.reward)
    return model


@contextlib.contextmanager
def _values_of_the_config() -> Iterator[None]:
    """Makes a refused argument an error of the config that holds it."""
    try:
        yield
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _check_preference(model: Composer, config: Config) -> None:
    names = model.preferences.names
    if names and config.evaluation.preference not in names:
        raise ConfigError(
            "`evaluation.preference` must be a steerable one of the model, "
            f"{names}, got {config.evaluation.preference!r}."
        )


def _parse_path(name: str, model: Composer) -> tuple[int, ...]:
    """Of `"cheapest"`, `"dearest"` or `"0-2-1"`."""
    if name in ("cheapest", "dearest"):
        return getattr(model.cost_table, name)
    try:
        path = tuple(int(module) for module in name.split("-"))
        validation.check_paths(tf.constant([path]), model.num_modules)
    except ValueError as error:
        raise ConfigError(
            "`evaluation.alone` must hold 'cheapest', 'dearest' or a module of "
            f"each metalayer, such as '0-1', of {model.num_modules} modules, "
            f"got {name!r}."
        ) from error
    return path


def _fit(model: keras.Model, run: _Run, folder: pathlib.Path) -> None:
    """Trains from the last checkpoint on."""
    checkpoint = EpochCheckpoint(folder / "checkpoints")
    with run.strategy.scope():
        epoch = checkpoint.restore(model)
    workers.check_agreement(run.strategy, epoch, "the last epoch")
    callbacks: list[keras.callbacks.Callback] = [run.shuffle]
    verbose = 0
    if workers.is_chief(run.strategy):
        if epoch:
            print(f"Resuming after epoch {epoch} of {run.config.epochs}.")
        logs = str(folder / "logs")
        callbacks.append(checkpoint)
        callbacks.append(keras.callbacks.TensorBoard(logs, write_graph=False))
        verbose = 1 if sys.stdout.isatty() else 2
    model.fit(
        run.train,
        validation_data=run.validation,
        initial_epoch=epoch,
        epochs=run.config.epochs,
        callbacks=callbacks,
        verbose=verbose,  # type: ignore[arg-type]
    )


def _save(model: Composer, run: _Run, folder: pathlib.Path) -> None:
    # XLA runs every module on every row; a loaded model shall skip them.
    model.compile(
        model.optimizer,
        metrics=["accuracy"],
        reward=model.reward,
    )
    if model.preferences.names:
        model.calibrate(run.validation)
    with atomic_path(folder / "model.keras") as path:
        model.save(path)


def _folder_alone(path: Sequence[int], folder: pathlib.Path) -> pathlib.Path:
    return folder / "alone" / measurements.path_name(path)


def _check_early_exit(model: Composer, run: _Run) -> None:
    """Fails now, and not when the Composer is trained."""
    try:
        network = _build_beside(static_networks.early_exit_network, model, run)
        static_networks.costs_of_exits(model, network)
    except ValueError as error:
        raise ConfigError(
            f"`evaluation.early_exit` does not fit this model: {error}"
        ) from error


def _build_beside(
    make: Callable[[Composer], Any], model: Composer, run: _Run
) -> Any:
    """What is made of an untrained Composer, with that one's weights."""
    keras.utils.set_random_seed(run.config.seed)
    with run.strategy.scope():
        composer = run.config.model.build(seed=run.config.seed)
        composer.build(model.build_shape)
        return make(composer)


def _train_beside(
    make: Callable[[Composer], Any],
    model: Composer,
    run: _Run,
    folder: pathlib.Path,
) -> None:
    """Trains what is made of an untrained Composer, as that was trained."""
    trained = (folder / "model.keras").exists()
    workers.check_agreement(run.strategy, trained, f"{folder.name}'s network")
    if trained:
        return
    network = _build_beside(make, model, run)
    with run.strategy.scope():
        _compile(network, run)
    if workers.is_chief(run.strategy):
        print(f"Training the network {folder.name}.")
    _fit(network, run, folder)
    if workers.is_chief(run.strategy):
        with atomic_path(folder / "model.keras") as partial:
            network.save(partial)


def _loss() -> keras.losses.Loss:
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def _compile(model: Any, run: _Run, **options: Any) -> None:
    config, steps_per_epoch = run.config, len(run.train)
    learning_rate: Any = config.optimizer.learning_rate
    if config.optimizer.decay:
        learning_rate = keras.optimizers.schedules.CosineDecay(
            learning_rate, config.epochs * steps_per_epoch
        )
    model.compile(
        optimizer=keras.optimizers.Adam(learning_rate),
        loss=_loss(),
        metrics=["accuracy"],
        jit_compile=config.jit_compile or "auto",
        steps_per_execution=config.steps_per_execution or steps_per_epoch,
        **options,
    )


def _evaluate(
    paths: Sequence[tuple[int, ...]], config: Config, folder: pathlib.Path
) -> dict[str, Any]:
    """Measures what was saved on the test split, and draws the pictures."""
    model: Any = keras.models.load_model(folder / "model.keras")
    data_dir = config.data.data_dir or None
    (test,) = datasets.load(
        config.data.name,
        batch_size=config.evaluation.batch_size,
        splits=("test",),
        data_dir=data_dir,
    )
    alone = []
    for path in paths:
        _, probabilities = _predict(_folder_alone(path, folder), test)
        cost = static_networks.cost_of_path(model, path)
        alone.append(measurements.Alone(path, cost, probabilities))
    exits = None
    if config.evaluation.early_exit:
        network, probabilities = _predict(folder / _EARLY_EXIT, test)
        costs = static_networks.costs_of_exits(model, network)
        exits = measurements.Exits(costs, probabilities)
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


def _predict(
    folder: pathlib.Path, data: tf.data.Dataset
) -> tuple[Any, np.ndarray]:
    """A network that was trained beside, and its probabilities."""
    network: Any = keras.models.load_model(folder / "model.keras")
    logits = network.predict(data, verbose=0)
    return network, tf.nn.softmax(logits).numpy()


def _report(folder: pathlib.Path, metrics: dict[str, Any]) -> None:
    """Prints a small table, and where the pictures are."""
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
