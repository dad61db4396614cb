"""Paired differences in mean score between the winner and every other arm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tunepoint.decision.guards import repeats_differ, too_few
from tunepoint.stats.arrays import Floats
from tunepoint.stats.comparisons import Comparison, compare, holm
from tunepoint.stats.intervals import Interval
from tunepoint.stats.paired import JointScores, seed_errors
from tunepoint.stats.resampling import bootstrap_means, spread_ratio
from tunepoint.trials.table import Table

Conclusion = Literal["better", "worse", "not worse", "unresolved"]
BOOTSTRAP_RESAMPLES = 10_000
MIN_RESAMPLES = 1_000
MAX_GROUPS_RESAMPLED = 50_000_000
"""Groups that the bootstrap draws at most; more than 5,000 groups are resampled less often."""
SCREENING_LEVEL = 0.995
"""Of the intervals by which an arm that is far behind leaves the family of pairs."""
SPREAD_RATIO_WARNING = 1.2
"""Ratio of bootstrap to analytic standard error from which the reader is told that they disagree."""


@dataclass(frozen=True)
class Difference:
    """Paired difference in mean score."""

    arm: str
    against: str
    difference: Interval
    """Holds together with those of all other pairs."""
    conclusion: Conclusion
    bootstrap: Interval
    """Of this pair alone, by the cluster bootstrap of the items and draws of the training seeds."""
    p_holm: float
    """P-value of no difference, adjusted for the differences that are reported (Holm)."""


def compare_winner(
    joint: JointScores,
    table: Table,
    winner: int,
    margin: float,
    titles: Sequence[str],
    rng: np.random.Generator,
) -> tuple[tuple[Difference, ...], list[str]]:
    """Return the winner against every other arm, and caveats; the intervals hold for all pairs at once.

    Args:
        joint: distribution of the scores.
        table: the trials behind it.
        winner: position of the winner.
        margin: by which a score may be worse and still count as not worse.
        titles: of the arms, for people.
        rng: draws critical values, bootstrap, seed errors and the comparison of repeats, in this order.

    """
    comparisons = _family(joint, winner, margin, rng)
    p_values = holm([comparison.p_value for comparison in comparisons])
    resampled, low, high = _bootstrap(joint, winner, rng)
    few_groups = bool(too_few(joint.test_groups))
    differences, caveats = [], []
    for comparison, p_value in zip(comparisons, p_values, strict=True):
        interval, other = comparison.difference, comparison.against
        estimate = interval.estimate
        bootstrap = Interval(estimate, min(estimate, float(low[other])), max(estimate, float(high[other])))
        differences.append(
            Difference(
                arm=table.names[winner],
                against=table.names[other],
                difference=interval,
                conclusion=conclude(interval, margin),
                # A few groups cannot be resampled into what they have not shown.
                bootstrap=interval if few_groups else bootstrap,
                p_holm=p_value,
            )
        )
        if not few_groups:
            caveats += _spread_caveat(joint, resampled, (winner, other), titles)
    return tuple(differences), [*caveats, *repeats_differ(table, rng, titles)]


def _family(joint: JointScores, winner: int, margin: float, rng: np.random.Generator) -> list[Comparison]:
    """Return the winner against every other arm, with intervals that hold for all pairs at once.

    The other pairs widen the intervals: the winner is known only after a look at all of them. Arms that some
    other leads by more than the margin, by intervals of all pairs at `SCREENING_LEVEL`, leave the family;
    the rest have what is left of the error (Bonferroni). So the intervals hold together for all arms that
    are truly within the margin of each other. An arm that has left keeps its interval of the whole family.
    """
    arms = range(len(joint.estimates))
    pairs = [(winner, other) for other in arms if other != winner]
    others = [(i, j) for i in arms for j in range(i) if winner not in (i, j)]
    whole = compare(joint, pairs, rng, beside=others)
    # draws of their own, so that all later draws are the same with and without a screening
    screening, closer = rng.spawn(2)
    every = compare(joint, [*pairs, *others], screening, level=SCREENING_LEVEL)
    behind = {c.against for c in every if c.difference.low > margin}
    behind |= {c.arm for c in every if c.difference.high < -margin}
    if not behind or winner in behind:
        return whole
    kept = [pair for pair in pairs if pair[1] not in behind]
    beside = [pair for pair in others if behind.isdisjoint(pair)]
    near = compare(joint, kept, closer, beside=beside, level=0.95 + 1 - SCREENING_LEVEL)
    far = [comparison for comparison in whole if comparison.against in behind]
    return sorted([*near, *far], key=lambda comparison: comparison.against)


def _bootstrap(joint: JointScores, winner: int, rng: np.random.Generator) -> tuple[Floats, Floats, Floats]:
    """(resamples, A) means without the luck of training, and (A,) 95% bounds of the winner's lead with it."""
    resamples = max(MIN_RESAMPLES, min(BOOTSTRAP_RESAMPLES, MAX_GROUPS_RESAMPLED // joint.groups))
    resampled = bootstrap_means(joint, resamples, rng)
    with_seeds = resampled + seed_errors(joint, resamples, rng)
    lead = with_seeds[:, [winner]] - with_seeds
    low, high = np.quantile(lead, [0.025, 0.975], axis=0).clip(-1, 1)
    return resampled, low, high


def _spread_caveat(
    joint: JointScores, resampled: Floats, pair: tuple[int, int], titles: Sequence[str]
) -> list[str]:
    ratio = spread_ratio(joint, resampled, *pair)
    if ratio <= SPREAD_RATIO_WARNING:
        return []
    return [
        f"{titles[pair[0]]} against {titles[pair[1]]}: a few large groups of items decide this difference, "
        "so its interval is too short (the bootstrap's standard error is "
        f"{ratio:.2f} times the analytic one)."
    ]


def conclude(difference: Interval, margin: float) -> Conclusion:
    """Return what an interval of a difference says."""
    if difference.low > 0:
        return "better"
    if difference.high < 0:
        return "worse"
    return "not worse" if difference.low > -margin else "unresolved"
