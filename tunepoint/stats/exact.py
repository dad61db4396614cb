"""Intervals and p-values for small samples: few groups, or few groups in which two arms differ."""

from __future__ import annotations

import numpy as np
import scipy

from tunepoint.stats.arrays import Floats, Integers
from tunepoint.stats.intervals import Interval
from tunepoint.stats.sequential import betting_interval

MIN_NORMAL_GROUPS = 8
"""Groups, or groups in which two arms differ, from which the normal approximation alone is used.

Below it an interval is the union of the normal one with the exact one of this module.
"""


def exact_score(scores: Floats, codes: Integers, *, level: float) -> Interval:
    """Return an interval of a mean score that holds for any sample size.

    Independent items that are right or wrong have the interval of Clopper and Pearson 1934 ("The use of
    confidence or fiducial limits illustrated in the case of the binomial"); others a betting interval.

    Args:
        scores: (n,) in [0, 1].
        codes: (n,) group of each item, from 0.
        level: of the interval, as in .95.

    """
    if int(codes.max()) + 1 == len(scores) and np.isin(scores, (0.0, 1.0)).all():
        exact = scipy.stats.binomtest(int(scores.sum()), len(scores)).proportion_ci(level, method="exact")
        return Interval(float(scores.mean()), exact.low, exact.high)
    return betting_interval(scores.clip(0, 1), codes, level=level, low=0.0)


def exact_difference(lead: Floats, codes: Integers, *, level: float) -> Interval:
    """Return an interval of a mean difference of few groups, or one that is 0 in nearly all groups.

    Fewer than 8 groups have a betting interval. Otherwise the share of groups that differ, in each
    direction, has the limits of Clopper and Pearson 1934, and the size of a difference lies between the
    smallest and the largest group sum in the sample; a direction that never occurred counts as one item.

    Args:
        lead: (n,) paired differences in [-1, 1].
        codes: (n,) group of each item, from 0.
        level: of the interval, as in .95.

    """
    groups = int(codes.max()) + 1
    if groups < MIN_NORMAL_GROUPS:
        return betting_interval(lead, codes, level=level)
    sums: Floats = np.bincount(codes, weights=lead, minlength=groups).astype(np.float64)
    level_each = 1 - (1 - level) / 2  # Bonferroni: the gains and the losses each have their own limits
    gain, loss = (_positive_part(signed, level_each) for signed in (sums, -sums))
    groups_per_item = groups / len(lead)
    low, high = groups_per_item * (gain[0] - loss[1]), groups_per_item * (gain[1] - loss[0])
    return Interval(float(lead.mean()), max(-1.0, low), min(1.0, high))


def _positive_part(sums: Floats, level: float) -> tuple[float, float]:
    """Return limits of the mean over groups of max(sum, 0)."""
    above = sums[sums > 1e-12]
    limits = scipy.stats.binomtest(len(above), len(sums)).proportion_ci(level, method="exact")
    if not len(above):
        return 0.0, float(limits.high)
    return float(limits.low * above.min()), float(limits.high * above.max())


def sign_flip_p_value(lead: Floats, codes: Integers) -> float:
    """Return the two-sided p-value of the mean difference under all changes of sign of the groups' sums.

    The randomization test of Fisher 1935, "The Design of Experiments", section 21.

    Args:
        lead: (n,) paired differences; fewer than 8 groups differ, as the signs number 2 ** groups.
        codes: (n,) group of each item, from 0.

    """
    sums = np.bincount(codes, weights=lead)
    sums = sums[sums != 0]
    if not len(sums):
        return 1.0
    # Row b of the (2 ** groups, groups) signs is -1 where number b has a bit.
    signs = 1 - 2 * ((np.arange(2 ** len(sums))[:, None] >> np.arange(len(sums))) & 1)
    return float((np.abs(signs @ sums) >= abs(sums.sum()) - 1e-12).mean())
