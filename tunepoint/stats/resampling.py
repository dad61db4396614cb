"""The cluster bootstrap, against which the analytic intervals are checked."""

from __future__ import annotations

import numpy as np

from tunepoint.errors import EvidenceError
from tunepoint.stats.arrays import Floats
from tunepoint.stats.paired import JointScores

MAX_RESAMPLED_GROUPS = 2_000_000
"""Resampled groups held in memory at once; it bounds the memory, not the result."""


def bootstrap_means(joint: JointScores, resamples: int, rng: np.random.Generator) -> Floats:
    """Return (resamples, A) mean scores of resampled items, groups kept whole and arms kept paired.

    Groups are drawn with replacement; a mean is the sum of scores over the number of drawn items (the
    pairs cluster bootstrap: Cameron, Gelbach and Miller 2008, "Bootstrap-based improvements for
    inference with clustered errors").

    Raises:
        EvidenceError: the joint distribution comes without the items' scores.

    """
    if joint.means is None or joint.codes is None:
        raise EvidenceError("the bootstrap needs the scores of the items, not only their distribution")
    groups, arms = joint.groups, joint.means.shape[1]
    # Deviations from the estimates, not scores: float32 then keeps enough digits, in half the memory.
    sums = np.zeros((groups, arms + 1), dtype=np.float32)
    np.add.at(sums[:, :arms], joint.codes, (joint.means - joint.estimates).astype(np.float32))
    sums[:, arms] = np.bincount(joint.codes, minlength=groups)
    deviations = np.empty((resamples, arms))
    rows = max(1, MAX_RESAMPLED_GROUPS // groups)
    for start in range(0, resamples, rows):
        count = min(rows, resamples - start)
        drawn = rng.integers(groups, size=(count, groups), dtype=np.uint32).astype(np.intp)
        # One bincount for all resamples: row r counts in its own stretch of `groups` numbers.
        drawn += np.arange(count)[:, None] * groups
        weights = np.bincount(drawn.ravel(), minlength=count * groups).reshape(count, groups)
        totals = weights.astype(np.float32) @ sums
        deviations[start : start + count] = totals[:, :arms] / totals[:, arms:]
    return deviations + joint.estimates


def spread_ratio(joint: JointScores, resampled: Floats, arm: int, against: int) -> float:
    """Return the bootstrap over the analytic standard error of a difference, sampling of items only.

    Args:
        joint: the analytic distribution.
        resampled: (resamples, A), as `bootstrap_means` returns them.
        arm: position of an arm.
        against: position of the arm that is subtracted.

    """
    weights = np.zeros(len(joint.estimates))
    weights[arm], weights[against] = 1.0, -1.0
    analytic = float(np.sqrt(weights @ joint.item_covariance @ weights))
    return float((resampled[:, arm] - resampled[:, against]).std()) / analytic
