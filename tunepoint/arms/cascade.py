"""The cheap arm answers where it is sure enough; the strong arm answers the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.random import Generator

from tunepoint.arms.contract import Arm, Built, FittedArm, Input, LocalFittedArm
from tunepoint.data.examples import Example
from tunepoint.errors import EvidenceError
from tunepoint.models.chat import Reply
from tunepoint.stats.arrays import Floats
from tunepoint.task.task import Task
from tunepoint.trials.trial import ArmKind


@dataclass(frozen=True)
class Gate:
    """When the cheap arm is sure enough."""

    slope: float
    offset: float
    threshold: float
    """Probability of being right from which the cheap arm answers alone."""

    def calibrated(self, confidence: Floats) -> Floats:
        """Probability of being right at a raw confidence (Platt 1999)."""
        return np.asarray(1 / (1 + np.exp(-(self.slope * _logit(confidence) + self.offset))))

    def opens(self, reply: Reply) -> bool:
        """Whether the cheap arm's reply stands."""
        if not reply.format_ok or reply.confidence is None:
            return False
        return bool(self.calibrated(np.array([reply.confidence]))[0] >= self.threshold)


def _logit(confidence: Floats) -> Floats:
    bounded = np.clip(confidence, 1e-6, 1 - 1e-6)
    return np.asarray(np.log(bounded / (1 - bounded)))


def choose_gate(confidence: Floats, cheap: Floats, strong: Floats) -> Gate:
    """The threshold with the highest score on dev; of equal ones, the cheapest.

    Args:
        confidence: (n,) the cheap arm's confidence on the dev items.
        cheap: (n,) its scores, 0..1.
        strong: (n,) scores of the strong arm on the same items.

    """
    if not len(confidence):
        raise EvidenceError("a cascade needs dev items with confidences, got 0")
    from sklearn.linear_model import LogisticRegression

    right = cheap >= 0.5
    slope, offset = 1.0, 0.0
    if 0 < right.sum() < len(right):
        model = LogisticRegression().fit(_logit(confidence)[:, None], right)
        slope, offset = max(0.0, float(model.coef_[0, 0])), float(model.intercept_[0])
    sure = Gate(slope, offset, 0.0).calibrated(confidence)
    thresholds = np.unique(np.concatenate([sure, [1.0]]))
    scores = [float(np.where(sure >= t, cheap, strong).mean()) for t in thresholds]
    best = int(np.argmax(scores))
    return Gate(slope, offset, float(thresholds[best]))


@dataclass
class FittedCascade(LocalFittedArm):
    """Two fitted arms and the gate between them."""

    cheap: FittedArm
    strong: FittedArm
    gate: Gate
    built: Built

    def answer(self, inputs: Sequence[Input]) -> list[Reply]:
        """The cheap arm's replies, and the strong arm's where the gate stays shut."""
        replies = self.cheap.answer(inputs)
        shut = [i for i, reply in enumerate(replies) if not self.gate.opens(reply)]
        if shut:
            for i, reply in zip(shut, self.strong.answer([inputs[i] for i in shut]), strict=True):
                replies[i] = reply
        return replies


@dataclass
class Cascade:
    """A cheap and a strong arm with the gate that dev chose."""

    cheap: Arm
    strong: Arm
    gate: Gate
    passed_on: float = 1.0
    """Share of the dev items that the gate let through to the strong arm."""
    kind: ArmKind = "cascade"
    family: str = "cascade"
    base_model: ClassVar[None] = None
    name: str = field(init=False)
    seeds: int = field(init=False)

    def __post_init__(self) -> None:
        self.name = f"cascade: {self.cheap.family}, then {self.strong.family}"
        self.seeds = self.strong.seeds

    @property
    def label(self) -> str:
        """Both halves by their labels."""
        return f"{self.cheap.label} first, {self.strong.label} when unsure"

    @property
    def remote(self) -> bool:
        """Whether one of the two calls a model elsewhere."""
        return self.cheap.remote or self.strong.remote

    def fit(self, task: Task, train: Sequence[Example], rng: Generator) -> FittedCascade:
        """Fit both arms from the same `rng`."""
        state = rng.bit_generator.state
        strong = self.strong.fit(task, train, rng)
        rng.bit_generator.state = state
        cheap = self.cheap.fit(task, train, rng)
        built = Built(
            max(cheap.built.examples, strong.built.examples),
            cheap.built.seconds + strong.built.seconds,
            (*cheap.built.warnings, *strong.built.warnings),
            cheap.built.usd + strong.built.usd,
            cheap.built.teacher_usd + strong.built.teacher_usd,
        )
        return FittedCascade(cheap, strong, self.gate, built)
