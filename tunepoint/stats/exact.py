"""Intervals and p-values that need no large sample: for few groups, and for few in which two arms differ."""

from __future__ import annotations

import numpy as np
from scipy import stats

from tunepoint.stats.arrays import Floats, Integers
from tunepoint.stats.intervals import Interval
from tunepoint.stats.sequential import betting_interval

FEW = 8
"""Groups, or groups in which two arms differ, under which no interval is narrower than the one here."""


def exact_score(scores: Floats, codes: Integers, *, level: float) -> Interval:
    """Clopper and Pearson's interval for independent items that are right or wrong, else by betting.

    Args:
        scores: (n,) in [0, 1].
        codes: (n,) group of each item, from 0.

    """
    if int(codes.max()) + 1 == len(scores) and np.isin(scores, (0.0, 1.0)).all():
        exact = stats.binomtest(int(scores.sum()), len(scores)).proportion_ci(level, method="exact")
        return Interval(float(scores.mean()), exact.low, exact.high)
    return betting_interval(scores.clip(0, 1), codes, level=level, low=0.0)


def exact_difference(lead: Floats, codes: Integers, *, level: float) -> Interval:
    """Interval of a mean difference that is 0 in nearly all groups, or of few groups.

    Few groups bet. Else, how often a group differs, in either direction, has Clopper and Pearson's limits; by
    how much, is what was seen: at most the largest sum of a group, at least the smallest. One item stands
    for a direction that never occurred.

    Args:
        lead: (n,) paired differences in [-1, 1].
        codes: (n,) group of each item, from 0.

    """
    groups = int(codes.max()) + 1
    if groups < FEW:
        return betting_interval(lead, codes, level=level)
    sums: Floats = np.bincount(codes, weights=lead, minlength=groups).astype(np.float64)
    own = 1 - (1 - level) / 2  # either direction has its own limits
    high, low = (_rate(part, own) for part in (sums, -sums))
    scale = groups / len(lead)
    under, over = scale * (high[0] - low[1]), scale * (high[1] - low[0])
    return Interval(float(lead.mean()), max(-1.0, under), min(1.0, over))


def _rate(sums: Floats, level: float) -> tuple[float, float]:
    """Limits of the part of the mean group sum that the groups above 0 make."""
    above = sums[sums > 1e-12]
    limits = stats.binomtest(len(above), len(sums)).proportion_ci(level, method="exact")
    if not len(above):
        return 0.0, float(limits.high)
    return float(limits.low * above.min()), float(limits.high * above.max())


def sign_flips(lead: Floats, codes: Integers) -> float:
    """Two-sided p-value of few groups' sums under all changes of their signs (Fisher 1935, section 21)."""
    sums = np.bincount(codes, weights=lead)
    sums = sums[sums != 0]
    if not len(sums):
        return 1.0
    signs = 1 - 2 * ((np.arange(2 ** len(sums))[:, None] >> np.arange(len(sums))) & 1)
    return float((np.abs(signs @ sums) >= abs(sums.sum()) - 1e-12).mean())
