"""Cascades: the cheap arm answers where it is sure enough, the strong arm answers the rest."""

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
    """Decides from a calibrated confidence whether the cheap arm's reply stands."""

    slope: float
    offset: float
    threshold: float
    """Probability of being right from which the cheap arm answers alone."""

    def calibrated(self, confidence: Floats) -> Floats:
        """Return the probability of being right at each raw confidence (Platt 1999)."""
        return np.asarray(1 / (1 + np.exp(-(self.slope * _logit(confidence) + self.offset))))

    def accepts(self, reply: Reply) -> bool:
        """Return whether the cheap arm's reply stands."""
        if not reply.format_ok or reply.confidence is None:
            return False
        return bool(self.calibrated(np.array([reply.confidence]))[0] >= self.threshold)


def _logit(confidence: Floats) -> Floats:
    # Models report confidences of exactly 0 and 1, whose logits are infinite.
    bounded = np.clip(confidence, 1e-6, 1 - 1e-6)
    return np.asarray(np.log(bounded / (1 - bounded)))


def choose_gate(confidence: Floats, cheap: Floats, strong: Floats) -> Gate:
    """Return the gate with the highest score on the validation set; of equal ones, the cheapest.

    Args:
        confidence: (n,) the cheap arm's confidence on the validation items.
        cheap: (n,) its scores, 0..1.
        strong: (n,) scores of the strong arm on the same items.

    Raises:
        EvidenceError: there are no items.

    """
    if not len(confidence):
        raise EvidenceError("a cascade needs validation items with confidences, got 0")
    from sklearn.linear_model import LogisticRegression

    right = cheap >= 0.5
    slope, offset = 1.0, 0.0
    if 0 < right.sum() < len(right):  # a regression needs both outcomes
        model = LogisticRegression().fit(_logit(confidence)[:, None], right)
        # A negative slope would pass on the items that the cheap arm is surest of.
        slope, offset = max(0.0, float(model.coef_[0, 0])), float(model.intercept_[0])
    probability = Gate(slope, offset, 0.0).calibrated(confidence)
    thresholds = np.unique(np.concatenate([probability, [1.0]]))
    scores = [float(np.where(probability >= t, cheap, strong).mean()) for t in thresholds]
    best = int(np.argmax(scores))  # of equal scores the first: the lowest threshold, fewest strong calls
    return Gate(slope, offset, float(thresholds[best]))


@dataclass
class FittedCascade(LocalFittedArm):
    """Two fitted arms with the gate between them."""

    cheap: FittedArm
    strong: FittedArm
    gate: Gate
    built: Built

    def answer(self, inputs: Sequence[Input]) -> list[Reply]:
        """Return the cheap arm's replies, and the strong arm's where the gate rejects them."""
        replies = self.cheap.answer(inputs)
        rejected = [i for i, reply in enumerate(replies) if not self.gate.accepts(reply)]
        if rejected:
            strong = self.strong.answer([inputs[i] for i in rejected])
            for i, reply in zip(rejected, strong, strict=True):
                replies[i] = reply
        return replies


@dataclass
class Cascade:
    """A cheap and a strong arm with the gate that the validation set chose."""

    cheap: Arm
    strong: Arm
    gate: Gate
    escalation_rate: float = 1.0
    """Share of the validation items that the gate sends on to the strong arm."""
    kind: ArmKind = "cascade"
    family: str = "cascade"
    base_model: ClassVar[None] = None
    name: str = field(init=False)
    seeds: int = field(init=False)

    def __post_init__(self) -> None:
        self.name = cascade_name(self.cheap, self.strong)
        self.seeds = self.strong.seeds

    @property
    def label(self) -> str:
        """Both halves, each by its label."""
        return f"{self.cheap.label} first, {self.strong.label} when unsure"

    @property
    def remote(self) -> bool:
        """Whether either half calls a model elsewhere."""
        return self.cheap.remote or self.strong.remote

    def fit(self, task: Task, train: Sequence[Example], rng: Generator) -> FittedCascade:
        """Fit both arms, each from the same state of `rng`."""
        # Each half then trains as it does when it is measured alone, and finds its finished run on disk.
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


def cascade_name(cheap: Arm, strong: Arm) -> str:
    """Return the name of the cascade of two arms."""
    return f"cascade: {cheap.family}, then {strong.family}"
