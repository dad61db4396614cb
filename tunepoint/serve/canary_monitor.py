"""Watches a canary: compares its outcomes with the champion's, and raises, promotes or rolls it back."""

from __future__ import annotations

import threading

from tunepoint.capture.records import CapturedRequest, Feedback, Role
from tunepoint.capture.store import Store
from tunepoint.serve.canary import Canary, CanaryDecision, Outcomes, decide_canary
from tunepoint.serve.routing import Router

NOT_THE_ARM = (400, 413, 422, 499)
"""HTTP statuses that say nothing of an arm: wrong requests, and clients that disconnected."""
ACTOR = "canary"
"""Who made a change that no person made, in the audit log."""


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
    """Outcomes of champion and challenger since the canary began; safe for several threads."""

    def __init__(self, router: Router) -> None:
        self.router = router
        self.decision: CanaryDecision | None = None
        """The latest one; None before the first, and while no canary runs."""
        self._lock = threading.Lock()
        self._canary: Canary | None = None
        """The canary that the counts belong to."""
        self._evaluated_values = 0
        """How many values the latest decision has seen."""
        self._champion, self._challenger = Outcomes(), Outcomes()

    def _current_canary(self) -> Canary | None:
        """Return the canary that runs; the counts start again when it is another one."""
        canary, previous = self.router.policy.canary, self._canary
        same = canary and previous and (canary.arm, canary.since) == (previous.arm, previous.since)
        if not same:
            self._champion, self._challenger = Outcomes(), Outcomes()
            self._evaluated_values, self.decision = 0, None
        self._canary = canary
        return canary

    def _outcomes(self, role: Role) -> Outcomes | None:
        """Those of the side that a role belongs to; None for roles that are not compared."""
        if role == "champion":
            return self._champion
        return self._challenger if role == "canary" else None

    def record(self, request: CapturedRequest) -> None:
        """Count an answer, unless the caller is to blame or it is a shadow's copy."""
        if self.router.policy.canary is None or request.status in NOT_THE_ARM or request.copy_of is not None:
            return
        with self._lock:
            canary = self._current_canary()
            outcomes = self._outcomes(request.role)
            if canary is None or outcomes is None:
                return
            outcomes.record(
                canary,
                user=request.user,
                answered=request.status < 400,
                readable=request.format_ok,
                seconds=request.seconds,
                usd=None if request.cost_usd is None else float(request.cost_usd),
            )

    def record_feedback(self, role: Role, feedback: Feedback, user: str | None = None) -> None:
        """Count feedback on an answer; a request without a user counts as a user of its own."""
        score = feedback_score(feedback)
        if self.router.policy.canary is None or score is None:
            return
        with self._lock:
            self._current_canary()
            outcomes = self._outcomes(role)
            if outcomes is not None:
                outcomes.record_feedback(score, user or feedback.request)

    def restore(self, store: Store) -> None:
        """Count again what came in before a restart."""
        canary = self.router.policy.canary
        if canary is None:
            return
        asked_by: dict[str, tuple[Role, str | None]] = {}
        for request in store.requests(self.router.task, since=canary.since):
            self.record(request)
            asked_by[request.id] = (request.role, request.user)
        for request_id, entries in store.feedback(list(asked_by)).items():
            role, user = asked_by[request_id]
            for feedback in entries:
                self.record_feedback(role, feedback, user)

    def evaluate(self) -> CanaryDecision | None:
        """Decide on the outcomes so far, and change the routes if it is time.

        The intervals may take seconds, so it runs in a thread and computes outside of the lock.

        Returns:
            The decision; None where no canary runs, or nothing has come in since the last one.

        """
        with self._lock:
            canary = self._current_canary()
            sides = (self._champion, self._challenger)
            count = sum(len(values) for side in sides for values in side.values.values())
            if canary is None or count == self._evaluated_values:
                return None
            self._evaluated_values = count
            champion, challenger = (side.copy() for side in sides)
        decision = self.decision = decide_canary(canary, champion, challenger)
        if decision.move == "roll back":
            self.router.roll_back(ACTOR, decision.why)
        elif decision.move == "raise":
            self.router.raise_canary(challenger.answers, ACTOR, decision.why)
        elif decision.move == "promote" and not canary.ask:
            self.router.promote(canary.arm, ACTOR, decision.why)
        return decision
