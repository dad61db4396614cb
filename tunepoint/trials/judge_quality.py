"""How far a judge can be believed: its noise, and its scores corrected by what people said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from tunepoint.stats.arrays import Floats
from tunepoint.stats.calibrated import cluster_error, rectify
from tunepoint.stats.intervals import Interval
from tunepoint.trials.table import ArmScores, Table

MIN_GRADED_GROUPS = 10
"""Groups of test items that people must have graded, of every finalist, to correct its scores."""
MIN_SELF_AGREEMENT = 0.8
"""Agreement with itself below which the judge is doubted."""
ANSWER_LAST, ANSWER_FIRST, REPEATED = 0, 1, 2
"""Grades of an answer: it stood last, it stood first, and the first question again."""


@dataclass(frozen=True)
class JudgeNoise:
    """What a judge's grades of the same answers say of the judge."""

    answers: int
    repeated: int
    """Answers that were graded twice in the same words."""
    agreement: float | None
    """Share of those with the same grade both times; None where none was graded twice."""
    swapped: float
    """Share of answers with the same grade in both orders."""
    position: Interval
    """Grade with the answer first minus grade with the answer last, clusters kept whole."""
    noise_share: float
    """Share of the variance of the arms' mean scores, summed, that the judge's own noise makes."""


@dataclass(frozen=True)
class Calibration:
    """How people's grades corrected the judge's scores of one arm."""

    arm: str
    items: int
    """Test items whose answers people graded."""
    judged: float
    """Mean of the judge's scores of all items."""
    power: float
    """How much the judge counts, 0 to 1."""
    correction: Interval
    """Corrected mean minus the judge's."""
    error: float
    """Mean absolute difference of judge and people."""


@dataclass(frozen=True)
class JudgeQuality:
    """A judge's part in the scores."""

    noise: JudgeNoise | None
    """None where the single grades are not known."""
    calibrations: tuple[Calibration, ...]
    """Of every arm, or empty where too few answers were graded by people."""
    graded: tuple[tuple[str, int], ...]
    """(arm, test items whose answers people graded)"""


def calibrate(table: Table) -> tuple[Table, JudgeQuality | None]:
    """The table with the judge's scores corrected where people graded enough, and how good the judge is.

    All arms are corrected, or none is: a corrected mean is not compared with an opinion.
    """
    if all(arm.grades is None and arm.human is None for arm in table.arms):
        return table, None
    noise = _noise(table)
    graded = tuple((arm.arm, len(_labelled(arm))) for arm in table.arms)
    if min(_groups(arm, table.clusters) for arm in table.arms) < MIN_GRADED_GROUPS:
        return table, JudgeQuality(noise, (), graded)
    arms, calibrations = zip(*(_calibrated(arm, table.clusters) for arm in table.arms), strict=True)
    return replace(table, arms=arms), JudgeQuality(noise, calibrations, graded)


def _labelled(arm: ArmScores) -> NDArray[np.intp]:
    """Items that people graded for every seed of an arm."""
    if arm.human is None:
        return np.array([], dtype=np.intp)
    return np.flatnonzero(~np.isnan(arm.human).any(axis=0))


def _groups(arm: ArmScores, clusters: NDArray[np.intp] | None) -> int:
    items = _labelled(arm)
    return len(items if clusters is None else np.unique(clusters[items]))


def _calibrated(arm: ArmScores, clusters: NDArray[np.intp] | None) -> tuple[ArmScores, Calibration]:
    assert arm.human is not None
    first = arm.scores if arm.first is None else arm.first  # people grade the first decode
    found = rectify(first, arm.human, clusters)
    items = _labelled(arm)
    error = float(np.abs(first - arm.human)[:, items].mean())
    told = Calibration(arm.arm, len(items), float(first.mean()), found.power, found.correction, error)
    return replace(arm, scores=found.scores, graded_groups=found.groups, decodes=()), told


def _noise(table: Table) -> JudgeNoise | None:
    """Agreement and position from the grades of all arms; items are what varies."""
    known = [arm for arm in table.arms if arm.grades is not None]
    if not known:
        return None
    grades = np.concatenate([arm.grades for arm in known if arm.grades is not None], axis=1)
    last, first, again = grades[ANSWER_LAST], grades[ANSWER_FIRST], grades[REPEATED]
    both = ~np.isnan(last) & ~np.isnan(first)
    twice = ~np.isnan(last) & ~np.isnan(again)
    if not both.any():
        return None
    return JudgeNoise(
        int(both.sum()),
        int(twice.sum()),
        float((last == again)[twice].mean()) if twice.any() else None,
        float((last == first)[both].mean()),
        _position(np.where(both, first - last, np.nan), table.clusters),
        _share([_variances(arm, table.clusters) for arm in known]),
    )


def _position(moved: Floats, clusters: NDArray[np.intp] | None) -> Interval:
    """Mean effect of the position with its 95% interval, from (answers, items) differences."""
    seen = np.flatnonzero(~np.isnan(moved).all(axis=0))
    effect = np.nanmean(moved[:, seen], axis=0)
    codes = seen if clusters is None else clusters[seen]
    mean, groups = float(effect.mean()), len(np.unique(codes))
    if groups < 2:
        return Interval(mean, -1.0, 1.0)
    # Half a discordant pair is added, as in joint_scores: what never moved may yet.
    error = np.sqrt(cluster_error(effect, codes) ** 2 + 0.5 / (len(effect) + 2) ** 2)
    half = float(stats.t.ppf(0.975, groups - 1) * error)
    return Interval(mean, mean - half, mean + half)


def _share(variances: Sequence[tuple[float, float]]) -> float:
    own, whole = (sum(part) for part in zip(*variances, strict=True))
    return min(1.0, own / whole) if whole > 0 else 0.0


def _variances(arm: ArmScores, clusters: NDArray[np.intp] | None) -> tuple[float, float]:
    """Variance of an arm's mean score that the judge makes, and the whole of it; 0 and 0 if unknown.

    The score is the mean of two grades, whose error has a quarter of the variance of their
    difference, the effect of the position taken off.
    """
    assert arm.grades is not None
    moved = arm.grades[ANSWER_FIRST] - arm.grades[ANSWER_LAST]
    items = arm.scores.shape[1]
    codes = np.arange(items) if clusters is None else clusters
    if np.isnan(moved).all() or len(np.unique(codes)) < 2:
        return 0.0, 0.0
    spread = np.nan_to_num(moved - np.nanmean(moved)) / 2
    own = float((spread.mean(axis=0) ** 2).sum()) / items**2
    return own, cluster_error(arm.scores.mean(axis=0), codes) ** 2


def judge_caveats(judged: JudgeQuality | None, margin: float) -> list[str]:
    """What the reader should know about the judge, where there is one."""
    if judged is None:
        return []
    found = []
    if judged.calibrations:
        least = min(calibration.items for calibration in judged.calibrations)
        found.append(
            f"scores are a judge's, corrected by people's grades of {least} test items and more; that takes "
            "those items for a random sample of the test"
        )
    else:
        counts = ", ".join(f"{arm} {count}" for arm, count in judged.graded)
        found.append(
            "scores are a judge's opinion that nobody has checked: let people grade the answers to "
            f"{MIN_GRADED_GROUPS} test items or more of every finalist (now: {counts}), in to_grade.csv or "
            "score.human, and run again"
        )
    return found if judged.noise is None else [*found, *_noise_caveats(judged.noise, margin)]


def _noise_caveats(noise: JudgeNoise, margin: float) -> list[str]:
    found = []
    if noise.agreement is not None and noise.agreement < MIN_SELF_AGREEMENT:
        found.append(
            f"the judge gave the same grade again to {noise.agreement:.0%} of {noise.repeated} answers; a "
            "sharper rubric or a better judge would need fewer items"
        )
    place = noise.position
    if 0 not in place and abs(place.estimate) > margin / 2:
        found.append(
            f"the judge's scores move by {place.estimate:+.3f} ({place.low:+.3f} to {place.high:+.3f}) when "
            "the answer stands first; every score is the mean of both orders"
        )
    return found
