"""Hosting on reserved machines, which cost the same whether they are busy or idle.

docs/economics.md has the formulas.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from tunepoint.files.amounts import Amount
from tunepoint.stats.arrays import Floats

HOURS_PER_MONTH = 730.0
"""The 8,760 hours of a year / 12."""
HOURS_PER_WEEK = 168.0
"""7 x 24: service day and night."""


class Dedicated(BaseModel):
    """Reserved machines: each costs by the hour, and sustains a number of requests per second."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)
    mode: Literal["dedicated"] = "dedicated"
    usd_per_hour: Amount
    """Price of one machine for an hour."""
    requests_per_second: Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]
    """Highest request rate of one machine within the latency limit, as `tunepoint load` measures it."""
    utilisation: Annotated[float, Field(gt=0, le=1)] = 0.7
    """Share of that rate at which the busiest hour may run."""
    peak: Annotated[float, Field(ge=1, le=1_000)] = 3.0
    """Requests in the busiest hour over those in a mean hour of service."""
    least: Annotated[int, Field(ge=1, le=10_000)] = 1
    """Machines that run even without requests."""
    hours_a_week: Annotated[float, Field(gt=0, le=HOURS_PER_WEEK)] = HOURS_PER_WEEK
    """Hours of service; machines off at night cost less, and the other hours get their requests."""

    @property
    def hours_per_month(self) -> float:
        """Hours of service in a month."""
        return HOURS_PER_MONTH * self.hours_a_week / HOURS_PER_WEEK

    @property
    def queries_per_machine(self) -> float:
        """Queries per month that one machine can take."""
        return self.requests_per_second * self.utilisation / self.peak * 3600 * self.hours_per_month

    def machines(self, queries_per_month: Floats) -> Floats:
        """Return the number of machines for queries per month, in the shape of the argument."""
        # 1e-9: rounding errors must not add a machine where the division has no remainder.
        needed = np.ceil(np.asarray(queries_per_month, np.float64) / self.queries_per_machine - 1e-9)
        return np.maximum(needed, float(self.least))


def usd_per_thousand(usd_per_hour: float, requests_per_second: float) -> float:
    """Return the cost of 1,000 calls on a machine that is never idle: $/h / (3600 x requests/s) x 1000."""
    return usd_per_hour / (3600 * requests_per_second) * 1_000
