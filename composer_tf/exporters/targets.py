"""Checks of the path that an artifact is written to."""

import os
import pathlib

_SUFFIXES = {".tflite": "tflite", ".onnx": "onnx", ".keras": "keras"}


def check_target(path: str | os.PathLike, format: str) -> None:
    """Raises `ValueError` if an artifact does not belong at a path.

    It does not if the suffix is that of another format, the path is a symbolic
    link, it is a file and a folder is to be written, it is a folder and a file
    is to be written, or it is a folder that holds anything but a SavedModel.
    """
    _check_suffix(path, format)
    path = pathlib.Path(path)
    if path.is_symlink():
        raise ValueError(
            f"{path} is a symbolic link, which would be replaced: name what it "
            f"points to, {os.readlink(path)}."
        )
    if format != "tf_saved_model":
        if path.is_dir():
            raise ValueError(
                f"{path} is a folder, and format {format!r} is one file: name "
                "a file."
            )
    elif path.exists() and not path.is_dir():
        raise ValueError(
            f"{path} is a file, and a SavedModel is a folder that would "
            "replace it: name a folder."
        )
    elif (
        path.is_dir()
        and not (path / "saved_model.pb").exists()
        and any(path.iterdir())
    ):
        raise ValueError(
            f"{path} is a folder without a SavedModel, and would be replaced "
            "as a whole: name a new one."
        )


def prepare_target(path: str | os.PathLike, format: str) -> pathlib.Path:
    """The path, checked by `check_target`; creates its parent folder."""
    check_target(path, format)
    target = pathlib.Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


def _check_suffix(path: str | os.PathLike, format: str) -> None:
    meant = _SUFFIXES.get(pathlib.Path(path).suffix, format)
    if meant == format:
        return
    way = "model.save" if meant == "keras" else f"format={meant!r}"
    raise ValueError(
        f"The path must suit format {format!r}, got {os.fspath(path)!r}, whose "
        f"suffix is for {way}."
    )
