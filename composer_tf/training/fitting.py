"""Data, compilation and training, which all networks of a run share."""

import pathlib
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from composer_tf import datasets, workers
from composer_tf.config import (
    Config,
    ConfigError,
    DataConfig,
    raising_config_errors,
)
from composer_tf.epoch_checkpoint import EpochCheckpoint


class Run(NamedTuple):
    """What all networks of a run share.

    Attributes:
        config: Config of the run.
        strategy: Strategy that spreads each batch over its replicas.
        train: Batches of (images, labels), reshuffled each epoch.
        validation: Batches of (images, labels).
        shuffle: Callback that tells `train` the epoch.
    """

    config: Config
    strategy: tf.distribute.Strategy
    train: tf.data.Dataset
    validation: tf.data.Dataset
    shuffle: datasets.EpochShuffle


def load(config: Config, strategy: tf.distribute.Strategy) -> Run:
    """Loads the data of a run.

    Raises:
        ConfigError: If a value of the config does not fit the data, or the
            replicas cannot share a batch evenly.
        DataUnavailableError: If the data is neither here nor obtainable.
    """
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
    with raising_config_errors():
        train, validation = _load(
            config.data, ("train", "validation"), shuffle, config.data.augment
        )
    if chief:
        workers.wait_for_all(strategy)
    return Run(config, strategy, train, validation, shuffle)


def without_augmentation(run: Run) -> Run:
    """The same run, with training images that are not augmented."""
    if not run.config.data.augment:
        return run
    (train,) = _load(run.config.data, ("train",), run.shuffle, augment=False)
    return run._replace(train=train)


def _load(
    data: DataConfig,
    splits: Sequence[str],
    shuffle: datasets.EpochShuffle,
    augment: bool,
) -> tuple[tf.data.Dataset, ...]:
    return datasets.load(
        data.name,
        batch_size=data.batch_size,
        splits=splits,
        shuffle=shuffle,
        passes=data.passes,
        augment=augment,
        data_dir=data.data_dir or None,
    )


def loss() -> keras.losses.Loss:
    """The loss of all networks of a run."""
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def compile_network(
    network: Any, run: Run, epochs: int, **options: Any
) -> None:
    """Compiles a network as the config says.

    Args:
        network: Keras model made in the scope of the run's strategy.
        run: Run that the network belongs to.
        epochs: Number of epochs that the learning rate decays over.
        **options: Other arguments of the network's `compile`.
    """
    config, steps_per_epoch = run.config, len(run.train)
    learning_rate: Any = config.optimizer.learning_rate
    if config.optimizer.decay:
        learning_rate = keras.optimizers.schedules.CosineDecay(
            learning_rate, epochs * steps_per_epoch
        )
    network.compile(
        optimizer=keras.optimizers.Adam(learning_rate),
        loss=loss(),
        metrics=["accuracy"],
        jit_compile=config.jit_compile or "auto",
        steps_per_execution=config.steps_per_execution or steps_per_epoch,
        **options,
    )


def fit(
    network: keras.Model, run: Run, folder: pathlib.Path, epochs: int
) -> None:
    """Trains from the last checkpoint on.

    Args:
        network: Built and compiled model.
        run: Run that the network belongs to.
        folder: Folder of this training, for `checkpoints/` and `logs/`.
        epochs: Total number of epochs, those before the checkpoint included.
    """
    checkpoint = EpochCheckpoint(folder / "checkpoints")
    with run.strategy.scope():
        epoch = checkpoint.restore(network)
    workers.check_agreement(run.strategy, epoch, "the last epoch")
    callbacks: list[keras.callbacks.Callback] = [run.shuffle]
    verbose = 0
    if workers.is_chief(run.strategy):
        if epoch:
            print(f"Resuming after epoch {epoch} of {epochs}.")
        logs = str(folder / "logs")
        callbacks.append(checkpoint)
        callbacks.append(keras.callbacks.TensorBoard(logs, write_graph=False))
        verbose = 1 if sys.stdout.isatty() else 2
    network.fit(
        run.train,
        validation_data=run.validation,
        initial_epoch=epoch,
        epochs=epochs,
        callbacks=callbacks,
        verbose=verbose,  # type: ignore[arg-type]
    )
