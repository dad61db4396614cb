"""A judge's scores of all answers, corrected by people's grades of some: prediction-powered inference.

The estimate is PPI++'s for a mean (Angelopoulos, Duchi and Zrnic 2023, "PPI++: Efficient
Prediction-Powered Inference"), over all items, the graded ones included: the mean of the judge's
scores times the power, plus the mean residual of people's grades. That is the regression estimator
of two-phase sampling (Cochran 1977, "Sampling Techniques", section 12.5).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

from tunepoint.errors import EvidenceError
from tunepoint.stats.arrays import Floats
from tunepoint.stats.intervals import Interval

MIN_GRADED_GROUPS = 3
"""Groups with people's grades from which a correction has a standard error: g - 2 divides its variance."""


@dataclass(frozen=True)
class Rectified:
    """Corrected scores; their mean and its standard error are those of the corrected estimate."""

    scores: Floats
    """(S, n) contribution of each item to the estimate; a single one may lie outside 0..1."""
    groups: int
    """Independent groups of items that people graded."""
    power: float
    """Weight of the judge's scores, from 0 (ignored) to 1; lambda in PPI++."""
    correction: Interval
    """Corrected mean minus the judge's mean, with a 95% interval of the judge's error."""


def rectify(judged: Floats, human: Floats, clusters: NDArray[np.intp] | None = None) -> Rectified:
    """Correct a judge's scores of one arm by people's grades of some of its answers.

    Args:
        judged: (S, n) the judge's scores in 0..1, one row per training seed.
        human: (S, n) people's grades of the same answers in 0..1; NaN where there is none. Only
            items with a grade for every seed count; they are treated as a random sample.
        clusters: (n,) group of each item; None if items are independent.

    Let f be the judge's score of an item, y the people's grade, r = y - power f the residual on the
    m graded items, and R the mean residual. Every item contributes power f + R, and a graded one
    n / m (r - R) as well, times sqrt((g - 1) / (g - 2)) because the power was estimated from the same
    g groups. The mean of the contributions is the estimate, and the variance of that mean, over items
    or over clusters, is the variance of the estimate. Contributions can therefore replace scores.

    Raises:
        EvidenceError: fewer than three groups of items have people's grades.

    """
    graded = np.flatnonzero(~np.isnan(human).any(axis=0))
    items = judged.shape[1]
    groups = len(graded) if clusters is None else len(np.unique(clusters[graded]))
    if groups < MIN_GRADED_GROUPS:
        raise EvidenceError(
            f"people graded {len(graded)} of {items} items in {groups} groups; a correction needs at least "
            f"{MIN_GRADED_GROUPS} groups: grade more answers"
        )
    power = _best_power(judged.mean(axis=0), human[:, graded].mean(axis=0), graded)
    residuals = human[:, graded] - power * judged[:, graded]
    mean_residual = float(residuals.mean())
    scores = power * judged + mean_residual
    widening = float(np.sqrt((groups - 1) / (groups - 2)))
    scores[:, graded] += items / len(graded) * (residuals - mean_residual) * widening
    codes = graded if clusters is None else clusters[graded]
    error = cluster_error((human - judged)[:, graded].mean(axis=0), codes)
    half_width = float(scipy.stats.t.ppf(0.975, groups - 1)) * error
    shift = float(scores.mean() - judged.mean())
    return Rectified(scores, groups, power, Interval(shift, shift - half_width, shift + half_width))


def _best_power(judged: Floats, human: Floats, graded: NDArray[np.intp]) -> float:
    """Return the power that minimizes the variance: lambda of PPI++, for all items at once.

    Args:
        judged: (n,) the judge's scores.
        human: (m,) people's grades of the graded items.
        graded: (m,) positions of the graded items.

    """
    variance = float(judged.var())
    if variance == 0:
        return 1.0  # constant scores carry no information, so any power gives the same estimate
    beside = judged[graded]
    covariance = float(((human - human.mean()) * (beside - beside.mean())).mean())
    return float(np.clip(covariance / variance, 0.0, 1.0))


def cluster_error(values: Floats, codes: NDArray[np.intp]) -> float:
    """Return the standard error of a mean of clustered values.

    The cluster-robust error with the G / (G - 1) correction (Cameron and Miller 2015, "A Practitioner's
    Guide to Cluster-Robust Inference", equation 11).

    Args:
        values: (n,) numbers.
        codes: (n,) cluster of each value, at least two different ones; numbers may be skipped.

    """
    clusters = np.unique(codes, return_inverse=True)[1]
    sums = np.bincount(clusters, weights=values - values.mean())
    return float(np.sqrt((sums**2).sum() * len(sums) / (len(sums) - 1)) / len(values))
