"""Watches a canary: what comes in is compared, and it is raised, promoted or rolled back."""

from __future__ import annotations

import threading

from tunepoint.capture.records import CapturedRequest, Feedback, Role
from tunepoint.capture.store import Store
from tunepoint.serve.canary import Canary, CanaryDecision, Outcomes, decide_canary
from tunepoint.serve.routing import Router

CALLERS = (400, 413, 422, 499)
"""HTTP statuses of requests that were wrong, and of callers that went away."""
WHO = "canary"
"""In the audit log, for changes that no person made."""


def feedback_score(said: Feedback) -> float | None:
    """What feedback says of the answer, 0..1: its score, a thumb, or that it had to be corrected."""
    if said.score is not None:
        return said.score
    if said.thumbs is not None:
        return float(said.thumbs)
    return 0.0 if said.correction is not None else None


class CanaryMonitor:
    """Outcomes of champion and challenger since the canary began."""

    def __init__(self, router: Router) -> None:
        self.router = router
        self.judged: CanaryDecision | None = None
        self._lock = threading.Lock()
        self._of: Canary | None = None
        self._seen = 0
        self._champion, self._challenger = Outcomes(), Outcomes()

    def _begin(self) -> Canary | None:
        """The canary that runs; counts begin anew with another one."""
        canary = self.router.policy.canary
        if canary is None or self._of is None or (canary.arm, canary.since) != (self._of.arm, self._of.since):
            self._champion, self._challenger, self._seen, self.judged = Outcomes(), Outcomes(), 0, None
        self._of = canary
        return canary

    def _side(self, role: Role) -> Outcomes | None:
        return {"champion": self._champion, "canary": self._challenger}.get(role)

    def note(self, request: CapturedRequest) -> None:
        """Take in a reply; what is the caller's own doing says nothing of the arm."""
        if self.router.policy.canary is None or request.status in CALLERS or request.copy_of is not None:
            return
        with self._lock:
            canary = self._begin()
            side = self._side(request.role)
            if canary is None or side is None:
                return
            usd = None if request.cost_usd is None else float(request.cost_usd)
            side.note(
                canary,
                user=request.user,
                answered=request.status < 400,
                readable=request.format_ok,
                seconds=request.seconds,
                usd=usd,
            )

    def said(self, role: Role, said: Feedback, user: str | None = None) -> None:
        """Take in feedback on an answer; a request without a user is one by itself."""
        score = feedback_score(said)
        if self.router.policy.canary is None or score is None:
            return
        with self._lock:
            self._begin()
            side = self._side(role)
            if side is not None:
                side.said(score, user or said.request)

    def restore(self, store: Store) -> None:
        """Read again what came in before a restart."""
        canary = self.router.policy.canary
        if canary is None:
            return
        known: dict[str, tuple[Role, str | None]] = {}
        for one in store.requests(self.router.task, since=canary.since):
            self.note(one)
            known[one.id] = (one.role, one.user)
        for request, found in store.feedback(list(known)).items():
            for said in found:
                self.said(known[request][0], said, known[request][1])

    def look(self) -> CanaryDecision | None:
        """Compare, and change the routes if it is time; may take a while, and runs in a thread."""
        with self._lock:
            canary = self._begin()
            count = sum(
                len(values) for side in (self._champion, self._challenger) for values in side.values.values()
            )
            if canary is None or count == self._seen:
                return None
            self._seen = count
            sides = self._champion.copy(), self._challenger.copy()
        judged = self.judged = decide_canary(canary, *sides)
        if judged.move == "roll back":
            self.router.roll_back(WHO, judged.why)
        elif judged.move == "raise":
            self.router.raise_canary(sides[1].answers, WHO, judged.why)
        elif judged.move == "promote" and not canary.ask:
            self.router.promote(canary.arm, WHO, judged.why)
        return judged
