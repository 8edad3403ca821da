"""Estimators of the policy gradient (appendix A)."""

from composer_tf.estimators.estimator import Estimator as Estimator
from composer_tf.estimators.exact import Exact as Exact
from composer_tf.estimators.leave_one_out import LeaveOneOut as LeaveOneOut
from composer_tf.estimators.reinforce import Reinforce as Reinforce

_BY_NAME = {
    "reinforce": Reinforce,
    "leave_one_out": LeaveOneOut,
    "exact": Exact,
}


def get(estimator: str | Estimator) -> Estimator:
    """An estimator by name, with its defaults, or the object itself.

    Args:
        estimator: `"reinforce"`, `"leave_one_out"`, `"exact"`, or an
            `Estimator`.

    Raises:
        ValueError: If the name is unknown.
        TypeError: If it is neither a name nor an `Estimator`.
    """
    if isinstance(estimator, Estimator):
        return estimator
    if not isinstance(estimator, str):
        raise TypeError(
            f"`estimator` must be a name or an Estimator, got {estimator!r}."
        )
    if estimator not in _BY_NAME:
        raise ValueError(
            f"`estimator` must be one of {sorted(_BY_NAME)} or an Estimator, "
            f"got {estimator!r}."
        )
    return _BY_NAME[estimator]()
