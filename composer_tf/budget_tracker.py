"""Keeps the mean cost of a stream at a budget, whatever data come."""

from typing import Any

import numpy as np


class BudgetTracker:
    """Turns the budget of each call by what the calls before it cost.

    A calibrated model keeps a budget on average over data like those that it
    was calibrated on. Where data drift, or are harder at some hours, they cost
    more or less. The tracker keeps account: what the stream has saved, or spent
    too much, is spread over the next `horizon` examples.

    If the dearest gamma costs at least `budget` and the cheapest at most, then
    after N examples, in batches of at most `horizon`, the mean cost is within
    `horizon / N` of `budget`, for any data in any order: the balance cannot
    grow beyond `horizon`, since towards its ends the model is at its dearest
    or cheapest. (So integral control keeps a set point; nothing here looks at
    labels or needs a model of the drift.)

    Args:
        budget: The mean cost to keep, a fraction of full cost in (0, 1].
        horizon: Examples over which to make up for a deviation, at least 1.
            The shorter, the closer the mean is kept, and the more the budget
            of one call differs from that of the next.

    Attributes:
        balance: Full costs saved so far; below 0, spent too much. At most
            `horizon` of either is carried over.

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
        """For the next call, within [0, 1]."""
        budget = self._target + self.balance / self._horizon
        return min(max(budget, 0.0), 1.0)

    def update(self, costs: Any) -> None:
        """Takes account of a call.

        Args:
            costs: What its examples cost: the output `cost` of an artifact, or
                `Composition.cost` of a model, `[B]`, or a number for one.

        Raises:
            ValueError: If they are no fractions of full cost.
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
