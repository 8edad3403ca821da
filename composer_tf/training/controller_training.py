"""Training of a new controller for a Composer with trained modules."""

import contextlib
import pathlib
from collections.abc import Iterator

import keras

from composer_tf import workers
from composer_tf.composer import Composer
from composer_tf.training import fitting
from composer_tf.training.fitting import Run


def train(model: Composer, run: Run, folder: pathlib.Path) -> None:
    """Trains a new controller from the last checkpoint on; modules are frozen.

    A controller that learns while the modules change learns about modules as
    they were, and about batch normalization as it is in training.

    Args:
        model: Trained and compiled Composer. It keeps its optimizer.
        run: Run of the Composer; its config gives the number of epochs.
        folder: Folder of this training, for `checkpoints/` and `logs/`.
    """
    if workers.is_chief(run.strategy):
        print("Training the controller anew.")
    run = fitting.without_augmentation(run)
    epochs, reward = run.config.controller_epochs, run.config.reward
    optimizer = model.optimizer
    with frozen_modules(model):
        keras.utils.set_random_seed(run.config.seed)
        with run.strategy.scope():
            _reset(model.controller)
            fitting.compile_network(model, run, epochs, reward=reward)
        fitting.fit(model, run, folder, epochs)
    with run.strategy.scope():
        model.compile(optimizer, reward=reward)


@contextlib.contextmanager
def frozen_modules(model: Composer) -> Iterator[None]:
    """Lets only the controller and the estimator's baseline learn."""
    learning = (model.controller, model.estimator)
    frozen = [layer for layer in model.layers if layer not in learning]
    before = [
        (part, part.trainable)
        for layer in frozen
        for part in layer._flatten_layers()  # A layer comes before its parts.
    ]
    sandwich, model.sandwich = model.sandwich, None  # It teaches modules.
    for layer in frozen:
        layer.trainable = False
    try:
        yield
    finally:
        for part, trainable in before:
            part.trainable = trainable
        model.sandwich = sandwich


def _reset(layer: keras.layers.Layer) -> None:
    """Gives a built layer new initial weights."""
    new = type(layer).from_config(layer.get_config())
    new.build_from_config(layer.get_build_config())
    layer.set_weights(new.get_weights())
