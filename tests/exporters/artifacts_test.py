"""Artifacts are loaded when they are opened."""

import pytest

from composer_tf import exporters
from composer_tf.exporters.artifacts import open_artifact


@pytest.mark.parametrize("format", exporters.FORMATS)
def test_a_file_that_is_missing_is_not_opened(tmp_path, format):
    with pytest.raises(Exception, match="missing"):
        open_artifact(tmp_path / "missing", format)
