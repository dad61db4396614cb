"""The mean difference of two arms from labelled items, and from a pool that shows where it can differ.

Where two arms give the same answer their difference is 0, so it is a sum over the inputs on which they
differ: their share times the mean difference there. A pool knows the share without a label; the mean comes
from the labelled items of that kind (poststratification: Holt and Smith 1979, "Post stratification"), and
from labels of the pool where some inputs of that kind have them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tunepoint.stats.arrays import Flags, Floats, Integers
from tunepoint.stats.disagreements import (
    AGREED,
    MIN_LABELLED_GROUPS,
    PSEUDO_LABELS,
    PoolScores,
    contributions,
    pool_covariance,
)
from tunepoint.stats.paired import cluster_covariance

SAME, UNASKED, ASKED = range(3)
"""Kinds of inputs: the two arms give the same answer; they differ where nobody labels the pool; they differ
where its inputs are labelled in random order."""
MIN_GROUPS = 10
"""Groups of labelled items of a kind from which their mean stands for it."""


@dataclass(frozen=True)
class LabelledItems:
    """Items whose right answer is known, independent of the pool."""

    differences: Floats
    """(n,) score of the first arm less the second's."""
    kinds: Integers
    """(n,) `SAME`, `UNASKED` or `ASKED`."""
    codes: Integers
    """(n,) cluster of each item, from 0."""

    def groups(self, kind: int) -> int:
        """Return the number of clusters with an item of a kind."""
        return len(np.unique(self.codes[self.kinds == kind]))


@dataclass(frozen=True)
class PooledDifference:
    """A mean difference, and how sure it is."""

    estimate: float
    error: float
    """Standard error."""


def pooled_difference(items: LabelledItems, pool: PoolScores, unasked: Flags) -> PooledDifference | None:
    """Return the mean difference of two arms; None where too few items show it.

    Args:
        items: with labels.
        pool: of the two arms: an input has a stratum, and perhaps a label, if its kind is `ASKED`.
        unasked: (N,) inputs of the pool whose kind is `UNASKED`.

    The mean of the kind `ASKED` is that of the items and that of the pool's labels, weighted by their
    variances. The error is that of a linear function of the items and one of the pool's inputs, clusters
    kept whole, with `PSEUDO_LABELS` in every mean: the first few items of a kind may all favor one arm.

    """
    asked = pool.strata != AGREED
    shares = {UNASKED: float(unasked.mean()), ASKED: float(asked.mean())}
    by_labels = pool.labelled_groups >= MIN_LABELLED_GROUPS
    needed = [kind for kind, share in shares.items() if share > 0 and not (kind == ASKED and by_labels)]
    if min((items.groups(kind) for kind in needed), default=MIN_GROUPS) < MIN_GROUPS:
        return None
    weight, shown, extra = 0.0, np.zeros(len(asked)), 0.0
    if by_labels:
        leads = contributions(pool)
        shown = leads[:, 0] - leads[:, 1]
        variance = _of_difference(pool_covariance(pool, leads))
        extra = variance - _of_difference(_sampling(leads, pool.codes))
        alone = _variance_of_items(items, ASKED, shares[ASKED])
        weight = 1.0 if items.groups(ASKED) < MIN_GROUPS else alone / (alone + variance)
    means = {kind: _mean(items, kind) for kind in shares}
    of_inputs = unasked * means[UNASKED] + asked * (1 - weight) * means[ASKED] + weight * shown
    error = _of_items(items, shares, {UNASKED: 1.0, ASKED: 1 - weight})
    error += float(_sampling(of_inputs[:, None], pool.codes)[0, 0]) + weight**2 * extra
    return PooledDifference(float(of_inputs.mean()), float(np.sqrt(error)))


def _mean(items: LabelledItems, kind: int) -> float:
    own = items.differences[items.kinds == kind]
    return float(own.mean()) if len(own) else 0.0


def _of_items(items: LabelledItems, shares: dict[int, float], weights: dict[int, float]) -> float:
    """Return the variance that the items bring: of the kinds' means, times their shares and weights."""
    influence, pseudo = np.zeros(len(items.kinds)), 0.0
    for kind, share in shares.items():
        own, count = items.kinds == kind, int((items.kinds == kind).sum())
        if not count:
            continue
        scale = share * weights[kind]
        influence[own] = scale * (items.differences[own] - _mean(items, kind)) * len(own) / count
        pseudo += scale**2 * PSEUDO_LABELS / (count + 2) ** 2
    return float(cluster_covariance(influence[:, None], items.codes)[0, 0]) + pseudo


def _variance_of_items(items: LabelledItems, kind: int, share: float) -> float:
    return _of_items(items, {kind: share}, {kind: 1.0})


def _sampling(values: Floats, codes: Integers) -> Floats:
    return cluster_covariance(values - values.mean(axis=0), codes)


def _of_difference(covariance: Floats) -> float:
    """Return the variance of the first less the second."""
    return float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
