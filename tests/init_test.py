"""The package's own names."""

import composer_tf as ct


def test_what_is_imported_at_its_first_use_is_listed_before():
    assert {"deployment", "evaluation", "evaluate_tradeoff"} <= set(dir(ct))
    assert ct.deployment.deploy
