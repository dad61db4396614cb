"""Compares a study's forecast with what was captured since it serves: money by arm, volume, break-even."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tunepoint.capture.store import Store
from tunepoint.capture.totals import ServedTotals
from tunepoint.costs.arm_cost import NOTHING, ArmCost
from tunepoint.costs.break_even import BreakEven
from tunepoint.costs.simulation import simulate
from tunepoint.decision.verdict import DECISION_DRAWS, Decision
from tunepoint.errors import StudyError, nearest
from tunepoint.loop.measured_costs import measured, with_measured
from tunepoint.loop.traffic import CapturedTraffic, captured_traffic, months, period
from tunepoint.stats.moments import sum_of
from tunepoint.stats.ranges import Quantiles, Range, quantiles
from tunepoint.stats.streams import Stream, stream
from tunepoint.study.whatif import Reopened, reopen
from tunepoint.task.task import Task
from tunepoint.trials.table import ArmScores

NORMAL_95 = 1.96
"""Standard errors on either side of a mean, for a 95% interval."""


@dataclass(frozen=True)
class ArmSavings:
    """Cost, tokens and time of one arm's answers, as forecast and as captured.

    Field names are keys of realised.json.
    """

    arm: str
    requests: int
    shadows: int
    """Requests that were copies for the shadow."""
    failed: int
    unreadable: int
    forecast: Quantiles
    """Dollars of an answer."""
    measured: Quantiles | None
    """Mean dollars of an answer with its 95% interval; None if too few answers have a price."""
    input_tokens: float | None
    """Of a request, on average; None if no server counted them."""
    output_tokens: float | None
    seconds: float | None
    """Of an answer, on average."""
    forecast_input_tokens: float | None
    """Of a test item, on average, as the study measured it; None if its server did not count them."""
    forecast_output_tokens: float | None
    forecast_seconds: float | None


@dataclass(frozen=True)
class RealizedSavings:
    """A study's forecast beside what the capture store holds. Field names are keys of realised.json."""

    task: str
    since: str
    until: str
    requests: int
    """Answered, copies for shadows not counted."""
    forecast_volume: float
    """Requests a month."""
    volume: float | None
    """Requests a month at the captured rate; None before there is a day of traffic."""
    arms: tuple[ArmSavings, ...]
    arm: str
    """The arm that answered most."""
    against: str
    """The arm that it is compared with."""
    saved: Quantiles
    """Dollars so far: what `against` would have cost for the same questions, less what all arms cost;
    building not counted."""
    built: float
    """Dollars that building `arm` cost more than building `against`."""
    forecast_break_even: BreakEven
    break_even: BreakEven
    """At measured costs and volume."""
    winner: str
    """Of a decision at measured costs and volume."""
    verdict: str
    notes: tuple[str, ...]


def realized_savings(study: Path, store: Store, *, against: str | None = None) -> RealizedSavings:
    """Compare a study's forecast with what was captured since it serves.

    Args:
        against: the arm that would serve otherwise; the verdict's rival if None.

    Raises:
        StudyError: the folder is no study that has decided, or has no such arm.
        StoreError: no arm of the study has answered a question of the task.

    """
    reopened = reopen(study)
    names = list(reopened.table.names)
    traffic = captured_traffic(study, store, reopened)
    if against is not None and against not in names:
        raise StudyError(f"{study}: no finalist named {against!r}; {nearest(against, names)}")
    before = reopened.decide(reopened.task, reopened.costs)
    arm = max(names, key=traffic.answered)
    rival = against or _rival(before, arm)
    if rival == arm:
        others = ", ".join(name for name in names if name != arm)
        raise StudyError(f"{arm!r} is what serves; compare it --against another arm: {others}")
    return _compare(reopened, traffic, before, arm, rival)


def _rival(decision: Decision, arm: str) -> str:
    """The verdict's rival; its winner if the rival serves."""
    if decision.rival is not None and decision.rival != arm:
        return decision.rival
    return decision.winner


def _compare(
    reopened: Reopened, traffic: CapturedTraffic, before: Decision, arm: str, rival: str
) -> RealizedSavings:
    names, task = list(reopened.table.names), reopened.task
    volume = traffic.volume
    costs = [with_measured(cost, traffic.of(cost.arm)) for cost in reopened.costs]
    task_now = task if volume is None else _at_volume(task, volume)
    after = reopened.decide(task_now, costs)
    upfront = before.evidence.costs.upfront
    core_second_usd = task.costs.core_hour_usd.likely / 3600
    first, last = period(traffic.totals)
    return RealizedSavings(
        task=task.name,
        since=_minute(first),
        until=_minute(last),
        requests=traffic.answered(),
        forecast_volume=task.traffic.queries_per_month.likely,
        volume=volume,
        arms=tuple(
            _arm(before, cost, scores, traffic.of(cost.arm), core_second_usd)
            for cost, scores in zip(reopened.costs, reopened.table.arms, strict=True)
            if traffic.of(cost.arm)
        ),
        arm=arm,
        against=rival,
        saved=quantiles(_saved(reopened, costs, task_now, traffic, rival)),
        built=float(np.median(upfront[:, names.index(arm)] - upfront[:, names.index(rival)])),
        forecast_break_even=before.evidence.break_even(arm, rival),
        break_even=after.evidence.break_even(arm, rival),
        winner=after.winner,
        verdict=after.verdict,
        notes=_notes(traffic),
    )


def _notes(traffic: CapturedTraffic) -> tuple[str, ...]:
    notes = []
    if traffic.unknown_arms:
        arms = "1 arm" if traffic.unknown_arms == 1 else f"{traffic.unknown_arms} arms"
        notes.append(f"{arms} in the store not of this study, left out")
    if traffic.volume is None:
        notes.append("less than a day of traffic was captured, so the volume is the task's")
    return tuple(notes)


def _saved(
    reopened: Reopened, costs: Sequence[ArmCost], task: Task, traffic: CapturedTraffic, rival: str
) -> NDArray[np.float64]:
    """(D,) dollars: the rival on all answered questions over the whole time, less what each arm cost.

    An arm cost the money recorded with its answers, its core seconds at their rate, its drawn price for
    answers with neither, and its fixed cost (reserved machines, hosting) from its first to its last
    request. People review whatever serves: that cost is on both sides and left out.
    """
    without_review = task.costs.model_copy(update={"review_hours_per_month": NOTHING})
    seed = reopened.manifest.seed
    draws = simulate(
        costs,
        task.model_copy(update={"costs": without_review}),
        DECISION_DRAWS,
        stream(seed, Stream.SAVINGS),
    )
    core_second_usd = (
        task.costs.core_hour_usd.sample(DECISION_DRAWS, stream(seed, Stream.SAVINGS_MACHINES)) / 3600
    )
    answer = draws.answer()
    fixed_per_month = draws.per_month(draws.volume) - draws.volume[:, None] * answer
    column = {name: position for position, name in enumerate(draws.arms)}
    spent = np.zeros(DECISION_DRAWS)
    for name in dict.fromkeys(total.arm for total in traffic.totals):
        totals = traffic.of(name)
        unpriced = sum(
            max(0, total.requests - total.failed - max(total.priced, total.timed)) for total in totals
        )
        spent += sum(total.cost_nanousd for total in totals) / 1e9
        spent += sum(total.core_seconds for total in totals) * core_second_usd
        spent += unpriced * answer[:, column[name]]
        spent += months(totals) * fixed_per_month[:, column[name]]
    answered = traffic.answered() * answer[:, column[rival]]
    return np.asarray(answered + months(traffic.totals) * fixed_per_month[:, column[rival]] - spent)


def _arm(
    before: Decision,
    cost: ArmCost,
    scores: ArmScores,
    totals: Sequence[ServedTotals],
    core_second_usd: float,
) -> ArmSavings:
    dollars, seconds = measured(cost, totals)
    machine = None if seconds is None else seconds * core_second_usd
    parts = [part for part in (dollars, machine) if part is not None]
    mean = sum_of(parts)
    half = NORMAL_95 * mean.error
    counted, clocked = sum(total.counted for total in totals), sum(total.clocked for total in totals)
    counted_items = scores.tokens[~np.isnan(scores.tokens[:, 0])]
    input_tokens, _, output_tokens = (
        counted_items.mean(axis=0).tolist() if len(counted_items) else (None, None, None)
    )
    return ArmSavings(
        arm=cost.arm,
        requests=sum(total.requests for total in totals),
        shadows=sum(total.requests for total in totals if total.role == "shadow"),
        failed=sum(total.failed for total in totals),
        unreadable=sum(total.unreadable for total in totals),
        forecast=before.finalist(cost.arm).cost_per_query_usd,
        measured=Quantiles(max(0.0, mean.value - half), mean.value, mean.value + half) if parts else None,
        input_tokens=sum(total.input_tokens for total in totals) / counted if counted else None,
        output_tokens=sum(total.output_tokens for total in totals) / counted if counted else None,
        seconds=sum(total.seconds for total in totals) / clocked if clocked else None,
        forecast_input_tokens=input_tokens,
        forecast_output_tokens=None if output_tokens is None or np.isnan(output_tokens) else output_tokens,
        forecast_seconds=float(scores.seconds.mean()) if len(scores.seconds) else None,
    )


def _at_volume(task: Task, volume: float) -> Task:
    traffic = task.traffic.model_copy(update={"queries_per_month": Range(volume, volume, volume)})
    return task.model_copy(update={"traffic": traffic})


def _minute(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="minutes")
