"""Sequential evidence by betting: e-values and confidence sequences, valid at every look.

A gambler bets on every item, with a stake fixed in advance, that the mean is not as claimed. If the
claim is true, the capital is a nonnegative martingale. It then ever exceeds 1 / error with probability
`error` at most (Ville 1939), however often one looks and whenever one stops. The capital is spread over
several stakes (diversified Kelly betting: Waudby-Smith and Ramdas 2024, "Estimating means of bounded
random variables by betting", section B).
"""

from __future__ import annotations

import numpy as np
import scipy
from numpy.typing import NDArray

from tunepoint.errors import EvidenceError
from tunepoint.stats.arrays import Floats
from tunepoint.stats.intervals import Interval

STAKES = 0.95 * 2.0 ** -np.arange(5.0)
"""Stakes over the largest one that cannot lose everything: high for large differences, low for small ones."""


def log_e_value(values: Floats, clusters: NDArray[np.intp] | None = None, max_cluster: int = 1) -> float:
    """Return the natural log of the e-value against the claim "the mean of these values is at least 0".

    Args:
        values: (n,) in [-1, 1], in an order independent of them; no items are no evidence (0).
        clusters: (n,) cluster of each, clusters whole; None if they are independent.
        max_cluster: the most items that a cluster can have, fixed before any value is known.

    Raises:
        EvidenceError: a cluster has more items than `max_cluster`.

    """
    sums, _ = _cluster_sums(np.asarray(values, dtype=np.float64), clusters)
    return _log_capital(-sums / _bound_of_sums(sums, clusters, max_cluster))


def _bound_of_sums(sums: Floats, clusters: NDArray[np.intp] | None, max_cluster: int) -> int:
    """Return the largest absolute sum that a cluster of values in [-1, 1] can have."""
    if clusters is None:
        return 1
    largest = int(np.bincount(np.unique(clusters, return_inverse=True)[1]).max()) if len(sums) else 1
    if largest > max_cluster:
        raise EvidenceError(f"a cluster has {largest} items, more than the announced {max_cluster}")
    return max_cluster


def _cluster_sums(values: Floats, clusters: NDArray[np.intp] | None) -> tuple[Floats, Floats]:
    """Return (G,) sums and (G,) sizes of the clusters; each value is a cluster if there are none."""
    if clusters is None:
        return values, np.ones_like(values)
    codes = np.unique(clusters, return_inverse=True)[1]
    sizes: Floats = np.bincount(codes).astype(np.float64)
    return np.bincount(codes, weights=values).astype(np.float64), sizes


def _log_capital(bets: Floats) -> float:
    """Return the log of the capital after (G,) bets, averaged over the stakes.

    A bet multiplies the capital by 1 + stake * bet, where no bet is below -1.
    """
    return float(np.logaddexp.reduce(np.log1p(np.outer(STAKES, bets)).sum(axis=1)) - np.log(len(STAKES)))


def betting_interval(
    values: Floats,
    clusters: NDArray[np.intp] | None = None,
    *,
    level: float = 0.95,
    max_cluster: int | None = None,
    low: float = -1.0,
    high: float = 1.0,
) -> Interval:
    """Return an interval of a mean that holds at all sample sizes at once, and at any stopping time.

    Args:
        values: (n,) bounded by `low` and `high`, n at least 1.
        clusters: (n,) cluster of each item; None if items are independent.
        level: of the whole sequence of intervals.
        max_cluster: the most items that a cluster can have; None takes the largest in the sample,
            which is right for a sample of a fixed size.
        low: smallest possible value.
        high: largest possible value.

    The bounds are the means at which a gambler's capital reaches 2 / (1 - level). The capital falls as
    the claimed mean comes nearer to the sample's (theorem 3 of Waudby-Smith and Ramdas 2024), so each
    bound is one root. No variance and no large sample are needed: the interval is exact for 5 items too.

    Raises:
        EvidenceError: no values, or one outside its bounds.

    """
    if not len(values):
        raise EvidenceError("an interval needs at least 1 item, got 0")
    unit = (np.asarray(values, dtype=np.float64) - low) / (high - low)
    if unit.min() < -1e-9 or unit.max() > 1 + 1e-9:  # means over seeds miss 0 and 1 by rounding
        raise EvidenceError(f"values must lie in {low:g}..{high:g}, got {min(values):g} to {max(values):g}")
    unit = unit.clip(0, 1)
    if max_cluster is None:
        max_cluster = int(_cluster_sums(unit, clusters)[1].max())
    threshold = np.log(2 / (1 - level))
    lower = _lower_bound(unit, clusters, max_cluster, threshold)
    upper = 1 - _lower_bound(1 - unit, clusters, max_cluster, threshold)
    mean, span = float(unit.mean()), high - low
    return Interval(low + span * mean, low + span * min(mean, lower), low + span * max(mean, upper))


def _lower_bound(
    unit: Floats, clusters: NDArray[np.intp] | None, max_cluster: int, threshold: float
) -> float:
    """Return the largest mean in [0, 1] that bets on a larger one refute."""
    sums, sizes = _cluster_sums(unit, clusters)

    def excess(claimed: float) -> float:
        return _log_capital((sums / claimed - sizes) / max_cluster) - threshold

    tiny = 1e-9  # the bet on a claimed mean of 0 has no bound
    mean = float(unit.mean())
    if mean <= tiny or excess(tiny) <= 0:
        return 0.0
    return float(scipy.optimize.brentq(excess, tiny, mean, xtol=1e-6)) if excess(mean) < 0 else mean
