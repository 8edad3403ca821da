"""Which gammas are inputs, and what is said of those that cannot be."""

import pytest

from composer_tf.exporters.exposure import expose
from composer_tf.exporters.routed_model import GammaInput

ONE = [GammaInput("glimpse", -4.0, 6.0, 0.0)]
TWO = [*ONE, GammaInput("entropy", 0.0, 1.0, 0.0)]


def test_a_gamma_is_fixed_or_has_a_default():
    both = {"glimpse": 1.0}
    with pytest.raises(ValueError, match="in `fix` and in `default_gamma`"):
        expose(TWO, both, both)


def test_one_gamma_needs_no_name():
    assert expose(ONE, default=0.5) == expose(ONE, default={"glimpse": 0.5})
    assert expose(ONE, 0.0) == expose(ONE, {"glimpse": 0.0})
    assert not expose(ONE, 0.0).free
    with pytest.raises(ValueError, match=r"support \[-4, 6\], got 7"):
        expose(ONE, 7.0)


@pytest.mark.parametrize(("name", "at"), [("fix", 0), ("default_gamma", 1)])
def test_several_gammas_have_names(name, at):
    values = [None, None]
    values[at] = 0.5
    with pytest.raises(ValueError, match=f"`{name}`.*'entropy'.*got 0.5"):
        expose(TWO, *values)
    values[at] = [0.5]
    with pytest.raises(TypeError, match=rf"`{name}`.*got \[0.5\]"):
        expose(ONE, *values)
