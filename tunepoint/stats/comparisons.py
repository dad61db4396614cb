"""Simultaneous intervals and p-values of mean scores and of their differences.

All of them come from one joint distribution (`tunepoint.stats.paired`), so that they hold together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

from tunepoint.stats.arrays import Floats
from tunepoint.stats.exact import MIN_NORMAL_GROUPS, exact_difference, exact_score, sign_flip_p_value
from tunepoint.stats.intervals import Interval, score_interval
from tunepoint.stats.paired import JointScores, draw_errors

MAX_HELD_VALUES = 40_000_000
"""Draws times contrasts held in memory to find the simultaneous level: 320 MB."""


@dataclass(frozen=True)
class Comparison:
    """Difference in mean score of two arms."""

    arm: int
    """Position of an arm."""
    against: int
    """Position of the arm that is subtracted."""
    difference: Interval
    """Simultaneous with those of the other pairs."""
    p_value: float
    """Two-sided p-value of no difference, for this pair alone; at least 1 / draws."""


def score_intervals(
    joint: JointScores, rng: np.random.Generator, *, level: float = 0.95, draws: int = 20_000
) -> list[Interval]:
    """Return simultaneous intervals of the mean scores of all A arms; where people look often, at all looks.

    With fewer than 8 groups each is the union with the exact interval (Bonferroni over the arms): the
    normal approximation fails there.
    """
    count, joint = len(joint.estimates), joint.at_all_looks or joint
    critical, _ = critical_values(joint, np.eye(count), rng, level=level, draws=draws)
    variances = np.diag(joint.covariance)
    alone = joint.tested or joint
    intervals = [
        score_interval(float(np.clip(mean, 0, 1)), float(variance), alone.groups, float(multiplier))
        for mean, variance, multiplier in zip(joint.estimates, variances, critical, strict=True)
    ]
    if alone.means is None or alone.groups >= MIN_NORMAL_GROUPS:
        return intervals
    level_each = 1 - (1 - level) / count
    assert alone.codes is not None
    exact = [exact_score(scores, alone.codes, level=level_each) for scores in alone.means.T]
    return [_union(*pair) for pair in zip(intervals, exact, strict=True)]


def _union(interval: Interval, other: Interval) -> Interval:
    return Interval(interval.estimate, min(interval.low, other.low), max(interval.high, other.high))


def compare(
    joint: JointScores,
    pairs: Sequence[tuple[int, int]],
    rng: np.random.Generator,
    *,
    beside: Sequence[tuple[int, int]] = (),
    level: float = 0.95,
    draws: int = 20_000,
) -> list[Comparison]:
    """Return simultaneous intervals of the differences of the given pairs of arms.

    Where people look after each batch of labels, the intervals hold at all looks.
    Where fewer than 8 groups differ between two arms, an interval is the union with the exact one of
    `exact_difference` (Bonferroni over the pairs), and the p-value the larger of the two: the normal
    approximation fails there. Groups of a pool count too; the exact interval is the test set's.

    Args:
        joint: the joint distribution of the arms.
        pairs: (arm, against) positions.
        rng: source of the draws behind the simultaneous level.
        beside: more pairs whose intervals hold together with those of `pairs`; they are not returned.
        level: probability that all intervals hold.
        draws: at most; fewer if there are thousands of pairs.

    """
    if not pairs:
        return []
    joint = joint.at_all_looks or joint
    all_pairs = [*pairs, *beside]
    contrasts = _contrasts(all_pairs, len(joint.estimates))
    critical, p_values = critical_values(joint, contrasts, rng, level=level, draws=draws)
    estimates = contrasts @ joint.estimates
    half_widths = critical * _standard_errors(joint, contrasts)
    level_each = 1 - (1 - level) / len(all_pairs)
    comparisons = []
    for (arm, against), mean, half_width, p_value in zip(
        pairs, estimates.tolist(), half_widths.tolist(), p_values.tolist(), strict=False
    ):
        interval = Interval(mean, max(-1.0, mean - half_width), min(1.0, mean + half_width))
        if _differ_in_few_groups(joint, arm, against):
            alone = joint.tested or joint
            assert alone.means is not None and alone.codes is not None
            lead = (alone.means[:, arm] - alone.means[:, against]).clip(-1, 1)
            interval = _union(interval, exact_difference(lead, alone.codes, level=level_each))
            p_value = max(p_value, sign_flip_p_value(lead, alone.codes))
        comparisons.append(Comparison(arm, against, interval, p_value))
    return comparisons


def _contrasts(pairs: Sequence[tuple[int, int]], arms: int) -> Floats:
    """Return (K, A) weights: 1 for the arm of each pair, and -1 for the arm that is subtracted."""
    contrasts = np.zeros((len(pairs), arms))
    rows = np.arange(len(pairs))
    firsts, seconds = np.array(pairs).T
    contrasts[rows, firsts], contrasts[rows, seconds] = 1.0, -1.0
    return contrasts


def _differ_in_few_groups(joint: JointScores, arm: int, against: int) -> bool:
    """Whether too few groups differ for the normal approximation of a difference."""
    alone = joint.tested or joint
    if alone.means is None or alone.codes is None:
        return False
    differing = len(np.unique(alone.codes[alone.means[:, arm] != alone.means[:, against]]))
    if joint.labelled_groups is not None:
        differing += int(joint.labelled_groups[arm, against])
    return differing < MIN_NORMAL_GROUPS


def _standard_errors(joint: JointScores, contrasts: Floats) -> Floats:
    """Return (K,) standard errors of (K, A) contrasts."""
    return np.asarray(np.sqrt(((contrasts @ joint.covariance) * contrasts).sum(axis=1)))


def critical_values(
    joint: JointScores,
    contrasts: Floats,
    rng: np.random.Generator,
    *,
    level: float = 0.95,
    draws: int = 20_000,
) -> tuple[Floats, Floats]:
    """Return (K,) multipliers of the standard errors for simultaneous intervals, and (K,) p-values.

    The intervals are balanced (Beran 1988, "Balanced simultaneous confidence sets", section 2): every
    contrast gets the quantile of its own studentized error, at the one level at which all hold together
    with probability `level`. A single multiplier for all (max-t) would give arms without training seeds
    the heavy tails of arms with three. One contrast without seed variance is Student's t. A p-value is
    that of its own contrast: that it is 0.

    Args:
        joint: the joint distribution of the A arms.
        contrasts: (K, A) weights of the arms in each of K contrasts.
        rng: source of the draws.
        level: probability that all intervals hold.
        draws: at most; fewer if there are thousands of contrasts.

    """
    errors = _standard_errors(joint, contrasts)
    statistics = np.abs(contrasts @ joint.estimates) / errors
    if len(contrasts) == 1 and not joint.blocks:
        student = scipy.stats.t(joint.degrees)
        return np.array([student.ppf((1 + level) / 2)]), 2 * student.sf(statistics)
    draws = min(draws, max(2_000, MAX_HELD_VALUES // len(contrasts)))
    studentized, worst_ranks = _sorted_errors(draw_errors(joint, draws, rng), contrasts, errors)
    # A draw is covered if the rank of its worst contrast is: the same rank then serves all contrasts.
    common_rank = int(np.quantile(worst_ranks, level, method="higher"))
    beyond = [
        draws - np.searchsorted(row, statistic)
        for row, statistic in zip(studentized, statistics, strict=True)
    ]
    return studentized[:, common_rank].copy(), (1 + np.array(beyond)) / (1 + draws)


def _sorted_errors(
    drawn_errors: Floats, contrasts: Floats, standard_errors: Floats
) -> tuple[Floats, NDArray[np.intp]]:
    """Return the studentized errors of each contrast, and how extreme each draw is.

    Args:
        drawn_errors: (D, A) draws of the errors of the arms.
        contrasts: (K, A) weights.
        standard_errors: (K,) of the contrasts.

    Returns:
        (K, D) absolute studentized errors, each row sorted, and for each draw its highest rank in any row.

    """
    draws = len(drawn_errors)
    studentized = np.empty((len(contrasts), draws))
    worst_ranks = np.zeros(draws, dtype=np.intp)
    ranks = np.empty(draws, dtype=np.intp)
    for row, contrast in enumerate(contrasts):
        used = np.flatnonzero(contrast)  # two of many arms: a product with all would be far slower
        values = np.abs(drawn_errors[:, used] @ contrast[used]) / standard_errors[row]
        order = values.argsort()
        ranks[order] = np.arange(draws)
        np.maximum(worst_ranks, ranks, out=worst_ranks)
        studentized[row] = values[order]
    return studentized, worst_ranks


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for the number of tests.

    They keep the probability of any false rejection (Holm 1979, "A simple sequentially rejective multiple
    test procedure").
    """
    order = np.argsort(p_values)
    factors = np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(np.asarray(p_values)[order] * factors))
    return adjusted.tolist()
