"""What tests of runs share."""

import pytest


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """Of TFDS, empty until the first run prepares the digits in it."""
    return tmp_path_factory.mktemp("tfds")
