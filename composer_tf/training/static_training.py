"""Static networks of a run, trained like its Composer, for comparison."""

import functools
import pathlib
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from composer_tf import static_networks, validation, workers
from composer_tf.composer import Composer
from composer_tf.config import Config, ConfigError
from composer_tf.files import atomic_path
from composer_tf.training import fitting
from composer_tf.training.fitting import Run
from composer_tf.training.measurements import Alone, Exits, path_name

_EARLY_EXIT = "early_exit"
Make = Callable[[Composer], Any]  # Makes a network of a Composer's layers.


def check(model: Composer, run: Run) -> None:
    """Finds networks that cannot be made, before the Composer is trained.

    Args:
        model: Built Composer.
        run: Run of the Composer; its config names the networks.

    Raises:
        ConfigError: If the model has no such path, or cannot exit early.
    """
    _paths(model, run.config)
    if not run.config.evaluation.early_exit:
        return
    try:
        network = _build(static_networks.early_exit_network, model, run)
        static_networks.costs_of_exits(model, network)
    except ValueError as error:
        raise ConfigError(
            f"`evaluation.early_exit` does not fit this model: {error}"
        ) from error


def train(model: Composer, run: Run, folder: pathlib.Path) -> None:
    """Trains the networks that the config names and that are not trained yet.

    Args:
        model: Built Composer, for shapes and paths; it is not changed.
        run: Run of the Composer, which gives data and config.
        folder: Folder of the run, for `alone/` and `early_exit/`.
    """
    for path in _paths(model, run.config):
        make = functools.partial(static_networks.path_network, path=path)
        _train(make, model, run, _folder_alone(path, folder))
    if run.config.evaluation.early_exit:
        make = static_networks.early_exit_network
        _train(make, model, run, folder / _EARLY_EXIT)


def predict(
    model: Composer,
    test: tf.data.Dataset,
    config: Config,
    folder: pathlib.Path,
) -> tuple[list[Alone], Exits | None]:
    """Predictions of the trained networks on the test split, and their costs.

    Args:
        model: Composer whose full cost is the unit of all costs.
        test: Batches of (images, labels), in an order that does not change.
        config: Config of the run.
        folder: Folder of the run.

    Returns:
        Networks of single paths, and the network with early exits or `None`.
    """
    alone = []
    for path in _paths(model, config):
        _, probabilities = _predict(_folder_alone(path, folder), test)
        cost = static_networks.cost_of_path(model, path)
        alone.append(Alone(path, cost, probabilities))
    if not config.evaluation.early_exit:
        return alone, None
    network, probabilities = _predict(folder / _EARLY_EXIT, test)
    costs = static_networks.costs_of_exits(model, network)
    return alone, Exits(costs, probabilities)


def _paths(model: Composer, config: Config) -> list[tuple[int, ...]]:
    """The paths to train alone, each once even if named several times."""
    names = config.evaluation.alone
    return list(dict.fromkeys(_parse_path(name, model) for name in names))


def _parse_path(name: str, model: Composer) -> tuple[int, ...]:
    """The path of a name: `"cheapest"`, `"dearest"` or one like `"0-2-1"`."""
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


def _folder_alone(path: tuple[int, ...], folder: pathlib.Path) -> pathlib.Path:
    return folder / "alone" / path_name(path)


def _build(make: Make, model: Composer, run: Run) -> Any:
    """A static network made from an untrained Composer, with its weights."""
    keras.utils.set_random_seed(run.config.seed)
    with run.strategy.scope():
        composer = run.config.model.build(seed=run.config.seed)
        composer.build(model.build_shape)
        return make(composer)


def _train(make: Make, model: Composer, run: Run, folder: pathlib.Path) -> None:
    """Trains a network made from an untrained Composer, as the Composer was."""
    trained = (folder / "model.keras").exists()
    workers.check_agreement(run.strategy, trained, f"{folder.name}'s network")
    if trained:
        return
    network = _build(make, model, run)
    with run.strategy.scope():
        fitting.compile_network(network, run, run.config.epochs)
    if workers.is_chief(run.strategy):
        print(f"Training the network {folder.name}.")
    fitting.fit(network, run, folder, run.config.epochs)
    if workers.is_chief(run.strategy):
        with atomic_path(folder / "model.keras") as partial:
            network.save(partial)


def _predict(
    folder: pathlib.Path, data: tf.data.Dataset
) -> tuple[Any, np.ndarray]:
    """A trained network, and its probabilities."""
    network: Any = keras.models.load_model(folder / "model.keras")
    logits = network.predict(data, verbose=0)
    return network, tf.nn.softmax(logits).numpy()
