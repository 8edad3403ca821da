"""Checkpoints of a run, one for each epoch."""

import pathlib
import re

import keras

from composer_tf.files import atomic_path
from composer_tf.workdir import WorkdirError


class EpochCheckpoint(keras.callbacks.Callback):
    """Saves weights, optimizer and random state at the end of each epoch.

    The epoch is in the file's name and the file is written atomically, so a run
    that is killed at any moment resumes from its last complete epoch.

    Args:
        folder: Folder for the latest two checkpoints, created if needed.
    """

    _NAME = re.compile(r"epoch-(\d+)\.weights\.h5")

    def __init__(self, folder: pathlib.Path) -> None:
        super().__init__()
        self.folder = folder

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        assert self.model is not None  # Keras sets it before training.
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"epoch-{epoch + 1:06d}.weights.h5"
        older = [found for _, found in self._found() if found != path]
        with atomic_path(path) as partial:
            self.model.save_weights(partial)
        for stale in older[:-1]:  # The previous one stays as a reserve.
            stale.unlink(missing_ok=True)

    def restore(self, model: keras.Model) -> int:
        """Loads the latest checkpoint into a built and compiled model.

        Returns:
            Number of epochs it has trained for; 0 without a checkpoint.

        Raises:
            WorkdirError: If the checkpoint is damaged or from another model.
        """
        found = self._found()
        if not found:
            return 0
        epoch, path = found[-1]
        model.optimizer.build(model.trainable_variables)
        try:
            model.load_weights(path)
        except Exception as error:  # h5py and Keras raise many kinds.
            raise WorkdirError(
                f"Checkpoint {path} is damaged or of another model: {error}\n"
                "Delete it to resume from the epoch before, or use another "
                "workdir."
            ) from error
        return epoch

    def _found(self) -> list[tuple[int, pathlib.Path]]:
        """Complete checkpoints, oldest first."""
        if not self.folder.exists():
            return []
        matches = [
            (self._NAME.fullmatch(path.name), path)
            for path in self.folder.iterdir()
        ]
        return sorted((int(m[1]), path) for m, path in matches if m)
