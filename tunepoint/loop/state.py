"""Where the loop is, and what it does things with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, Protocol

from tunepoint.capture.harvest import Harvest
from tunepoint.capture.store import Store
from tunepoint.errors import TunepointError


def _state(task: str) -> str:
    """Name of the loop's state in the store."""
    return f"loop/{task}"


def load_state(store: Store, task: str) -> LoopState:
    """Where the loop of a task stopped; the first step if it never ran."""
    kept = store.state(_state(task))
    if kept is None:
        return LoopState("serve")
    return LoopState(kept["step"], kept["round"], kept["waits"], kept["facts"])


Step = Literal["serve", "collect", "tune", "canary", "watch"]
STEPS: tuple[Step, ...] = ("serve", "collect", "tune", "canary", "watch")
"""In order: serve the best prompt; gather examples; tune on them and decide on the sealed test; try the
winner on some users; watch it until something speaks for asking again."""


ASKABLE = ("tune", "canary", "promote", "collect")
"""What may wait for a person's yes; `collect` is asking again."""


class LoopError(TunepointError):
    """The loop cannot go on as it is asked to."""


@dataclass(frozen=True)
class Goals:
    """When the loop goes on, and what it asks a person first."""

    good: int = 500
    """Examples from traffic before a model is tuned."""
    again: int = 100
    """Of those that came since the last study, before the next round tunes."""
    per_label: int = 10
    """Of each label that the task declares, those that are there already counted."""
    ask: frozenset[str] = frozenset()
    """Of `ASKABLE`, what waits for a person's yes."""


@dataclass(frozen=True)
class LoopState:
    """Where the loop is, and what it waits for."""

    step: Step
    round: int = 1
    """How often it was asked to tune, this time included."""
    waits: str = ""
    facts: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    """What the step has written down: the study, the challenger, since when."""


@dataclass(frozen=True)
class Challenger:
    """An arm of a new study that won there."""

    study: str
    arm: str
    name: str
    """What it is called in the gateway."""


@dataclass(frozen=True)
class StudyOutcome:
    """What a study with the harvested examples has found."""

    why: str
    facts: Mapping[str, Any]
    """To be written down."""
    challenger: Challenger | None = None
    """The arm that shall be tried; None where the prompt stays, or nothing is settled."""
    needed: int | None = None
    """Examples after which to ask again, where nothing is settled."""


class Deployment(Protocol):
    """What the loop does things with; `circle.py` is the real one. Everything may be done twice."""

    def standing(self) -> LoopState:
        """Where it stopped."""
        ...

    def move(self, step: Step, why: str, **facts: Any) -> LoopState:
        """Go to a step; written down, and in the audit log."""
        ...

    def wait(self, state: LoopState, what: str) -> LoopState:
        """Stay, and say what is waited for."""
        ...

    def said_yes(self, to: str) -> bool:
        """Whether a person has agreed to a step of this round."""
        ...

    def serve_prompt(self) -> tuple[str | None, str]:
        """See that the best prompt serves: the arm that does, or None and what is missing."""
        ...

    def harvest(self) -> Harvest:
        """Examples from all traffic that is kept."""
        ...

    def fresh(self, found: Harvest) -> int:
        """How many of them no study of this loop has seen."""
        ...

    def lacking(self, found: Harvest) -> Sequence[str]:
        """Labels that have too few examples."""
        ...

    def study(self, found: Harvest) -> StudyOutcome:
        """Tune on all examples and decide on the sealed test."""
        ...

    def canary(self, challenger: Challenger) -> tuple[Literal["runs", "promoted", "rolled back"], str]:
        """See that the challenger is tried on live traffic; how it stands."""
        ...

    def promote(self, challenger: Challenger) -> None:
        """A person said yes."""
        ...

    def reasons(self) -> tuple[Sequence[str], str]:
        """What speaks for asking again: drift, volume, price, a retirement; and what was looked at."""
        ...
