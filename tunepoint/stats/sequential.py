"""Evidence that may be looked at after every item: e-values and confidence sequences by betting.

A gambler bets on every item that the mean is not what is claimed, with a stake fixed
beforehand. If the claim is true the capital is a nonnegative martingale, so it ever exceeds
1 / error with probability `error` at most (Ville 1939), however often one looks and whenever one
stops. The capital is spread over several stakes (diversified Kelly betting: Waudby-Smith and Ramdas
2024, "Estimating means of bounded random variables by betting", section B).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from tunepoint.errors import EvidenceError
from tunepoint.stats.arrays import Floats
from tunepoint.stats.intervals import Interval

STAKES = 0.95 * 2.0 ** -np.arange(5.0)
"""Shares of the largest stake that cannot lose everything: for large differences and for small ones."""


def log_e_value(values: Floats, clusters: NDArray[np.intp] | None = None, largest: int = 1) -> float:
    """Natural log of the evidence against "the mean of these values is 0 or more".

    Args:
        values: (n,) in [-1, 1], in an order that says nothing about them; 0 items are no evidence.
        clusters: (n,) cluster of each, clusters whole; None when they are independent.
        largest: the most items that a cluster can have, known before any value is.

    """
    sums, _ = _units(np.asarray(values, dtype=np.float64), clusters)
    return _log_capital(-sums / _checked(sums, clusters, largest))


def _checked(sums: Floats, clusters: NDArray[np.intp] | None, largest: int) -> int:
    """The size of the largest cluster, which bounds the sums."""
    if clusters is None:
        return 1
    most = int(np.bincount(np.unique(clusters, return_inverse=True)[1]).max()) if len(sums) else 1
    if most > largest:
        raise EvidenceError(f"a cluster has {most} items, and {largest} were announced as the most")
    return largest


def _units(values: Floats, clusters: NDArray[np.intp] | None) -> tuple[Floats, Floats]:
    """Sum and size of every independent unit."""
    if clusters is None:
        return values, np.ones_like(values)
    codes = np.unique(clusters, return_inverse=True)[1]
    sizes: Floats = np.bincount(codes).astype(np.float64)
    return np.bincount(codes, weights=values).astype(np.float64), sizes


def _log_capital(bets: Floats) -> float:
    """Log of the capital after bets that pay `stake * bet`, each at least -1, averaged over the stakes."""
    return float(np.logaddexp.reduce(np.log1p(np.outer(STAKES, bets)).sum(axis=1)) - np.log(len(STAKES)))


def betting_interval(
    values: Floats,
    clusters: NDArray[np.intp] | None = None,
    *,
    level: float = 0.95,
    largest: int | None = None,
    low: float = -1.0,
    high: float = 1.0,
) -> Interval:
    """Interval of a mean that holds at every sample size at once, and at any stopping time.

    Args:
        values: (n,) bounded by `low` and `high`, n at least 1.
        clusters: (n,) cluster of each item; None when items are independent.
        level: for the whole sequence of intervals.
        largest: the most items that a cluster can have; the largest one seen if None, which is
            what a sample of a fixed size has.

    The bounds are the means at which a gambler's capital reaches 2 / (1 - level); the capital falls
    as the claimed mean comes nearer (theorem 3 of Waudby-Smith and Ramdas 2024), so each is one root.
    It needs no variance and no large sample: it is the exact interval for 5 items too.

    """
    if not len(values):
        raise EvidenceError("an interval needs at least 1 item, got 0")
    unit = (np.asarray(values, dtype=np.float64) - low) / (high - low)
    if unit.min() < -1e-9 or unit.max() > 1 + 1e-9:
        raise EvidenceError(f"values must lie in {low:g}..{high:g}, got {min(values):g} to {max(values):g}")
    unit = unit.clip(0, 1)
    most = int(_units(unit, clusters)[1].max()) if largest is None else largest
    goal = np.log(2 / (1 - level))
    under = _lower(unit, clusters, most, goal)
    over = 1 - _lower(1 - unit, clusters, most, goal)
    mean, span = float(unit.mean()), high - low
    return Interval(low + span * mean, low + span * min(mean, under), low + span * max(mean, over))


def _lower(unit: Floats, clusters: NDArray[np.intp] | None, largest: int, goal: float) -> float:
    """The largest mean in [0, 1] that the bets on a larger one refute."""
    sums, sizes = _units(unit, clusters)

    def excess(mean: float) -> float:
        return _log_capital((sums / mean - sizes) / largest) - goal

    tiny = 1e-9
    mean = float(unit.mean())
    if mean <= tiny or excess(tiny) <= 0:
        return 0.0
    return float(brentq(excess, tiny, mean, xtol=1e-6)) if excess(mean) < 0 else mean
