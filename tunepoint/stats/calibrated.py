"""A judge's scores of all answers, corrected by people's scores of some: prediction-powered inference.

The estimate is PPI++'s for a mean (Angelopoulos, Duchi and Zrnic 2023, "PPI++: Efficient
Prediction-Powered Inference"), written over all items, the labelled ones included: the judge's
mean times the power, plus the mean of what people said beyond it. That is the regression
estimator of two-phase sampling (Cochran 1977, section 12.5).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from tunepoint.errors import EvidenceError
from tunepoint.stats.arrays import Floats
from tunepoint.stats.intervals import Interval

FEWEST = 3
"""Groups that people must have scored for a correction to have an error at all."""


@dataclass(frozen=True)
class Rectified:
    """Scores whose mean, and the error of whose mean, are those of the corrected estimate."""

    scores: Floats
    """(S, n) what each item brings to the estimate; single ones may lie outside 0..1."""
    groups: int
    """Independent groups of items that people scored."""
    power: float
    """How much the judge's scores count, 0 (not at all) to 1."""
    correction: Interval
    """Corrected mean minus the judge's mean, with the 95% interval of the judge's error."""


def rectify(judged: Floats, human: Floats, clusters: NDArray[np.intp] | None = None) -> Rectified:
    """Correct a judge's scores of one arm by what people said of some of its answers.

    Args:
        judged: (S, n) the judge's scores, one row a training seed, in 0..1.
        human: (S, n) people's scores of the same answers; NaN where nobody looked. An item
            counts where every seed has one, and those items are taken as a random sample.
        clusters: (n,) group of each item; None when items are independent.

    With f the judge's score of an item and y the people's, r = y - power f on the labelled
    items, and its mean R: an item brings power f + R, and a labelled one n / m (r - R) on top,
    times sqrt((g - 1) / (g - 2)) for the power that was estimated from the same g groups of m
    items. Their mean is the estimate, and the variance of their mean is its variance, over items
    or over clusters, so that they can take the place of scores.

    Raises:
        EvidenceError: fewer than three groups of items have people's scores.

    """
    labelled = np.flatnonzero(~np.isnan(human).any(axis=0))
    items = judged.shape[1]
    groups = len(labelled) if clusters is None else len(np.unique(clusters[labelled]))
    if groups < FEWEST:
        raise EvidenceError(
            f"people scored {len(labelled)} of {items} items in {groups} groups; a correction needs "
            f"{FEWEST} groups at least"
        )
    power = _power(judged.mean(axis=0), human[:, labelled].mean(axis=0), labelled)
    residual = human[:, labelled] - power * judged[:, labelled]
    rest = float(residual.mean())
    scores = power * judged + rest
    widened = float(np.sqrt((groups - 1) / (groups - 2)))
    scores[:, labelled] += items / len(labelled) * (residual - rest) * widened
    codes = labelled if clusters is None else clusters[labelled]
    error = cluster_error((human - judged)[:, labelled].mean(axis=0), codes)
    half = float(stats.t.ppf(0.975, groups - 1)) * error
    moved = float(scores.mean() - judged.mean())
    return Rectified(scores, groups, power, Interval(moved, moved - half, moved + half))


def _power(judged: Floats, human: Floats, labelled: NDArray[np.intp]) -> float:
    """The power with the least variance: PPI++'s lambda, for all items instead of the unlabelled."""
    variance = float(judged.var())
    if variance == 0:
        return 1.0
    seen = judged[labelled]
    covariance = float(((human - human.mean()) * (seen - seen.mean())).mean())
    return float(np.clip(covariance / variance, 0.0, 1.0))


def cluster_error(values: Floats, codes: NDArray[np.intp]) -> float:
    """Standard error of the mean of values in at least two clusters, with the G / (G - 1) correction."""
    kept = np.unique(codes, return_inverse=True)[1]
    sums = np.bincount(kept, weights=values - values.mean())
    return float(np.sqrt((sums**2).sum() * len(sums) / (len(sums) - 1)) / len(values))
