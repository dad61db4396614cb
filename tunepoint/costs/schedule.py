"""When money is spent: months of a horizon, traffic that grows, dollars that are worth less later."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tunepoint.stats.arrays import Floats


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
    def parts(self) -> Floats:
        """(M,) share of each month that lies within the horizon: 1, and perhaps less for the last."""
        whole = np.ones(math.ceil(self.months - 1e-9))
        whole[-1] = self.months - (len(whole) - 1)
        return whole

    @property
    def present(self) -> Floats:
        """(M,) what a dollar of each month is worth today, times the month's share."""
        return np.asarray(self.parts * self.worth(np.arange(1.0, len(self.parts) + 1)))

    @property
    def traffic(self) -> Floats:
        """(M,) queries of each month over those of the first."""
        return np.asarray((1 + self.growth) ** np.arange(len(self.parts)))

    def worth(self, month: Floats) -> Floats:
        """What a dollar that is paid after so many months is worth today."""
        return np.asarray((1 + self.discount) ** (-month / 12), np.float64)

    @property
    def fixed(self) -> float:
        """Weight of a dollar a month."""
        return float(self.present.sum())

    @property
    def queries(self) -> float:
        """Weight of a dollar a month at the first month's traffic."""
        return float((self.present * self.traffic).sum())

    def events(self, every: float | None, first: float | None = None) -> float:
        """Weight of a dollar that is paid every so many months, within the horizon and not at its end.

        Args:
            every: once only, at `first`, if None; never if there is no `first` either.
            first: months until the first time; `every` if None.

        """
        start = every if first is None else first
        if start is None or start >= self.months:
            return 0.0
        count = 1 if every is None else math.ceil((self.months - start) / every)
        return float(self.worth(start + (every or 0.0) * np.arange(count, dtype=np.float64)).sum())
