"""What more training examples would bring a trained arm, from the curve that a study draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tunepoint.arms.catalog import CURVE_SHARES, CandidateArms
from tunepoint.arms.contract import Arm, HasPromptlessTwin
from tunepoint.data.examples import Example
from tunepoint.data.licences import trainable
from tunepoint.decision.futures import EXAMPLE_DOUBLINGS, LearningGain
from tunepoint.decision.sample_size import TYPICAL_SEED_SD
from tunepoint.decision.value_of_information import NEXT_EXAMPLES
from tunepoint.decision.verdict import Decision
from tunepoint.errors import EvidenceError
from tunepoint.stats.curves import MIN_CURVE_SIZES, Curve, fit_curve
from tunepoint.stats.intervals import Interval
from tunepoint.stats.streams import Stream
from tunepoint.study.bench import Runner
from tunepoint.study.directory import Study
from tunepoint.study.planning import expected_seconds
from tunepoint.trials.table import joint_of, mean_interval, tabulate
from tunepoint.trials.trial import Trial


def nested_subsets(
    train: Sequence[Example], shares: Sequence[float], rng: np.random.Generator
) -> list[list[Example]]:
    """Subsets of train, each inside the next, every label in its share."""
    order = rng.permutation(len(train))
    seen: dict[str, int] = {}
    rank: list[tuple[float, int, int]] = []
    total: dict[str, int] = {}
    for example in train:
        total[example.target] = total.get(example.target, 0) + 1
    for place, i in enumerate(order.tolist()):
        label = train[i].target
        seen[label] = seen.get(label, 0) + 1
        rank.append(((seen[label] - 0.5) / total[label], place, i))
    ranked = [i for _, _, i in sorted(rank)]
    return [[train[i] for i in ranked[: max(2, round(share * len(train)))]] for share in shares]


def draw_curve(runner: Runner, candidates: CandidateArms) -> None:
    """Train on nested subsets and measure on dev; the whole of train is there already."""
    if candidates.curve_arm is None:
        return
    split = runner.prepared.split
    rng = runner.study.rng(Stream.CURVE)
    arm = candidates.curve_arm.once()
    for subset in nested_subsets(trainable(runner.task, split.train), CURVE_SHARES, rng):
        name = f"{arm.name}, {len(subset)} examples"
        expected = expected_seconds(arm, len(subset), 0)
        if len(subset) >= candidates.curve_arm.min_examples:
            runner.measure(arm, runner.study.curve, split.dev, subset, name=name, expected=expected)


AHEAD = (1.0, 1.5, 2.0, 3.0, 4.0)
"""Multiples of the training examples that the report looks ahead."""
FAR = 4
"""Multiple of the training examples up to which a curve may speak against the verdict."""


@dataclass(frozen=True)
class Learning:
    """A study's learning curve: what was measured, and what it foretells."""

    rows: tuple[tuple[int, Interval], ...]
    """(training examples, score on dev)"""
    labels: int
    """Labels of the task; the examples of each are what a many-class curve depends on."""
    curve: Curve | None = None
    """None where too few sizes were measured, or the scores fall."""
    why_not: str | None = None

    @property
    def examples(self) -> int:
        """Training examples of the whole of train."""
        return self.rows[-1][0]

    def growth(self, arms: Sequence[str]) -> LearningGain | None:
        """What twice the examples would bring these arms."""
        if self.curve is None:
            return None
        gain = self.curve.gain(self.examples, 2 * self.examples)
        least = max(gain.estimate, 1e-9)
        times = [
            self.curve.gain(self.examples, 2**k * self.examples).estimate / least for k in EXAMPLE_DOUBLINGS
        ]
        soon = self.curve.gain(self.examples, self.examples + NEXT_EXAMPLES).estimate / least
        return LearningGain(self.examples, dict.fromkeys(arms, gain), tuple(times), soon)

    def document(self) -> dict[str, Any]:
        """The curve for measurements.json and the report."""
        found: dict[str, Any] = {"labels": self.labels, "why_not": self.why_not, "ahead": [], "families": {}}
        if self.curve is None:
            return found
        # the curve knows gains; the level of the last point has its own error
        _, last = self.rows[-1]
        error = (last.high - last.low) / (2 * 1.96)
        for times in AHEAD:
            size = round(times * self.examples)
            gain = self.curve.gain(self.examples, size, 0.9)
            low = last.estimate + gain.estimate - float(np.hypot(gain.estimate - gain.low, 1.645 * error))
            high = last.estimate + gain.estimate + float(np.hypot(gain.high - gain.estimate, 1.645 * error))
            middle = min(1.0, last.estimate + gain.estimate)
            found["ahead"].append(
                {"examples": size, "estimate": middle, "low": max(0.0, low), "high": min(1.0, high)}
            )
        more = self.curve.gain(self.examples, self.examples + NEXT_EXAMPLES, 0.9)
        return {
            **found,
            "next": {"examples": NEXT_EXAMPLES, **asdict(more)},
            "families": dict(self.curve.weights),
        }


def learn(
    study: Study, candidates: CandidateArms, train: Sequence[Example], rng: np.random.Generator
) -> Learning | None:
    """The learning curve of the growing arm, fitted; None where none was drawn.

    Points share their dev items, so the error of a point is that of its paired difference to the whole
    of train; a single training run has the variance of the seeds that the whole of train was given.
    """
    if candidates.curve_arm is None:
        return None
    whole = study.dev.of(candidates.curve_arm.name)
    runs = {trial.arm: None for trial in study.curve.trials}
    parts = {int(arm.rpartition(", ")[2].split()[0]): study.curve.of(arm) for arm in runs}
    sizes = sorted(size for size in parts if size < len(train))
    if len({trial.cluster or trial.item for trial in whole}) < 2:
        return None  # one group of dev items says nothing of others
    rows = [(size, mean_interval(parts[size], rng)) for size in sizes] + [
        (len(train), mean_interval(whole, rng))
    ]
    labels = len({example.target for example in train})
    if len(rows) < MIN_CURVE_SIZES:
        return Learning(
            tuple(rows), labels, None, f"{len(rows)} sizes were measured, a curve takes {MIN_CURVE_SIZES}"
        )
    seed_sd = _seed_sd(whole)
    errors = [_error(parts[size], whole, seed_sd) for size in sizes]
    errors.append(seed_sd / np.sqrt(len({trial.seed for trial in whole})))
    try:
        curve = fit_curve([size for size, _ in rows], [score.estimate for _, score in rows], errors, rng)
    except EvidenceError as error:
        return Learning(tuple(rows), labels, None, str(error))
    return Learning(tuple(rows), labels, curve)


def _seed_sd(whole: Sequence[Trial]) -> float:
    """Standard deviation of the score over training seeds; the usual one at least, for three say little."""
    means: dict[str | None, list[float]] = {}
    for trial in whole:
        means.setdefault(trial.seed, []).append(trial.score)
    measured = (
        float(np.std([np.mean(scores) for scores in means.values()], ddof=1)) if len(means) > 1 else 0.0
    )
    return max(TYPICAL_SEED_SD, measured)


def _error(part: Sequence[Trial], whole: Sequence[Trial], seed_sd: float) -> float:
    """Standard error of a point: its paired difference to the whole of train, and its single seed."""
    first = [trial.model_copy(update={"arm": "part", "seed": None}) for trial in part]
    second = [trial.model_copy(update={"arm": "whole"}) for trial in whole]
    covariance = joint_of(tabulate([*first, *second])).item_covariance
    items = float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    return float(np.sqrt(max(0.0, items) + seed_sd**2))


def growing_arms(candidates: CandidateArms, finalists: Sequence[Arm]) -> list[str]:
    """The finalists that are trained as the curve's arm is, alone or with a prompt; they grow as it does."""
    if candidates.curve_arm is None:
        return []
    name = candidates.curve_arm.name
    return [
        arm.name
        for arm in finalists
        if arm.name == name or (isinstance(arm, HasPromptlessTwin) and arm.promptless_name == name)
    ]


def still_rising(
    decision: Decision, learning: Learning | None, arms: Sequence[str], margin: float
) -> list[str]:
    """Whether a verdict against tuning rests on a curve that has not ended.

    An early, many-class curve never rules fine-tuning out: its interval is what counts, not its last step.
    """
    if learning is None or learning.curve is None or decision.winner in arms:
        return []
    scores = {finalist.arm: finalist.score.estimate for finalist in decision.finalists}
    tuned = max((arm for arm in arms if arm in scores), key=lambda arm: scores[arm], default=None)
    if tuned is None:
        return []
    behind = scores[decision.winner] - scores[tuned]
    gain = learning.curve.gain(learning.examples, FAR * learning.examples, 0.9)
    if behind <= margin or gain.high < behind - margin:
        return []  # its score did not decide, or will not
    each = learning.examples / max(1, learning.labels)
    return [
        f"{tuned} learnt from {learning.examples} examples ({each:.0f} a label) and its curve may yet rise: "
        f"{FAR} times as many would bring {gain.estimate:+.3f} ({gain.low:+.3f} to {gain.high:+.3f}, 90%), "
        f"and it is {behind:.3f} behind. The verdict is of the examples at hand and does not rule tuning out"
    ]
