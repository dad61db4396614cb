"""The criteria of the practical framework: what each claims, and which way it points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Direction = Literal["prompt", "fine-tune", "hybrid"]


@dataclass(frozen=True)
class Signal:
    """One criterion: what it points to, its value, its threshold and whether it holds."""

    id: str
    points_to: Direction
    criterion: str
    value: float | None
    threshold: float | None
    holds: bool | None
    """None when it was not measured."""
    detail: str


@dataclass(frozen=True)
class Criterion:
    """A criterion before it is measured."""

    id: str
    points_to: Direction
    claim: str
    """What holds if the criterion favors its direction."""

    def measured(
        self, *, value: float | None, threshold: float | None, holds: bool | None, detail: str
    ) -> Signal:
        """Return the signal of a measurement; `holds` is None without a threshold to compare it with."""
        return Signal(
            id=self.id,
            points_to=self.points_to,
            criterion=self.claim,
            value=value,
            threshold=threshold,
            holds=holds,
            detail=detail,
        )

    def unmeasured(self, why: str, *, threshold: float | None = None, value: float | None = None) -> Signal:
        """Return the signal of a criterion that could not be measured."""
        return self.measured(value=value, threshold=threshold, holds=None, detail=f"not measured: {why}")


CHANGING = Criterion("P1", "prompt", "requirements still change")
FEW_EXAMPLES = Criterion("P2", "prompt", "instructions and a few examples are enough")
DIVERSE = Criterion("P3", "prompt", "inputs are unusually diverse")
BUDGET = Criterion("P4", "prompt", "the budget is too small for fine-tuning")
NEWEST = Criterion("P5", "prompt", "the base model must stay the newest")
FORMAT = Criterion("F1", "fine-tune", "prompting fails to keep a strict format")
EXAMPLES = Criterion("F2", "fine-tune", "there are hundreds of good examples")
CEILING = Criterion("F3", "fine-tune", "prompting has reached its ceiling")
VOLUME = Criterion("F4", "fine-tune", "the volume is high enough to pay for fine-tuning")
LATENCY = Criterion("F5", "fine-tune", "prompting is too slow")
CAPTURED = Criterion("H1", "hybrid", "prompting has produced enough good examples")
LIGHT_PROMPT = Criterion("H2", "hybrid", "a light prompt improves the tuned model")
