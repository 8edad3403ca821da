import pytest

from composer_tf import estimators


@pytest.mark.parametrize(
    ("name", "cls"),
    [
        ("reinforce", estimators.Reinforce),
        ("leave_one_out", estimators.LeaveOneOut),
        ("exact", estimators.Exact),
    ],
)
def test_by_name_makes_a_new_one_with_defaults(name, cls):
    estimator = estimators.get(name)
    assert type(estimator) is cls
    assert estimator is not estimators.get(name)
    defaults = {**cls().get_config(), "name": estimator.name}
    assert estimator.get_config() == defaults


def test_an_estimator_is_itself():
    estimator = estimators.LeaveOneOut(num_samples=2)
    assert estimators.get(estimator) is estimator


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match=r"'leave_one_out'.* got 'ppo'"):
        estimators.get("ppo")


@pytest.mark.parametrize("wrong", [None, 3, estimators.Exact])
def test_what_is_no_estimator_is_refused(wrong):
    with pytest.raises(TypeError, match="a name or an Estimator"):
        estimators.get(wrong)
