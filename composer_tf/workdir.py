"""A run's folder: whose it is, and who is at work in it."""

import contextlib
import json
import pathlib
from collections.abc import Iterator
from typing import Any

from composer_tf.files import is_partial, write_json

try:
    import fcntl
except ImportError:  # On Windows.
    fcntl = None  # type: ignore[assignment]

# Beginnings of `differences` that training does not depend on.
_AFTER_TRAINING = ("evaluation.", "data.data_dir:")

_LOCK = ".lock"


class WorkdirError(RuntimeError):
    """A workdir that cannot be used as it is; nothing in it was changed."""


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
