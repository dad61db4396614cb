"""How an arm is served where it is not paid by the answer: machines that run whether asked or not.

docs/economics.md has the formulas.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from tunepoint.files.amounts import Amount
from tunepoint.stats.arrays import Floats

HOURS_A_MONTH = 730.0
"""8,760 hours of a year / 12."""
HOURS_A_WEEK = 168.0


class Dedicated(BaseModel):
    """Reserved machines: each costs by the hour that it is on, and sustains so many requests a second."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)
    mode: Literal["dedicated"] = "dedicated"
    usd_per_hour: Amount
    """Of one machine."""
    requests_per_second: Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]
    """What one machine sustains within the latency limit, measured and never at saturation."""
    utilisation: Annotated[float, Field(gt=0, le=1)] = 0.7
    """Share of that at which the busiest hour is planned."""
    peak: Annotated[float, Field(ge=1, le=1_000)] = 3.0
    """Requests of the busiest hour over those of a mean hour of service."""
    least: Annotated[int, Field(ge=1, le=10_000)] = 1
    """Machines that are on however few requests there are."""
    hours_a_week: Annotated[float, Field(gt=0, le=HOURS_A_WEEK)] = HOURS_A_WEEK
    """Hours of service; off at night and over the weekend costs less and makes the rest busier."""

    @property
    def hours_a_month(self) -> float:
        """Hours of service in a month."""
        return HOURS_A_MONTH * self.hours_a_week / HOURS_A_WEEK

    @property
    def queries_a_machine(self) -> float:
        """Queries a month that one machine can take."""
        return self.requests_per_second * self.utilisation / self.peak * 3600 * self.hours_a_month

    def machines(self, queries_per_month: Floats) -> Floats:
        """How many machines so many queries a month need; the same shape."""
        needed = np.ceil(np.asarray(queries_per_month, np.float64) / self.queries_a_machine - 1e-9)
        return np.maximum(needed, float(self.least))


def usd_per_thousand(usd_per_hour: float, requests_per_second: float) -> float:
    """Hosting cost of 1,000 calls on a machine that is never idle: $/h / (3600 x requests/s) x 1000."""
    return usd_per_hour / (3600 * requests_per_second) * 1_000
