"""Outputs are whole or absent."""

import os
import pathlib

import pytest

from composer_tf.files import atomic_path, write_json
from composer_tf.workdir import read_json


def fail_halfway(path):
    path.write_bytes(b"half")
    raise OSError("disk is full")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_atomic_path_makes_the_file_when_all_is_written(tmp_path):
    with atomic_path(tmp_path / "new.txt") as path:
        path.write_text("half")
        assert not (tmp_path / "new.txt").exists()
    assert (tmp_path / "new.txt").read_text() == "half"
    assert names(tmp_path) == ["new.txt"]


def test_atomic_path_replaces_the_old_file_at_the_end_only(tmp_path):
    target = tmp_path / "file.txt"
    target.write_text("old")
    with atomic_path(target) as path:
        path.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"


def test_atomic_path_keeps_the_old_file_when_writing_fails(tmp_path):
    target = tmp_path / "file.txt"
    target.write_text("old")
    with pytest.raises(OSError, match="disk"), atomic_path(target) as path:
        fail_halfway(path)
    assert contents(tmp_path) == {"file.txt": b"old"}


def test_atomic_path_leaves_nothing_when_nothing_is_written(tmp_path):
    with pytest.raises(KeyboardInterrupt), atomic_path(tmp_path / "file.txt"):
        raise KeyboardInterrupt
    assert names(tmp_path) == []


def test_atomic_path_keeps_folder_and_suffixes(tmp_path):
    with atomic_path(tmp_path / "epoch.weights.h5") as path:
        path.touch()
        assert path.parent == tmp_path
        assert path.name.endswith(".weights.h5")


def test_json_round_trip(tmp_path):
    content = {"a": [1, 2.5, None, "é"], "b": {"c": True}}
    write_json(content, tmp_path / "file.json")
    assert read_json(tmp_path / "file.json") == content
    assert names(tmp_path) == ["file.json"]


def test_write_json_keeps_the_old_file_when_it_cannot_be_written(tmp_path):
    write_json({"a": 1}, tmp_path / "file.json")
    with pytest.raises(TypeError):
        write_json({"a": object()}, tmp_path / "file.json")
    assert read_json(tmp_path / "file.json") == {"a": 1}
    assert names(tmp_path) == ["file.json"]


def test_a_folder_replaces_a_folder_or_nothing(tmp_path):
    target = tmp_path / "folder"
    for content in ("old", "new"):
        with atomic_path(target) as partial:
            partial.mkdir()
            (partial / content).touch()
        assert [path.name for path in target.iterdir()] == [content]

    def interrupted():
        with atomic_path(target) as partial:
            partial.mkdir()
            raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError):
        interrupted()
    assert [path.name for path in target.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [target]


def test_what_a_killed_process_left_is_not_mixed_in(tmp_path):
    target = tmp_path / "folder"
    with atomic_path(target) as partial:
        left = partial
        partial.mkdir()
    left.mkdir()
    (left / "of another").touch()
    with atomic_path(target) as partial:
        partial.mkdir()
    assert list(target.iterdir()) == []


def test_the_old_folder_is_back_if_the_new_cannot_come(tmp_path, monkeypatch):
    target = tmp_path / "folder"
    target.mkdir()
    (target / "old").touch()
    rename = os.rename

    def failing(source, destination):
        if pathlib.Path(source).name.startswith("partial-"):
            raise OSError("no")
        rename(source, destination)

    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises(OSError, match="no"), atomic_path(target) as partial:
        partial.mkdir()
    assert [path.name for path in target.iterdir()] == ["old"]
