"""The cluster bootstrap: what the analytic intervals are checked against."""

from __future__ import annotations

import numpy as np

from tunepoint.errors import EvidenceError
from tunepoint.stats.arrays import Floats
from tunepoint.stats.paired import JointScores

CHUNK = 2_000_000
"""Resampled groups held in memory at once."""


def bootstrap_means(joint: JointScores, resamples: int, rng: np.random.Generator) -> Floats:
    """(resamples, A) mean scores of resampled items, groups kept whole and arms kept paired.

    Groups are drawn with replacement; a mean is the sum of scores over the number of items drawn
    (Cameron, Gelbach and Miller 2008, the pairs cluster bootstrap).
    """
    if joint.means is None or joint.codes is None:
        raise EvidenceError("the bootstrap needs the scores of the items, not only their distribution")
    groups, arms = joint.groups, joint.means.shape[1]
    sums = np.zeros((groups, arms + 1), dtype=np.float32)
    np.add.at(sums[:, :arms], joint.codes, (joint.means - joint.estimates).astype(np.float32))
    sums[:, arms] = np.bincount(joint.codes, minlength=groups)
    found = np.empty((resamples, arms))
    rows = max(1, CHUNK // groups)
    for start in range(0, resamples, rows):
        count = min(rows, resamples - start)
        drawn = rng.integers(groups, size=(count, groups), dtype=np.uint32).astype(np.intp)
        drawn += np.arange(count)[:, None] * groups
        weights = np.bincount(drawn.ravel(), minlength=count * groups).reshape(count, groups)
        totals = weights.astype(np.float32) @ sums
        found[start : start + count] = totals[:, :arms] / totals[:, arms:]
    return found + joint.estimates


def spread_ratio(joint: JointScores, resampled: Floats, arm: int, against: int) -> float:
    """Bootstrap over analytic standard deviation of a difference, the part that items bring."""
    weights = np.zeros(len(joint.estimates))
    weights[arm], weights[against] = 1.0, -1.0
    analytic = float(np.sqrt(weights @ joint.item_covariance @ weights))
    return float((resampled[:, arm] - resampled[:, against]).std()) / analytic
