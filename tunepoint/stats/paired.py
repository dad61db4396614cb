"""Several arms on the same items: their joint sampling distribution.

Items are a sample, perhaps in clusters; training seeds are a sample too. The joint
distribution of the arms' mean scores has one part for each, and every interval and
probability of the decision is read off that one distribution.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from tunepoint.errors import EvidenceError
from tunepoint.stats.arrays import Floats, Integers
from tunepoint.stats.exact import FEW, exact_difference, exact_score, sign_flips
from tunepoint.stats.intervals import Interval, score_interval


@dataclass(frozen=True)
class JointScores:
    """Mean scores of A arms on the same items, with the covariance of their errors."""

    estimates: Floats
    """(A,) mean score of each arm over items and seeds."""
    item_covariance: Floats
    """(A, A) sampling covariance from the items, clusters kept whole."""
    groups: int
    """Independent groups of items; the item part has groups - 1 degrees of freedom."""
    seed_covariance: Floats
    """(A, A) sampling covariance from training seeds and decodes; block-diagonal by `blocks`."""
    blocks: tuple[tuple[Integers, int], ...]
    """(arms, seeds) of arms whose seeds are the same, so that seed effects pair up."""
    items: int
    """Items behind every estimate."""
    labelled: int | None = None
    """Groups that people scored, where their scores correct a judge's: fewer than `groups`."""
    means: Floats | None = None
    """(n, A) score of each item, over the seeds; None where only the distribution is known."""
    codes: Integers | None = None
    """(n,) group of each item."""
    decoded: frozenset[int] = frozenset()
    """Arms whose runs are decodes of one model or prompt, not training seeds."""

    @property
    def most_seeds(self) -> int:
        """Training seeds of the arm that has most; 0 where none has two."""
        counts = [count for arms, count in self.blocks if not self.decoded.issuperset(arms.tolist())]
        return max(counts, default=0)

    @property
    def degrees(self) -> int:
        """Degrees of freedom of the item part."""
        return min(self.groups, self.labelled or self.groups) - 1

    @property
    def pseudo(self) -> float:
        """Variance of half an observation, which every arm is given on top of what was seen."""
        return float(0.5 / (min(self.items, self.labelled or self.items) + 2) ** 2)

    @property
    def covariance(self) -> Floats:
        """(A, A) covariance of the estimates, items and seeds together."""
        return self.item_covariance + self.seed_covariance


def joint_scores(
    scores: Sequence[Floats],
    clusters: NDArray[np.intp] | None = None,
    seeds: Sequence[Sequence[Hashable]] | None = None,
    labelled: int | None = None,
    decoded: frozenset[int] = frozenset(),
) -> JointScores:
    """Joint sampling distribution of the mean scores of several arms.

    Args:
        scores: one array a training seed by item, shape (S_a, n), for each arm; S_a may be
            1. All arms have the same n items in the same order; values in [0, 1].
        clusters: (n,) cluster of each item; None when items are independent.
        seeds: names of each arm's seeds; arms with equal names are paired seed by seed.
        labelled: groups of items behind a correction by people's scores; None without one.
        decoded: arms whose rows are decodes, repeated answers of the same model or prompt.

    The item part is the cluster-robust covariance of the means, with the G / (G - 1)
    correction (Liang and Zeger 1986; Cameron and Miller 2015, equation 11), to which
    1 / 2 is added per arm as in Agresti and Min 2005 ("Simple improved confidence
    intervals for comparing matched proportions"), so that a sample in which two arms never
    differ does not claim that they never will. The seed part is the covariance of the seed
    means, less what the interaction of seed and item alone would give them (the item part
    has that already), over the number of seeds. The noise of a decode on a single item is in the item
    part, as it is where every item is answered once; what moves a whole run is in the seed part.

    Raises:
        EvidenceError: fewer than two independent groups, or arms of unequal length.

    """
    items = _common_length(scores)
    if clusters is None:
        codes: Integers = np.arange(items)
    else:
        codes = np.unique(np.asarray(clusters), return_inverse=True)[1]
    groups = int(codes.max()) + 1
    if groups < 2:
        raise EvidenceError(
            f"{items} test items in {groups} group say nothing about new items: "
            "at least 2 independent groups are needed, and some hundreds to decide"
        )
    means = np.stack([arm.mean(axis=0) for arm in scores], axis=1)
    estimates = means.mean(axis=0)
    sums = np.zeros((groups, len(scores)))
    np.add.at(sums, codes, means - estimates)
    item_covariance = sums.T @ sums / items**2 * groups / (groups - 1)
    seed_covariance, blocks = _seed_part(scores, codes, seeds)
    found = JointScores(estimates, item_covariance, groups, seed_covariance, blocks, items, labelled)
    item_covariance += np.eye(len(scores)) * found.pseudo
    return replace(found, means=means, codes=codes, decoded=decoded)


def _common_length(scores: Sequence[Floats]) -> int:
    """Number of items, the same for every arm, or an error."""
    lengths = {arm.shape[1] for arm in scores}
    if not lengths or lengths == {0}:
        raise EvidenceError("no scores: there is nothing to compare")
    if len(lengths) > 1:
        raise EvidenceError(f"arms must share their items, got {sorted(lengths)} items")
    return int(lengths.pop())


def _seed_part(
    scores: Sequence[Floats], codes: Integers, seeds: Sequence[Sequence[Hashable]] | None
) -> tuple[Floats, tuple[tuple[Integers, int], ...]]:
    """Covariance of the arms' means over training seeds, and which arms pair up."""
    names = seeds or [tuple(range(arm.shape[0])) for arm in scores]
    members: dict[tuple[Hashable, ...], list[int]] = {}
    for arm, seed_names in enumerate(names):
        if len(seed_names) > 1:
            members.setdefault(tuple(seed_names), []).append(arm)
    covariance = np.zeros((len(scores), len(scores)))
    blocks = []
    for seed_names, arms in members.items():
        index = np.array(arms)
        count = len(seed_names)
        cube = np.stack([scores[arm] for arm in arms], axis=2)
        covariance[np.ix_(index, index)] = _between_seeds(cube, codes) / count
        blocks.append((index, count))
    return covariance, tuple(blocks)


def _between_seeds(cube: Floats, codes: Integers) -> Floats:
    """(A, A) covariance of the seed effects of A arms; `cube` is (S, n, A).

    The covariance of the seed means, less what the sampling of items alone would give
    them (the interaction of seed and item, clusters kept whole): the analysis-of-variance
    estimator of Searle, Casella and McCulloch 1992, section 4.4. Negative directions are set
    to zero and the others scaled, so that their sum stays what it was.
    """
    count, items, _ = cube.shape
    effects = cube.mean(axis=1)
    centred = effects - effects.mean(axis=0)
    between = centred.T @ centred / (count - 1)
    residual = cube - effects[:, None] - cube.mean(axis=0)[None] + cube.mean(axis=(0, 1))
    groups = int(codes.max()) + 1
    noise = np.zeros_like(between)
    for seed in range(count):
        sums = np.zeros((groups, cube.shape[2]))
        np.add.at(sums, codes, residual[seed])
        noise += sums.T @ sums
    noise /= items**2 * (count - 1) * (groups - 1) / groups
    values, vectors = np.linalg.eigh(between - noise)
    kept = np.clip(values, 0.0, None)
    if (total := kept.sum()) > 0:
        kept *= max(0.0, values.sum()) / total
    return np.asarray(vectors * kept @ vectors.T)


def draw_scores(joint: JointScores, size: int, rng: np.random.Generator) -> Floats:
    """(size, A) draws of the true mean scores given what was seen.

    The item part follows a multivariate t with `degrees` degrees of freedom, each block
    of seeds one with seeds - 1: the fiducial distribution of Behrens and Fisher, whose
    intervals hold their level without a common variance. Draws are not cut off at 0 and 1: two arms
    that are both right all the time would then hardly differ in any draw. Half an observation more an arm
    than the intervals have makes probabilities as careful as the exact test where the arms hardly
    ever differed: none of 100 items shows a difference under .02 with 8%, not with 2%.
    """
    errors = draw_errors(joint, size, rng)
    return np.asarray(joint.estimates + errors + rng.normal(0.0, np.sqrt(joint.pseudo), errors.shape))


def draw_errors(joint: JointScores, size: int, rng: np.random.Generator) -> Floats:
    """(size, A) draws of the error of the estimates."""
    items = _multivariate_t(joint.item_covariance, joint.degrees, size, rng)
    return items + seed_errors(joint, size, rng)


def seed_errors(joint: JointScores, size: int, rng: np.random.Generator) -> Floats:
    """(size, A) draws of the part of the error that training seeds bring."""
    errors = np.zeros((size, len(joint.estimates)))
    for arms, count in joint.blocks:
        block = joint.seed_covariance[np.ix_(arms, arms)]
        errors[:, arms] += _multivariate_t(block, count - 1, size, rng)
    return errors


def _multivariate_t(covariance: Floats, degrees: int, size: int, rng: np.random.Generator) -> Floats:
    """(size, A) draws of a centred multivariate t whose scale matrix is `covariance`."""
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.clip(values, 0.0, None))
    normal = rng.standard_normal((size, len(covariance))) @ root.T
    scale = np.sqrt(degrees / rng.chisquare(degrees, size))
    return np.asarray(normal * scale[:, None])


MOST_VALUES = 40_000_000
"""Draws times contrasts that are held ready for the simultaneous level."""


@dataclass(frozen=True)
class Comparison:
    """Difference in mean score, arm minus other, by position of the arms."""

    arm: int
    against: int
    difference: Interval
    p_value: float
    """Two-sided, that there is no difference; for this pair alone, 1 / draws at least."""


def score_intervals(
    joint: JointScores, rng: np.random.Generator, *, level: float = 0.95, draws: int = 20_000
) -> list[Interval]:
    """Simultaneous intervals of the mean scores of all arms; exact for few groups (Bonferroni)."""
    count = len(joint.estimates)
    critical, _ = critical_values(joint, np.eye(count), rng, level=level, draws=draws)
    variances = np.diag(joint.covariance)
    found = [
        score_interval(float(np.clip(mean, 0, 1)), float(variance), joint.groups, float(multiplier))
        for mean, variance, multiplier in zip(joint.estimates, variances, critical, strict=True)
    ]
    if joint.means is None or joint.groups >= FEW:
        return found
    own = 1 - (1 - level) / count
    assert joint.codes is not None
    exact = (exact_score(scores, joint.codes, level=own) for scores in joint.means.T)
    return [_wider(one, other) for one, other in zip(found, exact, strict=True)]


def _wider(one: Interval, other: Interval) -> Interval:
    return Interval(one.estimate, min(one.low, other.low), max(one.high, other.high))


def compare(
    joint: JointScores,
    pairs: Sequence[tuple[int, int]],
    rng: np.random.Generator,
    *,
    beside: Sequence[tuple[int, int]] = (),
    level: float = 0.95,
    draws: int = 20_000,
) -> list[Comparison]:
    """Simultaneous intervals of the differences of the given pairs of arms.

    Args:
        beside: further pairs; the intervals hold together with theirs, which are not returned.

    With few groups an interval is the union with the exact one (betting), with few groups in which the
    arms differ with that of their numbers (Clopper and Pearson 1934), Bonferroni over the pairs: the
    normal approximation fails there.

    """
    if not pairs:
        return []
    every = [*pairs, *beside]
    arms, others = np.array(every).T
    contrasts = np.zeros((len(every), len(joint.estimates)))
    rows = np.arange(len(every))
    contrasts[rows, arms], contrasts[rows, others] = 1.0, -1.0
    critical, p_values = critical_values(joint, contrasts, rng, level=level, draws=draws)
    estimates = contrasts @ joint.estimates
    halves = critical * _standard_errors(joint, contrasts)
    own = 1 - (1 - level) / len(every)
    found = []
    for (arm, against), mean, half, p_value in zip(
        pairs, estimates.tolist(), halves.tolist(), p_values.tolist(), strict=False
    ):
        interval = Interval(mean, max(-1.0, mean - half), min(1.0, mean + half))
        if _few(joint, arm, against):
            assert joint.means is not None and joint.codes is not None
            lead = (joint.means[:, arm] - joint.means[:, against]).clip(-1, 1)
            interval = _wider(interval, exact_difference(lead, joint.codes, level=own))
            p_value = max(p_value, sign_flips(lead, joint.codes))
        found.append(Comparison(arm, against, interval, p_value))
    return found


def _few(joint: JointScores, arm: int, against: int) -> bool:
    """Whether the normal approximation of a difference cannot be trusted."""
    if joint.means is None or joint.codes is None:
        return False
    differing = joint.codes[joint.means[:, arm] != joint.means[:, against]]
    return len(np.unique(differing)) < FEW


def _standard_errors(joint: JointScores, contrasts: Floats) -> Floats:
    """(K,) standard errors of K contrasts."""
    return np.asarray(np.sqrt(((contrasts @ joint.covariance) * contrasts).sum(axis=1)))


def critical_values(
    joint: JointScores,
    contrasts: Floats,
    rng: np.random.Generator,
    *,
    level: float = 0.95,
    draws: int = 20_000,
) -> tuple[Floats, Floats]:
    """(K,) multipliers of the standard errors at which all contrasts hold at once, and (K,) p-values.

    Args:
        contrasts: (K, A) weights of the arms in each of K contrasts.
        draws: at most; fewer where there are thousands of contrasts.

    Balanced (Beran 1988, "Balanced simultaneous confidence sets", section 2): every contrast
    gets the quantile of its own studentised error, at the one level at which all hold
    together with probability `level`. A single multiplier for all (max-t) would give the
    arms without training seeds the heavy tails of those with three. One contrast without
    seed variance is Student's. The p-value is each contrast's own: that it is 0.

    """
    errors = _standard_errors(joint, contrasts)
    seen = np.abs(contrasts @ joint.estimates) / errors
    if len(contrasts) == 1 and not joint.blocks:
        student = stats.t(joint.degrees)
        return np.array([student.ppf((1 + level) / 2)]), 2 * student.sf(seen)
    draws = min(draws, max(2_000, MOST_VALUES // len(contrasts)))
    drawn = draw_errors(joint, draws, rng)
    studentised = np.empty((len(contrasts), draws))
    worst = np.zeros(draws, dtype=np.intp)
    ranks = np.empty(draws, dtype=np.intp)
    for row, contrast in enumerate(contrasts):
        used = np.flatnonzero(contrast)
        values = np.abs(drawn[:, used] @ contrast[used]) / errors[row]
        order = values.argsort()
        ranks[order] = np.arange(draws)
        np.maximum(worst, ranks, out=worst)
        studentised[row] = values[order]
    together = int(np.quantile(worst, level, method="higher"))
    beyond = [draws - np.searchsorted(row, value) for row, value in zip(studentised, seen, strict=True)]
    return studentised[:, together].copy(), (1 + np.array(beyond)) / (1 + draws)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted so that the chance of any false rejection holds (Holm 1979)."""
    order = np.argsort(p_values)
    left = np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(np.asarray(p_values)[order] * left))
    return adjusted.tolist()
