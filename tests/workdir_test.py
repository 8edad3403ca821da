import os
import pathlib

import keras
import numpy as np
import pytest

from composer_tf.workdir import (
    EpochCheckpoint,
    WorkdirError,
    atomic_path,
    check_folder,
    claim,
    differences,
    locked,
    read_json,
    write_json,
)


def trained_model(steps=1):
    """A small model whose optimizer has a state too."""
    model = keras.Sequential([keras.Input([3]), keras.layers.Dense(2)])
    model.compile("adam", "mse")
    for _ in range(steps):
        model.train_on_batch(np.ones([4, 3]), np.ones([4, 2]))
    return model


def fail_halfway(path):
    path.write_bytes(b"half")
    raise OSError("disk is full")


def save(folder, *epochs):
    """A folder of checkpoints as `fit` makes it; returns the model."""
    model = trained_model()
    checkpoint = EpochCheckpoint(folder)
    checkpoint.set_model(model)
    for epoch in epochs:
        model.train_on_batch(np.ones([4, 3]), np.ones([4, 2]))
        checkpoint.on_epoch_end(epoch - 1)  # Keras counts from 0.
    return model


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


@pytest.mark.parametrize(
    "damaged", [b"", b'{"a": 1', b"\x00" * 20, b"\xff\xfe\xfa"]
)
def test_read_json_names_a_damaged_file(tmp_path, damaged):
    path = tmp_path / "file.json"
    path.write_bytes(damaged)
    with pytest.raises(WorkdirError, match=r"file\.json is damaged"):
        read_json(path)
    assert path.read_bytes() == damaged


def test_checkpoints_keep_the_latest_two(tmp_path):
    save(tmp_path / "new" / "folder", 1, 2, 3, 4)
    assert names(tmp_path / "new" / "folder") == [
        "epoch-000003.weights.h5",
        "epoch-000004.weights.h5",
    ]


def test_a_resumed_run_keeps_the_latest_two(tmp_path):
    save(tmp_path, 9, 10)
    save(tmp_path, 11)
    assert names(tmp_path) == [
        "epoch-000010.weights.h5",
        "epoch-000011.weights.h5",
    ]


def test_restore_gives_epoch_weights_and_optimizer(tmp_path):
    saved = save(tmp_path, 9, 10)
    model = trained_model(steps=0)
    assert EpochCheckpoint(tmp_path).restore(model) == 10
    for actual, expected in zip(
        model.weights + model.optimizer.variables,
        saved.weights + saved.optimizer.variables,
        strict=True,
    ):
        np.testing.assert_array_equal(actual, expected)
    assert int(model.optimizer.iterations.numpy()) == 3


def test_restore_without_checkpoints_changes_nothing(tmp_path):
    model = trained_model()
    before = model.get_weights()
    assert EpochCheckpoint(tmp_path / "absent").restore(model) == 0
    assert EpochCheckpoint(tmp_path).restore(model) == 0
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)
    assert names(tmp_path) == []


@pytest.mark.parametrize("left", [0, 0.5, 0.99])
def test_a_truncated_checkpoint_is_named_and_nothing_deleted(tmp_path, left):
    save(tmp_path, 1, 2)
    path = tmp_path / "epoch-000002.weights.h5"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(left * len(whole))])
    before = contents(tmp_path)
    with pytest.raises(WorkdirError, match=path.name):
        EpochCheckpoint(tmp_path).restore(trained_model(steps=0))
    assert contents(tmp_path) == before


def test_a_checkpoint_that_is_garbage_is_named(tmp_path):
    save(tmp_path, 1, 2)
    path = tmp_path / "epoch-000002.weights.h5"
    path.write_bytes(b"\x00" * path.stat().st_size)
    with pytest.raises(WorkdirError, match=path.name):
        EpochCheckpoint(tmp_path).restore(trained_model(steps=0))


def test_without_the_damaged_checkpoint_the_one_before_is_taken(tmp_path):
    save(tmp_path, 1, 2)
    (tmp_path / "epoch-000002.weights.h5").unlink()
    assert EpochCheckpoint(tmp_path).restore(trained_model(steps=0)) == 1


def test_a_checkpoint_of_another_model_is_named(tmp_path):
    save(tmp_path, 1)
    other = keras.Sequential([keras.Input([3]), keras.layers.Dense(7)])
    other.compile("adam", "mse")
    with pytest.raises(WorkdirError, match=r"epoch-000001\.weights\.h5"):
        EpochCheckpoint(tmp_path).restore(other)
    assert names(tmp_path) == ["epoch-000001.weights.h5"]


def test_an_unfinished_checkpoint_is_not_taken(tmp_path):
    save(tmp_path, 1)
    # What a killed process leaves behind.
    partial = tmp_path / "partial-123-epoch-000002.weights.h5"
    partial.write_bytes(b"half")
    assert EpochCheckpoint(tmp_path).restore(trained_model(steps=0)) == 1


def test_a_failed_save_leaves_the_checkpoints_as_they_are(
    tmp_path, monkeypatch
):
    model = save(tmp_path, 1, 2)
    before = contents(tmp_path)
    monkeypatch.setattr(model, "save_weights", fail_halfway)
    checkpoint = EpochCheckpoint(tmp_path)
    checkpoint.set_model(model)
    with pytest.raises(OSError, match="disk"):
        checkpoint.on_epoch_end(2)
    assert contents(tmp_path) == before


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


def test_differences_names_every_changed_added_and_missing_field():
    old = {"a": {"b": {"c": 1}}, "same": 0, "gone": 2}
    new = {"a": {"b": {"c": 3}}, "same": 0, "new": "x"}
    assert differences(old, new) == [
        "a.b.c: 1 -> 3",
        "gone: 2 -> None",
        "new: None -> x",
    ]


def test_a_folder_has_one_process_at_a_time(tmp_path):
    folder = tmp_path / "runs" / "first"
    in_use = pytest.raises(WorkdirError, match="in use by another process")
    with locked(folder), in_use, locked(folder):
        pass
    with locked(folder), locked(folder.with_name("second")):
        pass


def test_a_folder_that_was_claimed_meanwhile_is_not_taken(tmp_path):
    check_folder(tmp_path, {"seed": 1})
    with locked(tmp_path):
        claim(tmp_path, {"seed": 0})
    with locked(tmp_path), pytest.raises(WorkdirError, match="seed: 0 -> 1"):
        claim(tmp_path, {"seed": 1})
    assert read_json(tmp_path / "config.json") == {"seed": 0}
