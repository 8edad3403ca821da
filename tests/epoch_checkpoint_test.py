"""Checkpoints: the latest two, or what is wrong with them."""

import keras
import numpy as np
import pytest

from composer_tf.epoch_checkpoint import EpochCheckpoint
from composer_tf.workdir import WorkdirError


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
