"""Keeps the state of a loop in the capture store, with an audit entry for every step."""

from __future__ import annotations

import time
from dataclasses import replace

from tunepoint.capture.store import Store
from tunepoint.errors import nearest
from tunepoint.loop.state import (
    APPROVABLE,
    NO_CHANGES,
    LoopError,
    LoopFacts,
    LoopState,
    Step,
    load_state,
    save_state,
)
from tunepoint.task.task import Task

ACTOR = "loop"
"""Who made a change that no person made, in the audit log."""


class StoredState:
    """The part of a deployment that reads and writes where the loop is."""

    task: Task
    store: Store

    def state(self) -> LoopState:
        """Return where the loop stopped; its first step if it never ran."""
        return load_state(self.store, self.task.name)

    def move(
        self, step: Step, why: str, changes: LoopFacts = NO_CHANGES, *, round: int | None = None
    ) -> LoopState:
        """Go to a step, and write that down with the changes and an entry of the audit log."""
        # Read again, not taken from the caller: a step may have written down facts of its own meanwhile.
        previous = self.state()
        number = previous.round if round is None else round
        facts = previous.facts.updated(changes)
        if step != previous.step:
            facts = facts.updated(LoopFacts(approvals=()))  # an approval is for one step
        if number != previous.round:
            facts = facts.updated(LoopFacts(examples_needed=None))
        if step == "watch":
            facts = facts.updated(LoopFacts(watching_since=time.time()))
        state = LoopState(step, number, facts=facts)
        save_state(self.store, self.task.name, state)
        self.audit(f"{previous.step} -> {step}: {why}")
        return state

    def wait(self, state: LoopState, reason: str) -> LoopState:
        """Stay at a step, and write down what it waits for."""
        waiting = replace(self.state(), step=state.step, round=state.round, waits=reason)
        save_state(self.store, self.task.name, waiting)
        return waiting

    def record(self, changes: LoopFacts) -> None:
        """Write down facts, and stay."""
        state = self.state()
        save_state(self.store, self.task.name, replace(state, facts=state.facts.updated(changes)))

    def approved(self, step: str) -> bool:
        """Whether a person has approved a step of this round."""
        return step in self.state().facts.approvals

    def approve(self, step: str, who: str) -> None:
        """Approve a step of this round.

        Raises:
            LoopError: it is not a step that waits for approval.

        """
        if step not in APPROVABLE:
            raise LoopError(f"{step!r} is not a step that needs approval; {nearest(step, APPROVABLE)}")
        self.record(LoopFacts(approvals=(*self.state().facts.approvals, step)))
        self.audit(f"approved {step}", who)

    def audit(self, what: str, who: str = ACTOR) -> None:
        """Add an entry to the task's audit log."""
        self.store.add_audit(self.task.name, who, what)
