"""Distillation: the answers of a prompted model become the training set of another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from tunepoint.arms.contract import Arm, Built
from tunepoint.data.examples import Example


@dataclass(frozen=True)
class DistilledSet:
    """Accepted answers of one prompted arm to the inputs of the training set."""

    teacher: str
    """Name of the arm."""
    version: str
    """Version of its prompt: the first digits of a SHA-256 over its words."""
    examples: tuple[Example, ...]
    """Training inputs with the teacher's answers as targets; `origin` names model and prompt."""
    labels: int
    """Labeled examples that the teacher answered; their targets decided which answers to accept."""
    usd: float
    """Dollars of the teacher's answers, already paid by the study."""

    def credited(self, built: Built) -> Built:
        """Return the cost of a model trained on this set, the teacher's calls and the labels included."""
        return replace(built, examples=self.labels, teacher_usd=self.usd)


Distiller = Callable[[DistilledSet, str | None], list[Arm]]
"""(set, instruction of the teacher if a prompt search found one) -> the arms that learn from the set."""
