"""Where the improvement loop is, what it has written down, and what it acts on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

from tunepoint.capture.harvest import Harvest
from tunepoint.capture.store import Store
from tunepoint.errors import TunepointError

Step = Literal["serve", "collect", "tune", "canary", "watch"]
"""In order: serve the best prompt; collect examples; tune on them and decide on the test set; try the winner
on some users; watch it until there is a reason to collect again."""
APPROVABLE = ("tune", "canary", "promote", "collect")
"""Steps that can wait for a person's approval; `collect` is the start of another round."""
CanaryStatus = Literal["runs", "promoted", "rolled back"]


class LoopError(TunepointError):
    """The loop cannot continue as it is asked to."""


@dataclass(frozen=True)
class Goals:
    """When the loop takes its next step, and which steps wait for approval."""

    min_examples: int = 500
    """Examples from traffic before the first model is tuned."""
    min_new_examples: int = 100
    """Examples since the latest study, before a later round tunes."""
    min_per_label: int = 10
    """Of each label that the task declares, its labelled examples included."""
    ask: frozenset[str] = frozenset()
    """The steps of `APPROVABLE` that wait for approval."""


@dataclass(frozen=True)
class Challenger:
    """The winner of a later study. Field names are keys of serve.toml and of the loop's state."""

    study: str
    arm: str
    name: str
    """Of the arm in the gateway."""


def served_name(arm: str, study_number: int) -> str:
    """Return the gateway's name of a study's arm: two studies may have winners of the same name."""
    return f"{arm} #{study_number}"


def name_in_study(served: str, finalists: Sequence[str]) -> str:
    """Return the study's name of an arm that `served_name` may have named.

    The capture store keeps only the gateway's name, so the study's is read from it here, and nowhere else.
    """
    arm, mark, number = served.rpartition(" #")
    numbered = bool(mark) and number.isdigit() and served not in finalists and arm in finalists
    return arm if numbered else served


class LoopFacts(BaseModel):
    """What the loop has written down for its later steps; aliases are the keys in the store.

    A `LoopFacts` with some fields set also serves as a change: see `updated`.
    """

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    study_count: int = Field(default=1, alias="studies")
    studied_at: float = Field(default=0.0, alias="studied")
    """Start of the latest study, in seconds since 1970: examples from before have been tuned on."""
    examples_needed: int | None = Field(default=None, alias="needed")
    """By an undecided study, before the next one; None in a new round."""
    challenger: Challenger | None = None
    challengers: tuple[Challenger, ...] = Field(default=(), alias="arms")
    """All that were added to the gateway."""
    first_champion: str | None = Field(default=None, alias="first")
    """The arm of the first study that serve.toml names as the champion."""
    canary_started_for: str | None = Field(default=None, alias="tried")
    """Name of the challenger."""
    watching_since: float = Field(default=0.0, alias="watching")
    """Seconds since 1970."""
    answered_reasons: tuple[str, ...] = Field(default=(), alias="asked")
    """Reasons that have begun a round, and do not begin another."""
    approvals: tuple[str, ...] = Field(default=(), alias="yes")
    """Steps that a person has approved since the latest step."""

    def updated(self, changes: LoopFacts) -> LoopFacts:
        """Return the facts with the fields that are set in `changes`."""
        return self.model_copy(update={name: getattr(changes, name) for name in changes.model_fields_set})

    def document(self) -> dict[str, Any]:
        """The facts as the store keeps them."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude_none=True)


NO_CHANGES = LoopFacts()


@dataclass(frozen=True)
class LoopState:
    """Where the loop is, and what it waits for."""

    step: Step
    round: int = 1
    """How often it has collected and tuned, this time included."""
    waits: str = ""
    """What it waits for; empty while it does not."""
    facts: LoopFacts = field(default_factory=LoopFacts)


def load_state(store: Store, task: str) -> LoopState:
    """Read where the loop of a task stopped; its first step if it never ran."""
    state = store.state(_state_name(task))
    if state is None:
        return LoopState("serve")
    facts = LoopFacts.model_validate(state["facts"])
    return LoopState(state["step"], state["round"], state["waits"], facts)


def save_state(store: Store, task: str, state: LoopState) -> None:
    """Write down where the loop of a task is."""
    content = {
        "step": state.step,
        "round": state.round,
        "waits": state.waits,
        "facts": state.facts.document(),
    }
    store.set_state(_state_name(task), content)


def _state_name(task: str) -> str:
    """Name in the store; the gateway's dashboard reads it too."""
    return f"loop/{task}"


@dataclass(frozen=True)
class StudyOutcome:
    """What a study with the harvested examples decided."""

    why: str
    facts: LoopFacts = NO_CHANGES
    """To be written down."""
    challenger: Challenger | None = None
    """The arm to try; None if the prompt stays, or nothing is decided."""
    examples_needed: int | None = None
    """Before the next study, if nothing is decided."""


class Deployment(Protocol):
    """What the loop acts on; `LocalDeployment` is the real one.

    Every method may be called again after it was interrupted, or has already done its work.
    """

    def state(self) -> LoopState:
        """Return where the loop stopped."""
        ...

    def move(
        self, step: Step, why: str, changes: LoopFacts = NO_CHANGES, *, round: int | None = None
    ) -> LoopState:
        """Go to a step, and write that down with the changes and an entry of the audit log."""
        ...

    def wait(self, state: LoopState, reason: str) -> LoopState:
        """Stay at a step, and write down what it waits for."""
        ...

    def approved(self, step: str) -> bool:
        """Whether a person has approved a step of this round."""
        ...

    def serve_prompt(self) -> tuple[str | None, str]:
        """Make sure that the best prompt serves: the arm that does, or None and what is missing."""
        ...

    def harvest(self) -> Harvest:
        """Harvest examples from all captured traffic."""
        ...

    def count_new(self, harvest: Harvest) -> int:
        """Count the examples that no study of this loop has seen."""
        ...

    def lacking_labels(self, harvest: Harvest) -> Sequence[str]:
        """List the labels that have too few examples."""
        ...

    def study(self, harvest: Harvest) -> StudyOutcome:
        """Tune on all examples, and decide on the test set."""
        ...

    def canary(self, challenger: Challenger) -> tuple[CanaryStatus, str]:
        """Make sure that the challenger is tried on live traffic; its status, and why."""
        ...

    def promote(self, challenger: Challenger) -> None:
        """Promote the challenger, since a person approved it."""
        ...

    def reasons_to_retrain(self) -> tuple[Sequence[str], str]:
        """Reasons for another round: drift, volume, prices, a retirement; and what was checked."""
        ...
