"""What a prompted model answered well, as examples to train on, each with who wrote it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from tunepoint.arms.contract import Arm, Built
from tunepoint.data.examples import Example


@dataclass(frozen=True)
class DistilledSet:
    """Accepted answers of one prompted arm to the inputs of train."""

    teacher: str
    """Name of the arm."""
    version: str
    """Of its prompt: the first digits of a SHA-256 over its words."""
    examples: tuple[Example, ...]
    """Inputs of train with the teacher's answers as targets; `origin` names model and prompt."""
    asked: int
    """Inputs that it was asked; whose targets told which answers were right."""
    usd: float
    """What its answers cost; the study has paid for them."""

    def credited(self, built: Built) -> Built:
        """What a model trained on it took, teacher and labels included."""
        return replace(built, examples=self.asked, asked_usd=self.usd)


Pupil = Callable[[DistilledSet, str | None], list[Arm]]
"""(lesson, instruction of its teacher where a search has found one) -> the arms that learn from it."""
