"""What more training examples would bring a trained arm, by the curve that a study drew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tunepoint.arms.catalog import CandidateArms
from tunepoint.arms.contract import Arm, HasPromptlessTwin
from tunepoint.decision.futures import EXAMPLE_DOUBLINGS, LearningGain
from tunepoint.decision.value_of_information import NEXT_EXAMPLES
from tunepoint.decision.verdict import Decision
from tunepoint.stats.curves import Curve
from tunepoint.stats.intervals import Interval

AHEAD_MULTIPLES = (1.0, 1.5, 2.0, 3.0, 4.0)
"""Multiples of the training examples that the report looks ahead."""
MAX_MULTIPLE = 4
"""Multiple of the training examples up to which a curve may speak against the verdict."""


@dataclass(frozen=True)
class LearningCurve:
    """A study's learning curve: what was measured, and what it predicts."""

    rows: tuple[tuple[int, Interval], ...]
    """(training examples, score on dev), the whole training set last."""
    labels: int
    """Labels of the task; the examples of each are what a many-class curve depends on."""
    curve: Curve | None = None
    """None where too few sizes were measured, or the scores fall."""
    why_not: str | None = None
    """Why there is no curve."""
    by_pool: int = 0
    """Sizes whose distance to the whole training set a pool with labels has made surer."""

    @property
    def examples(self) -> int:
        """Examples in the whole training set."""
        return self.rows[-1][0]

    def growth(self, arms: Sequence[str]) -> LearningGain | None:
        """Return what twice the examples would bring these arms; None without a curve."""
        if self.curve is None:
            return None
        gain = self.curve.gain(self.examples, 2 * self.examples)
        unit = max(gain.estimate, 1e-9)  # a flat curve gains nothing, and is divided by
        times = [
            self.curve.gain(self.examples, 2**k * self.examples).estimate / unit for k in EXAMPLE_DOUBLINGS
        ]
        soon = self.curve.gain(self.examples, self.examples + NEXT_EXAMPLES).estimate / unit
        return LearningGain(self.examples, dict.fromkeys(arms, gain), tuple(times), soon)

    def document(self) -> dict[str, Any]:
        """Return the curve for measurements.json and the report."""
        content: dict[str, Any] = {"labels": self.labels, "why_not": self.why_not, "by_pool": self.by_pool}
        if self.curve is None:
            return {**content, "ahead": [], "families": {}}
        gain = self.curve.gain(self.examples, self.examples + NEXT_EXAMPLES, 0.9)
        return {
            **content,
            "ahead": [self._ahead(self.curve, round(times * self.examples)) for times in AHEAD_MULTIPLES],
            "families": dict(self.curve.weights),
            "next": {"examples": NEXT_EXAMPLES, **asdict(gain)},
        }

    def _ahead(self, curve: Curve, size: int) -> dict[str, float]:
        """The expected score with so many examples, and its 90% interval."""
        # the curve knows gains; the level of the last point has its own error, from its 95% interval
        _, last = self.rows[-1]
        error = (last.high - last.low) / (2 * 1.96)
        gain = curve.gain(self.examples, size, 0.9)
        middle = last.estimate + gain.estimate
        low = middle - float(np.hypot(gain.estimate - gain.low, 1.645 * error))
        high = middle + float(np.hypot(gain.high - gain.estimate, 1.645 * error))
        return {
            "examples": size,
            "estimate": min(1.0, middle),
            "low": max(0.0, low),
            "high": min(1.0, high),
        }


def growing_arms(candidates: CandidateArms, finalists: Sequence[Arm]) -> list[str]:
    """Return the finalists that learn as the curve's arm does: itself, and it with a prompt."""
    if candidates.curve_arm is None:
        return []
    name = candidates.curve_arm.name
    return [
        arm.name
        for arm in finalists
        if arm.name == name or (isinstance(arm, HasPromptlessTwin) and arm.promptless_name == name)
    ]


def still_rising(
    decision: Decision, learning: LearningCurve | None, arms: Sequence[str], margin: float
) -> list[str]:
    """Return a caveat where a verdict against tuning rests on a curve that has not ended.

    An early, many-class curve never rules fine-tuning out: its interval is what counts, not its last step.
    """
    if learning is None or learning.curve is None or decision.winner in arms:
        return []
    scores = {finalist.arm: finalist.score.estimate for finalist in decision.finalists}
    tuned = max((arm for arm in arms if arm in scores), key=lambda arm: scores[arm], default=None)
    if tuned is None:
        return []
    behind = scores[decision.winner] - scores[tuned]
    gain = learning.curve.gain(learning.examples, MAX_MULTIPLE * learning.examples, 0.9)
    if behind <= margin or gain.high < behind - margin:
        return []  # its score did not decide, or will not
    per_label = learning.examples / max(1, learning.labels)
    return [
        f"{decision.titles[tuned]} learned from {learning.examples} examples ({per_label:.0f} per label), "
        f"and its curve may still rise: {MAX_MULTIPLE} times as many would bring {gain.estimate:+.3f} "
        f"({gain.low:+.3f} to {gain.high:+.3f}, 90%), and it is {behind:.3f} behind. The verdict holds for "
        "the examples at hand and does not rule tuning out"
    ]
