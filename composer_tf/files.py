"""Files and folders that are whole or absent, whatever happens."""

import contextlib
import json
import os
import pathlib
import secrets
import shutil
from collections.abc import Iterator
from typing import Any


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
