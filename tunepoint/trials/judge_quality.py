"""The quality of a judge: its noise, and its scores corrected by people's grades."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy
from numpy.typing import NDArray

from tunepoint.stats.arrays import Floats
from tunepoint.stats.calibrated import cluster_error, rectify
from tunepoint.stats.intervals import Interval
from tunepoint.trials.table import ArmScores, Table

MIN_CALIBRATION_GROUPS = 10
"""Groups of test items that people must grade, of every finalist, before scores are corrected."""
SAME_GRADE = 0.05
"""Difference up to which two grades are the same: under half a step of the finest scale, ten grades."""
ANSWER_LAST, ANSWER_FIRST, REPEATED = 0, 1, 2
"""Rows of an arm's grades: the answer stood last, it stood first, it stood last again."""


@dataclass(frozen=True)
class JudgeNoise:
    """How much a judge's grades of the same answers differ."""

    answers: int
    """Answers with grades in both orders."""
    repeated: int
    """Answers that were graded twice by the same question."""
    agreement: float | None
    """Share of those with the same grade both times; None if none was graded twice."""
    swapped: float
    """Share of answers with the same grade in both orders."""
    position: Interval
    """Mean grade with the answer first minus with the answer last; its 95% interval is by clusters."""
    noise_share: float
    """Share of the variance of the arms' mean scores, summed, that comes from the judge's noise."""


@dataclass(frozen=True)
class Calibration:
    """How people's grades corrected the judge's scores of one arm."""

    arm: str
    items: int
    """Test items whose answers people graded."""
    judged: float
    """Mean of the judge's scores of all items."""
    power: float
    """Weight of the judge's scores, from 0 (ignored) to 1; see `stats.calibrated`."""
    correction: Interval
    """Corrected mean minus the judge's mean."""
    error: float
    """Mean absolute difference of the judge's scores and people's grades."""


@dataclass(frozen=True)
class JudgeQuality:
    """How good the judge is that gave the scores."""

    noise: JudgeNoise | None
    """None if the single grades are unknown."""
    calibrations: tuple[Calibration, ...]
    """Of every arm; empty if people graded too few answers."""
    graded: tuple[tuple[str, int], ...]
    """(arm, test items whose answers people graded)"""


def calibrate(table: Table) -> tuple[Table, JudgeQuality | None]:
    """Return the table with the judge's scores corrected by people's grades, and the judge's quality.

    All arms are corrected or none: a corrected mean cannot be compared with an uncorrected one.
    Without a judge and without grades the quality is None.
    """
    if all(arm.grades is None and arm.human is None for arm in table.arms):
        return table, None
    noise = _noise(table)
    graded = tuple((arm.arm, len(_graded_items(arm))) for arm in table.arms)
    if min(_graded_groups(arm, table.clusters) for arm in table.arms) < MIN_CALIBRATION_GROUPS:
        return table, JudgeQuality(noise, (), graded)
    arms, calibrations = zip(*(_calibrated(arm, table.clusters) for arm in table.arms), strict=True)
    return replace(table, arms=arms), JudgeQuality(noise, calibrations, graded)


def _graded_items(arm: ArmScores) -> NDArray[np.intp]:
    """Return the positions of the items that people graded for every seed of an arm."""
    if arm.human is None:
        return np.array([], dtype=np.intp)
    return np.flatnonzero(~np.isnan(arm.human).any(axis=0))


def _graded_groups(arm: ArmScores, clusters: NDArray[np.intp] | None) -> int:
    """Return how many independent groups of items people graded."""
    items = _graded_items(arm)
    return len(items if clusters is None else np.unique(clusters[items]))


def _calibrated(arm: ArmScores, clusters: NDArray[np.intp] | None) -> tuple[ArmScores, Calibration]:
    assert arm.human is not None
    judged = arm.scores if arm.first is None else arm.first  # people grade the first decode
    rectified = rectify(judged, arm.human, clusters)
    items = _graded_items(arm)
    calibration = Calibration(
        arm.arm,
        len(items),
        judged=float(judged.mean()),
        power=rectified.power,
        correction=rectified.correction,
        error=float(np.abs(judged - arm.human)[:, items].mean()),
    )
    # The corrected scores are of the first decode alone, so the others no longer match them.
    return replace(arm, scores=rectified.scores, graded_groups=rectified.groups, decodes=()), calibration


def _noise(table: Table) -> JudgeNoise | None:
    """Return agreement and the effect of the position, from the grades of all arms."""
    graded = [arm for arm in table.arms if arm.grades is not None]
    if not graded:
        return None
    grades = np.concatenate([arm.grades for arm in graded if arm.grades is not None], axis=1)
    last, first, again = grades[ANSWER_LAST], grades[ANSWER_FIRST], grades[REPEATED]
    both_orders = ~np.isnan(last) & ~np.isnan(first)
    twice = ~np.isnan(last) & ~np.isnan(again)
    if not both_orders.any():
        return None
    return JudgeNoise(
        answers=int(both_orders.sum()),
        repeated=int(twice.sum()),
        agreement=float((np.abs(last - again) <= SAME_GRADE)[twice].mean()) if twice.any() else None,
        swapped=float((np.abs(last - first) <= SAME_GRADE)[both_orders].mean()),
        position=_position_effect(np.where(both_orders, first - last, np.nan), table.clusters),
        noise_share=_noise_share([_variances(arm, table.clusters) for arm in graded]),
    )


def _position_effect(differences: Floats, clusters: NDArray[np.intp] | None) -> Interval:
    """Return the mean effect of the position with its 95% interval.

    Args:
        differences: (answers, items) grade with the answer first minus with the answer last; NaN if unknown.
        clusters: (items,) group of each item; None if items are independent.

    """
    items = np.flatnonzero(~np.isnan(differences).all(axis=0))
    effect = np.nanmean(differences[:, items], axis=0)
    codes = items if clusters is None else clusters[items]
    mean, groups = float(effect.mean()), len(np.unique(codes))
    if groups < 2:
        return Interval(mean, -1.0, 1.0)
    # Half a discordant pair is added, as in joint_scores: no difference so far is not none ever.
    error = np.sqrt(cluster_error(effect, codes) ** 2 + 0.5 / (len(effect) + 2) ** 2)
    half_width = float(scipy.stats.t.ppf(0.975, groups - 1) * error)
    return Interval(mean, mean - half_width, mean + half_width)


def _noise_share(variances: Sequence[tuple[float, float]]) -> float:
    """Return the judge's share of the summed variances; 0 if no score varies."""
    noise, total = (sum(part) for part in zip(*variances, strict=True))
    return min(1.0, noise / total) if total > 0 else 0.0


def _variances(arm: ArmScores, clusters: NDArray[np.intp] | None) -> tuple[float, float]:
    """Return the variance of an arm's mean score that is the judge's noise, and all of it; 0, 0 if unknown.

    The score is the mean of two grades. The variance of its error is a quarter of that of their
    difference, without the effect of the position.
    """
    assert arm.grades is not None
    differences = arm.grades[ANSWER_FIRST] - arm.grades[ANSWER_LAST]
    items = arm.scores.shape[1]
    codes = np.arange(items) if clusters is None else clusters
    if np.isnan(differences).all() or len(np.unique(codes)) < 2:
        return 0.0, 0.0
    noise = np.nan_to_num(differences - np.nanmean(differences)) / 2
    variance = float((noise.mean(axis=0) ** 2).sum()) / items**2
    return variance, cluster_error(arm.scores.mean(axis=0), codes) ** 2
