"""A trained arm on nested parts of the training set, and the learning curve through its scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from tunepoint.arms.catalog import CURVE_SHARES, CandidateArms
from tunepoint.arms.contract import Arm, HasLearningCurve
from tunepoint.data.examples import Example
from tunepoint.data.licences import trainable
from tunepoint.decision.sample_size import TYPICAL_SEED_SD
from tunepoint.errors import EvidenceError
from tunepoint.stats.curves import MIN_CURVE_SIZES, fit_curve
from tunepoint.stats.streams import Stream
from tunepoint.study.directory import Study
from tunepoint.study.labelling.growth import gaps_of_parts
from tunepoint.study.labelling.pool import Pool
from tunepoint.study.learning_curve import LearningCurve
from tunepoint.study.planning import expected_seconds
from tunepoint.study.records import CurvePoint
from tunepoint.study.runner import Runner
from tunepoint.trials.table import joint_of
from tunepoint.trials.tabulation import mean_interval, tabulate
from tunepoint.trials.trial import Trial, TrialLog


def nested_subsets(
    train: Sequence[Example], shares: Sequence[float], rng: np.random.Generator
) -> list[list[Example]]:
    """Return subsets of train, each inside the next, with every label in its share."""
    counts = Counter(example.target for example in train)
    seen: Counter[str] = Counter()
    # an example's rank is its place among those of its label, 0..1: any prefix has all labels in proportion
    ranks: list[tuple[float, int, int]] = []
    for place, i in enumerate(rng.permutation(len(train)).tolist()):
        label = train[i].target
        seen[label] += 1
        ranks.append(((seen[label] - 0.5) / counts[label], place, i))
    order = [i for _, _, i in sorted(ranks)]
    return [[train[i] for i in order[: max(2, round(share * len(train)))]] for share in shares]


def draw_curve(runner: Runner, candidates: CandidateArms) -> None:
    """Train on nested subsets and measure on dev; the whole training set was measured in selection."""
    growing, study = candidates.curve_arm, runner.study
    if growing is None:
        return
    for point in measure_parts(runner, growing, study.curve, runner.prepared.split.dev):
        if point not in study.manifest.curve:
            study.update(curve=[*study.manifest.curve, point])
    runner.drop_kept_runs()


def curve_parts(runner: Runner, growing: HasLearningCurve) -> list[list[Example]]:
    """Return the nested parts of the training set that an arm can be trained on, smallest first."""
    train = trainable(runner.task, runner.prepared.split.train)
    parts = nested_subsets(train, CURVE_SHARES, runner.study.rng(Stream.CURVE))
    return [part for part in parts if len(part) >= growing.min_examples]


def train_ahead(runner: Runner, candidates: CandidateArms) -> None:
    """Start what other machines can train for a study: the whole training set first, then the curve."""
    for arm in (*candidates.tuned, *candidates.hybrid):
        runner.train_ahead(arm, runner.study.dev, runner.prepared.split.train)
    if candidates.curve_arm is not None:
        arm = runner.keeping_runs(candidates.curve_arm.once())
        for part in curve_parts(runner, candidates.curve_arm):
            runner.train_ahead(arm, runner.study.curve, part, _point(arm, part).arm)


def measure_parts(
    runner: Runner, growing: HasLearningCurve, log: TrialLog, examples: Sequence[Example]
) -> Iterator[CurvePoint]:
    """Train on nested parts of the training set, and record the answers to examples part by part."""
    arm = runner.keeping_runs(growing.once())
    for subset in curve_parts(runner, growing):
        point = _point(arm, subset)
        expected = expected_seconds(arm, len(subset))
        runner.measure(arm, log, examples, subset, name=point.arm, expected=expected)
        yield point


def _point(arm: Arm, part: Sequence[Example]) -> CurvePoint:
    return CurvePoint(examples=len(part), arm=f"{arm.name}, {len(part)} examples")


def curve_points(study: Study) -> list[CurvePoint]:
    """Return the sizes of a study's curve below the whole training set, smallest first."""
    recorded = {point.arm: point for point in study.manifest.curve}
    arms = dict.fromkeys(trial.arm for trial in study.curve.trials)
    points = [recorded[arm] if arm in recorded else _point_of_name(arm) for arm in arms]
    return sorted(points, key=lambda point: point.examples)


def _point_of_name(arm: str) -> CurvePoint:
    """Read the size from a name such as `fine-tuned encoder, 120 examples`.

    Studies made before the manifest recorded the sizes have them only there.
    """
    return CurvePoint(examples=int(arm.rpartition(", ")[2].split()[0]), arm=arm)


def fit_learning_curve(
    study: Study,
    candidates: CandidateArms,
    train: Sequence[Example],
    rng: np.random.Generator,
    pool: Pool | None = None,
) -> LearningCurve | None:
    """Fit the learning curve of a study; None where none was drawn.

    Points share their dev items, so the error of a point is that of its paired difference to the whole
    training set; a single training run has the variance of the seeds that the whole set was given.

    Args:
        study: with the trials of the curve.
        candidates: of the study.
        train: the whole training set.
        rng: draws the intervals and the curves.
        pool: with labels that count; it makes those differences surer.

    """
    if candidates.curve_arm is None:
        return None
    whole = study.dev.of(candidates.curve_arm.name)
    if len({trial.cluster or trial.item for trial in whole}) < 2:
        return None  # one group of dev items says nothing of others
    points = [point for point in curve_points(study) if point.examples < len(train)]
    parts = [study.curve.of(point.arm) for point in points]
    rows = [(point.examples, mean_interval(part, rng)) for point, part in zip(points, parts, strict=True)]
    rows.append((len(train), mean_interval(whole, rng)))
    labels = len({example.target for example in train})
    if len(rows) < MIN_CURVE_SIZES:
        why_not = f"{len(rows)} sizes were measured, a curve takes {MIN_CURVE_SIZES}"
        return LearningCurve(tuple(rows), labels, None, why_not)
    seed_sd = _seed_sd(whole)
    errors = [np.hypot(_standard_error(part, whole), seed_sd) for part in parts]
    errors.append(seed_sd / np.sqrt(len({trial.seed for trial in whole})))
    scores = [score.estimate for _, score in rows]
    gaps = {}
    if pool is not None:
        gaps = gaps_of_parts(study, pool, candidates.curve_arm.name, [point.arm for point in points])
    for number, point in enumerate(points):
        if point.arm in gaps:
            scores[number] = scores[-1] - gaps[point.arm].estimate
            errors[number] = np.hypot(gaps[point.arm].error, seed_sd)
    try:
        curve = fit_curve([size for size, _ in rows], scores, errors, rng)
    except EvidenceError as error:
        return LearningCurve(tuple(rows), labels, None, str(error), by_pool=len(gaps))
    return LearningCurve(tuple(rows), labels, curve, by_pool=len(gaps))


def _seed_sd(whole: Sequence[Trial]) -> float:
    """Standard deviation of the score over training seeds; the usual one at least, for three say little."""
    scores: dict[str | None, list[float]] = {}
    for trial in whole:
        scores.setdefault(trial.seed, []).append(trial.score)
    means = [np.mean(of_seed) for of_seed in scores.values()]
    return max(TYPICAL_SEED_SD, float(np.std(means, ddof=1)) if len(means) > 1 else 0.0)


def _standard_error(part: Sequence[Trial], whole: Sequence[Trial]) -> float:
    """Standard error of a point, from dev items: that of its paired difference to the whole training set."""
    first = [trial.model_copy(update={"arm": "part", "seed": None}) for trial in part]
    second = [trial.model_copy(update={"arm": "whole"}) for trial in whole]
    covariance = joint_of(tabulate([*first, *second])).item_covariance
    return float(np.sqrt(max(0.0, covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])))
