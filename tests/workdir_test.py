"""A folder has one config and one process."""

import pytest

from composer_tf.workdir import (
    WorkdirError,
    check_folder,
    claim,
    differences,
    locked,
    read_json,
)


@pytest.mark.parametrize(
    "damaged", [b"", b'{"a": 1', b"\x00" * 20, b"\xff\xfe\xfa"]
)
def test_read_json_names_a_damaged_file(tmp_path, damaged):
    path = tmp_path / "file.json"
    path.write_bytes(damaged)
    with pytest.raises(WorkdirError, match=r"file\.json is damaged"):
        read_json(path)
    assert path.read_bytes() == damaged


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
