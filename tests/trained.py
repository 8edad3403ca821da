"""What is in a model.keras file, to compare two of them."""

import io
import zipfile

import h5py


def arrays(folder):
    """All in model.keras: weights, optimizer and random states, as bytes."""
    found = {}

    def add(name, item):
        if isinstance(item, h5py.Dataset):
            found[name] = item[()].tobytes()

    with zipfile.ZipFile(folder / "model.keras") as archive:
        weights = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(weights) as file:
        file.visititems(add)
    assert any("optimizer" in name for name in found)
    assert any("random_state" in name for name in found)
    return found


def assert_same_model(folder, other):
    expected, actual = arrays(folder), arrays(other)
    assert actual.keys() == expected.keys()
    assert [k for k in expected if actual[k] != expected[k]] == []
