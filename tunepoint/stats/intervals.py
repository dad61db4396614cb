"""An estimate with its interval: one never travels without the other."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tunepoint.errors import EvidenceError


@dataclass(frozen=True)
class Interval:
    """An estimate with its bounds, all in the unit of the estimate."""

    estimate: float
    low: float
    high: float

    def __contains__(self, value: object) -> bool:
        return isinstance(value, (int, float)) and self.low <= value <= self.high


def score_interval(mean: float, variance: float, groups: int, critical: float) -> Interval:
    """Return Wilson's interval of a mean score in [0, 1], with the effective sample size.

    Args:
        mean: the estimate, in [0, 1].
        variance: its estimated sampling variance, clusters and training seeds included.
        groups: independent groups of items; the sample size if the variance is 0 (all right or
            all wrong), where the plain interval would have no width.
        critical: multiplier of the standard error, 1.96 for a single 95% interval.

    The effective size mean (1 - mean) / variance carries clustering into the interval
    (Korn and Graubard 1998, "Confidence intervals for proportions with small expected
    number of positive counts"); the interval is equation 4 of Brown, Cai and DasGupta
    2001, "Interval estimation for a binomial proportion" (Wilson 1927).

    Raises:
        EvidenceError: a mean outside [0, 1], or no item.

    """
    if not 0 <= mean <= 1:
        raise EvidenceError(f"scores lie in 0..1, got a mean of {mean:g}")
    if groups < 1:
        raise EvidenceError("an interval needs at least 1 item, got 0")
    spread = mean * (1 - mean)
    size = spread / variance if variance > 0 and spread > 0 else float(groups)
    square = critical**2
    center = (mean + square / (2 * size)) / (1 + square / size)
    half_width = critical / (1 + square / size) * math.sqrt(spread / size + square / (4 * size**2))
    low, high = max(0.0, center - half_width), min(1.0, center + half_width)
    return Interval(mean, min(mean, low), max(mean, high))  # rounding must not put the mean outside
