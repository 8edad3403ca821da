"""Keeps the mean cost of a stream at a budget, for any data."""

from typing import Any

import numpy as np


class BudgetTracker:
    """Adjusts the budget of each call by what the previous calls cost.

    A calibrated model keeps a budget on average over data like those that it
    was calibrated on. Data that drift, or are harder at some hours, cost more
    or less. The tracker keeps a balance: what the stream has saved or overspent
    is spread over the next `horizon` examples.

    If the dearest gamma costs at least `budget` and the cheapest at most
    `budget`, then after N examples, in batches of at most `horizon`, the mean
    cost is within `horizon / N` of `budget`, for any data in any order: the
    balance cannot grow beyond `horizon`, since near its ends the model is at
    its dearest or cheapest. (This is integral control to a set point; it needs
    neither labels nor a model of the drift.)

    Args:
        budget: Mean cost to keep, a fraction of full cost in (0, 1].
        horizon: Number of examples over which to make up for a deviation, at
            least 1. The shorter it is, the closer the mean is kept, and the
            more the budget varies from call to call.

    Attributes:
        balance: Amount saved so far, in units of full cost; overspent if below
            0. At most `horizon` of either is carried over.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
        >>> tracker = BudgetTracker(0.5, horizon=10)
        >>> tracker.update([0.9, 0.9])  # Spends 0.8 too much, ...
        >>> round(tracker.budget, 2)  # ... made up for over 10 examples.
        0.42
    """

    def __init__(self, budget: float, horizon: int = 1000) -> None:
        if not 0.0 < budget <= 1.0:
            raise ValueError(
                "`budget` must be a fraction of full cost, above 0 and at most "
                f"1, got {budget}."
            )
        if not 1 <= horizon < float("inf"):
            raise ValueError(
                f"`horizon` must be a number of examples, got {horizon}."
            )
        self._target = float(budget)
        self._horizon = float(horizon)
        self.balance = 0.0

    @property
    def budget(self) -> float:
        """Budget to pass to the next call, within [0, 1]."""
        budget = self._target + self.balance / self._horizon
        return min(max(budget, 0.0), 1.0)

    def update(self, costs: Any) -> None:
        """Updates the balance after a call.

        Args:
            costs: `[B]`, or a number for one example: costs of the call's
                examples, the output `cost` of an artifact or
                `Composition.cost` of a model.

        Raises:
            ValueError: If they are not fractions of full cost.
        """
        spent = np.asarray(costs, np.float64).ravel()
        # Rounding may take a full cost above 1.
        bad = spent[~((spent >= 0.0) & (spent <= 1.0 + 1e-3))]
        if bad.size:
            raise ValueError(
                "`costs` must be fractions of full cost, from 0 to 1, got "
                f"{bad[0]:g}."
            )
        balance = self.balance + np.sum(self._target - spent)
        self.balance = float(np.clip(balance, -self._horizon, self._horizon))
