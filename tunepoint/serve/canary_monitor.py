"""Watches a canary: compares its outcomes with the champion's, and raises, promotes or rolls it back.

Every process writes the outcomes of its own answers into the store, with the answers. The one that holds the
lease reads all of them and decides.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from dataclasses import asdict
from typing import cast

from tunepoint.capture.canary_values import ValueColumns, drop_values, read_values
from tunepoint.capture.records import CanaryValue, CapturedRequest, Feedback, Role
from tunepoint.capture.sharing import give_lease_back, hold_lease
from tunepoint.capture.store import Store
from tunepoint.errors import StoreError
from tunepoint.serve.canary import Canary, CanaryDecision, Measure, Outcomes, decide_canary, measured
from tunepoint.serve.routing import AUTOMATIC, Router
from tunepoint.stats.intervals import Interval

NOT_THE_ARM = (400, 413, 422, 499)
"""HTTP statuses that say nothing of an arm: wrong requests, and clients that disconnected."""
ENOUGH_VALUES = 100_000
"""Outcomes of one side on one measure, from which further ones are not written: they would change no
decision, and fill the store of a canary that waits for a person."""
FORGET_SECONDS = 3_600.0
"""Age of a canary that is not running, from which its outcomes are deleted: this process may not know yet of
one that has just begun."""
LEASE_SECONDS = 10.0
"""After which another process decides, if the one that did has ended."""
ANSWER = "answer"
"""Measure under which every answer of the challenger is counted."""
SIDES: dict[str, str] = {"champion": "champion", "canary": "canary"}
"""Role -> the side that it counts for; other roles are not compared."""


def feedback_score(feedback: Feedback) -> float | None:
    """Return the score of feedback, 0 to 1; None for a mere comment.

    A correction counts as 0 unless a score or a thumb says otherwise.
    """
    if feedback.score is not None:
        return feedback.score
    if feedback.thumbs is not None:
        return float(feedback.thumbs)
    return 0.0 if feedback.correction is not None else None


class CanaryMonitor:
    """Outcomes of champion and challenger since the canary began; safe for several threads.

    Args:
        router: whose canary it is.
        store: with the outcomes of all processes.
        holder: name of this process, as its lease knows it.

    """

    def __init__(self, router: Router, store: Store, holder: str) -> None:
        self.router, self.store, self.holder = router, store, holder
        self.decision: CanaryDecision | None = None
        """The latest one, by whichever process; None before the first, and while no canary runs."""
        self._lock = threading.Lock()
        self._read: tuple[str, float] | None = None
        """Challenger and begin of the canary that the values are of."""
        self._values = ValueColumns()
        self._full: frozenset[tuple[str, str]] = frozenset()
        """(side, measure) of which there are enough outcomes."""
        self._forgotten = False
        """Whether the outcomes of the last canary are deleted."""

    # -- what counts ---------------------------------------------------------------------------

    def outcomes(self, request: CapturedRequest) -> tuple[CanaryValue, ...]:
        """Return what an answer counts, unless the caller is to blame or it is a shadow's copy."""
        canary, side = self.router.policy.canary, SIDES.get(request.role)
        if canary is None or side is None or request.status in NOT_THE_ARM or request.copy_of is not None:
            return ()
        unit = request.user or request.id
        values = [
            self._value(canary, side, measure, unit, value)
            for measure, value in measured(
                canary,
                answered=request.status < 400,
                readable=request.format_ok,
                seconds=request.seconds,
                usd=None if request.cost_usd is None else float(request.cost_usd),
            )
        ]
        if side == "canary":
            values.append(self._value(canary, side, ANSWER, request.id, 1.0))
        return tuple(value for value in values if (value.side, value.measure) not in self._full)

    def outcomes_of_feedback(
        self, role: Role, feedback: Feedback, user: str | None = None
    ) -> tuple[CanaryValue, ...]:
        """Return what feedback on an answer counts; a request without a user counts as a user of its own."""
        canary, side, score = self.router.policy.canary, SIDES.get(role), feedback_score(feedback)
        if canary is None or side is None or score is None:
            return ()
        return (self._value(canary, side, "feedback", user or feedback.request, score),)

    def _value(self, canary: Canary, side: str, measure: str, unit: str, value: float) -> CanaryValue:
        return CanaryValue(self.router.task, canary.since, side, measure, unit, value)

    def close(self) -> None:
        """Let another process decide at once."""
        with suppress(StoreError):
            give_lease_back(self.store, self._lease, self.holder)

    # -- deciding ------------------------------------------------------------------------------

    def evaluate(self) -> CanaryDecision | None:
        """Decide on the outcomes so far, and change the routes if it is time, where this process may.

        The intervals may take seconds, so it runs in a thread.

        Returns:
            The decision; None where no canary runs, another process decides, or nothing has come in since
            the last one.

        Raises:
            RouteConflict: somebody has changed the routes meanwhile.
            StoreError: the store is away; nothing is decided.

        """
        with self._lock:
            canary = self.router.policy.canary
            if self.router.behind:  # it may have ended, and this process cannot follow that
                return None
            if canary is None:
                self._forget()
                return None
            if not hold_lease(self.store, self._lease, self.holder, LEASE_SECONDS):
                self.decision = self._decision_of_others(canary)
                return None
            if not self._read_new(canary):
                return None
            champion, challenger = self._sides()
            decision = self.decision = decide_canary(canary, champion, challenger)
            document = {**_document(canary, decision), "full": sorted(self._full)}
            self.store.set_state(self._state_name, document)
        if decision.move == "roll back":
            self.router.roll_back(AUTOMATIC, decision.why, judged=canary)
        elif decision.move == "raise":
            self.router.raise_canary(challenger.answers, AUTOMATIC, decision.why, judged=canary)
        elif decision.move == "promote" and not canary.ask:
            self.router.promote(canary.arm, AUTOMATIC, decision.why, judged=canary)
        return decision

    def _forget(self) -> None:
        """Delete the outcomes of canaries that have ended, once."""
        if self._read is not None:
            self._forgotten = False
        self.decision, self._read, self._values, self._full = None, None, ValueColumns(), frozenset()
        if not self._forgotten:
            drop_values(self.store, self.router.task, time.time() - FORGET_SECONDS)
            self._forgotten = True

    def _read_new(self, canary: Canary) -> bool:
        """Read the outcomes that are not known yet; whether there are any."""
        task, before = self.router.task, self._values.count
        if self._read != (canary.arm, canary.since):
            drop_values(self.store, task, canary.since)
            self._read, self._values, before = (canary.arm, canary.since), ValueColumns(), 0
        self._values = read_values(self.store, task, canary.since, self._values)
        columns = self._values.by_measure
        self._full = frozenset(of for of, values in columns.items() if len(values) >= ENOUGH_VALUES)
        return self._values.count != before

    def _sides(self) -> tuple[Outcomes, Outcomes]:
        champion, challenger = Outcomes(), Outcomes()
        for (name, measure), values in self._values.by_measure.items():
            side = challenger if name == "canary" else champion
            if measure == ANSWER:
                side.answers = len(values)
            else:
                side.values[cast(Measure, measure)] = list(values)
        return champion, challenger

    @property
    def _lease(self) -> str:
        return f"canary/{self.router.task}"

    @property
    def _state_name(self) -> str:
        return f"canary/{self.router.task}"

    def _decision_of_others(self, canary: Canary) -> CanaryDecision | None:
        content = self.store.state(self._state_name)
        if content is None or content["since"] != canary.since:
            return None
        self._full = frozenset((side, measure) for side, measure in content.get("full", ()))
        intervals = {
            measure: (Interval(*champion), Interval(*challenger))
            for measure, (champion, challenger) in content["intervals"].items()
        }
        return CanaryDecision(content["move"], content["why"], intervals, tuple(content["unclear"]))


def _document(canary: Canary, decision: CanaryDecision) -> dict[str, object]:
    """A decision as the store keeps it for the other processes."""
    intervals = {
        measure: [list(asdict(interval).values()) for interval in pair]
        for measure, pair in decision.intervals.items()
    }
    return {
        "since": canary.since,
        "move": decision.move,
        "why": decision.why,
        "intervals": intervals,
        "unclear": list(decision.unclear),
    }
