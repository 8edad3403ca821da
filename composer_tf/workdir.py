"""A run's folder: outputs that are whole or absent, and checkpoints."""

import contextlib
import json
import os
import pathlib
import re
import secrets
import shutil
from collections.abc import Iterator
from typing import Any

import keras

try:
    import fcntl
except ImportError:  # On Windows.
    fcntl = None  # type: ignore[assignment]

# Beginnings of `differences` that training does not depend on.
_AFTER_TRAINING = ("evaluation.", "data.data_dir:")

_LOCK = ".lock"


class WorkdirError(RuntimeError):
    """A workdir that cannot be used as it is; nothing in it was changed."""


@contextlib.contextmanager
def atomic_path(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a path to write to, which becomes `path` if nothing fails.

    Whatever happens, `path` holds the old file or folder, none, or the complete
    new one. (One folder cannot replace another in a single step: a process
    killed in between leaves the old one beside it, as `replaced-...`.)
    """
    # Processes in containers may share a folder and have the same ID.
    token = secrets.token_hex(4)
    # The suffix stays last, as Keras depends on it.
    partial = path.with_name(f"partial-{token}-{path.name}")
    try:
        yield partial
        if partial.is_dir():
            _replace_folder(partial, path)
        else:
            # To write, or Windows would not commit it.
            with open(partial, "r+b") as file:
                os.fsync(file.fileno())
            os.replace(partial, path)
    finally:
        _remove(partial)


def _replace_folder(new: pathlib.Path, path: pathlib.Path) -> None:
    if not path.exists():
        os.rename(new, path)
        return
    token = secrets.token_hex(4)
    old = path.with_name(f"replaced-{token}-{path.name}")
    os.rename(path, old)
    try:
        os.rename(new, path)
    except BaseException:
        os.rename(old, path)
        raise
    _remove(old)


def _remove(path: pathlib.Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def is_partial(path: pathlib.Path) -> bool:
    """Whether a killed process may have left this file unfinished."""
    return path.name.startswith("partial-")


def write_json(content: Any, path: pathlib.Path) -> None:
    """Writes JSON atomically."""
    with atomic_path(path) as partial:
        partial.write_text(
            json.dumps(content, indent=2, allow_nan=False) + "\n"
        )


def read_json(path: pathlib.Path) -> Any:
    """Reads JSON; raises `WorkdirError` for a damaged file."""
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise WorkdirError(
            f"{path} is damaged and cannot be read as JSON ({error}). Move it "
            "away, or use another workdir."
        ) from error


def check_folder(folder: pathlib.Path, config: dict[str, Any]) -> None:
    """Raises `WorkdirError` unless the folder is free or of this config.

    What was trained may be evaluated in another way.

    Args:
        folder: Workdir, which need not exist.
        config: Config in the form of its JSON.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise WorkdirError(f"workdir {folder} is not a folder.")
    path = folder / "config.json"
    if path.exists():
        changes = [
            line
            for line in differences(read_json(path), config)
            if not line.startswith(_AFTER_TRAINING)
        ]
        if changes:
            raise WorkdirError(
                f"workdir {folder} belongs to another config (its value -> "
                "the one given): " + "; ".join(changes) + ". Use another "
                "workdir, or the config it was started with."
            )
    elif any(
        not is_partial(path) and path.name != _LOCK for path in folder.iterdir()
    ):
        raise WorkdirError(
            f"workdir {folder} is not empty and holds no config.json. Use "
            "another workdir."
        )


def is_claimed(folder: pathlib.Path, config: dict[str, Any]) -> bool:
    """Whether the folder is this config's, evaluation included."""
    path = folder / "config.json"
    return path.exists() and read_json(path) == config


def claim(folder: pathlib.Path, config: dict[str, Any]) -> None:
    """Claims a locked folder for this config.

    Raises:
        WorkdirError: If another process has claimed it for another config since
            it was checked.
    """
    check_folder(folder, config)
    if not is_claimed(folder, config):
        write_json(config, folder / "config.json")


@contextlib.contextmanager
def locked(folder: pathlib.Path) -> Iterator[None]:
    """Keeps a folder, created if it does not exist, from other such processes.

    The system ends the lock with the process. Where it has no locks, as on
    Windows and some file systems, there is none.

    Raises:
        WorkdirError: If another process has locked the folder, or it cannot be
            written to.
    """
    with contextlib.ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # NFS locks what is open for writing.
            file = stack.enter_context(open(folder / _LOCK, "w"))
        except OSError as error:
            raise WorkdirError(
                f"workdir {folder} cannot be created or written to: {error}."
            ) from error
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise WorkdirError(
                f"workdir {folder} is in use by another process: wait for its "
                "end, or use another workdir."
            ) from error
        except OSError:  # The file system has no locks.
            pass
        yield


def differences(
    old: dict[str, Any], new: dict[str, Any], prefix: str = ""
) -> list[str]:
    """A line such as `seed: 0 -> 1` for each field that differs.

    Example:
        >>> differences({"a": {"b": 1}, "c": 2}, {"a": {"b": 3}, "c": 2})
        ['a.b: 1 -> 3']
    """
    lines = []
    for key in sorted({*old, *new}):
        name = f"{prefix}{key}"
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            lines += differences(before, after, f"{name}.")
        elif before != after:
            lines.append(f"{name}: {before} -> {after}")
    return lines


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
