"""What a study's arms have answered, from the capture store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tunepoint.capture.store import Store
from tunepoint.capture.totals import ServedTotals
from tunepoint.errors import StoreError
from tunepoint.loop.state import name_in_study
from tunepoint.study.labelling.sampling import Brought, PoolInput, drawn
from tunepoint.study.whatif import Reopened

TRAFFIC_ROLES = ("champion", "fallback", "cascade", "canary", "slice")
"""Roles whose answers went to users; a shadow's copies cost money without having been asked for."""
SECONDS_A_MONTH = 365.25 * 86_400 / 12
MIN_SECONDS = 86_400.0
"""Of traffic, from which a month's volume is extrapolated."""


@dataclass(frozen=True)
class CapturedTraffic:
    """What a study's arms have answered."""

    totals: Sequence[ServedTotals]
    unknown_arms: int
    """Arms in the store that are none of the study's."""

    def of(self, arm: str) -> list[ServedTotals]:
        """The totals of one arm, by role."""
        return [total for total in self.totals if total.arm == arm]

    def answered(self, arm: str | None = None) -> int:
        """Answers to users, of one arm or of all."""
        return sum(
            total.requests - total.failed
            for total in self.totals
            if total.role in TRAFFIC_ROLES and arm in (None, total.arm)
        )

    @property
    def volume(self) -> float | None:
        """Answers to users in a month at this rate; None before there is a day of traffic."""
        first, last = period(self.totals)
        return self.answered() * SECONDS_A_MONTH / (last - first) if last - first >= MIN_SECONDS else None


def captured_traffic(study: Path, store: Store, reopened: Reopened) -> CapturedTraffic:
    """Read what a study's arms have answered.

    Raises:
        StoreError: no arm of the study has answered a question of the task.

    """
    names, task = list(reopened.table.names), reopened.task.name
    captured = [replace(total, arm=name_in_study(total.arm, names)) for total in store.totals(task)]
    totals = [total for total in captured if total.arm in names and total.role != "imported"]
    traffic = CapturedTraffic(totals, len({total.arm for total in captured} - set(names)))
    if not traffic.answered():
        others = ", ".join(sorted({f"{total.arm} ({total.role})" for total in captured})) or "none"
        raise StoreError(
            f"{store.label}: no question of task {task!r} was answered by an arm of this study "
            f"({', '.join(names)}); captured of this task: {others}. `tunepoint serve {study}` captures them"
        )
    return traffic


def pool_inputs(store: Store, task: str) -> Brought:
    """Return the inputs of a task's captured traffic, or a sample, by user where users are told apart."""
    requests = (request for request in store.requests(task) if request.copy_of is None)
    return drawn(PoolInput(request.input, request.user) for request in requests)


def period(totals: Sequence[ServedTotals]) -> tuple[float, float]:
    """Times of the first and the last request, in seconds since 1970."""
    return min(total.first for total in totals), max(total.last for total in totals)


def months(totals: Sequence[ServedTotals]) -> float:
    """Months from the first to the last request."""
    first, last = period(totals)
    return (last - first) / SECONDS_A_MONTH
