"""When money is spent: months of a horizon, growing traffic, and dollars that are worth less later."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tunepoint.stats.arrays import Floats

MAX_VOLUMES = 6
"""Volumes that stand for all months where there are more of them. With 24 months that each have a tenth more
queries than the one before, the cost of a cached prompt is within 0.3% of that month by month."""


@dataclass(frozen=True)
class Schedule:
    """A horizon; month m of it is paid at its end, so its dollars are divided by (1 + r)^(m/12).

    Without growth and discount every weight is the number of months.
    """

    months: float
    growth: float = 0.0
    """Of the queries, from each month to the next."""
    discount: float = 0.0
    """r, a year."""

    @property
    def month_shares(self) -> Floats:
        """(M,) share of each month that lies within the horizon: 1, and perhaps less for the last."""
        # Without the tolerance a horizon that is computed as 12.000000001 months would have a 13th.
        shares = np.ones(math.ceil(self.months - 1e-9))
        shares[-1] = self.months - (len(shares) - 1)
        return shares

    @property
    def present(self) -> Floats:
        """(M,) present value of a dollar in each month, times the month's share."""
        return np.asarray(self.month_shares * self.present_value(np.arange(1.0, len(self.month_shares) + 1)))

    @property
    def traffic(self) -> Floats:
        """(M,) queries of each month over those of the first."""
        return np.asarray((1 + self.growth) ** np.arange(len(self.month_shares)))

    def present_value(self, month: Floats) -> Floats:
        """Return what a dollar paid after this many months is worth today."""
        return np.asarray((1 + self.discount) ** (-month / 12), np.float64)

    @property
    def monthly_weight(self) -> float:
        """Present value of a dollar in every month of the horizon."""
        return float(self.present.sum())

    @property
    def query_weight(self) -> float:
        """Present value of a dollar for each query, per query of the first month."""
        return float((self.present * self.traffic).sum())

    @property
    def volumes(self) -> tuple[Floats, Floats]:
        """Weights and volumes (N,) that stand for the months, where a cost of an answer depends on them.

        The weights add up to `query_weight`. Volumes are over that of the first month. Without growth one
        stands for all; otherwise months are taken together, so that each of at most `MAX_VOLUMES` weighs
        about the same.
        """
        weights = self.present * self.traffic
        if self.growth == 0:
            return np.array([weights.sum()], np.float64), np.ones(1)
        if len(weights) <= MAX_VOLUMES:
            return weights, self.traffic
        before = (weights.cumsum() - weights / 2) / weights.sum()
        groups = np.minimum((before * MAX_VOLUMES).astype(int), MAX_VOLUMES - 1)
        summed = np.bincount(groups, weights, MAX_VOLUMES)
        volumes = np.bincount(groups, weights * self.traffic, MAX_VOLUMES)
        used = summed > 0
        return np.asarray(summed[used], np.float64), np.asarray(volumes[used] / summed[used], np.float64)

    def events(self, every: float | None, first: float | None = None) -> float:
        """Return the present value of a dollar that is paid periodically, before the end of the horizon.

        Args:
            every: months between payments; a single payment, at `first`, if None.
            first: months until the first payment; `every` if None. No payment if both are None.

        """
        start = every if first is None else first
        if start is None or start >= self.months:
            return 0.0
        count = 1 if every is None else math.ceil((self.months - start) / every)
        return float(self.present_value(start + (every or 0.0) * np.arange(count, dtype=np.float64)).sum())
