"""Forecast against what was measured since it serves: money by arm, volume, break-even."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunepoint.capture.store import ServedTotals, Store
from tunepoint.costs.arm_cost import NOTHING, ArmCost
from tunepoint.costs.break_even import BreakEven
from tunepoint.costs.prices import money
from tunepoint.costs.simulation import simulate
from tunepoint.decision.verdict import DRAWS, Decision
from tunepoint.errors import StoreError, StudyError, nearest
from tunepoint.files.text import write_json
from tunepoint.report.html import REALISED, rebuild_report
from tunepoint.report.words import usd
from tunepoint.stats.moments import Mean, sum_of
from tunepoint.stats.ranges import Quantiles, Range, quantiles
from tunepoint.stats.streams import Stream, stream
from tunepoint.study.whatif import Reopened, reopen
from tunepoint.task.task import Task
from tunepoint.trials.table import ArmScores

ANSWERING = ("champion", "fallback", "cascade", "canary", "slice")
"""Roles whose requests are the traffic; a shadow's are copies, and cost money without being asked for."""
SECONDS_A_MONTH = 365.25 * 86_400 / 12
SHORTEST = 86_400.0
"""Seconds of traffic from which a month is extrapolated."""
FEWEST = 30
"""Requests from which an arm's measured price rules over its forecast."""


@dataclass(frozen=True)
class ArmSavings:
    """One arm: dollars, tokens and seconds of an answer, as forecast and as they came."""

    arm: str
    requests: int
    shadows: int
    """Copies among them, which nobody waited for."""
    failed: int
    unreadable: int
    forecast: Quantiles
    measured: Quantiles | None
    """95% of the mean; None where fewer than 30 requests have a price."""
    input_tokens: float | None
    """Of a request, on average; None where no server counted."""
    output_tokens: float | None
    seconds: float | None
    """Of an answer, on average."""
    forecast_input_tokens: float | None
    """Of a test item, on average, as the study measured it; None where its server did not count."""
    forecast_output_tokens: float | None
    forecast_seconds: float | None


@dataclass(frozen=True)
class RealizedSavings:
    """What a study forecast, beside what the capture store holds."""

    task: str
    since: str
    until: str
    requests: int
    """That were answered, copies for shadows not among them."""
    forecast_volume: float
    volume: float | None
    """Requests of a month at the rate of this time; None before there is a day of it."""
    arms: tuple[ArmSavings, ...]
    arm: str
    """That answered most."""
    against: str
    saved: Quantiles
    """Dollars so far: what `against` would have cost for the same questions, less what all arms took;
    without what building cost."""
    built: float
    """Dollars that `arm` cost more to build than `against`."""
    forecast_break_even: BreakEven
    break_even: BreakEven
    """With measured prices and volume."""
    winner: str
    """Of a decision with what was measured."""
    verdict: str
    notes: tuple[str, ...]


def realized_savings(study: Path, store: Store, *, against: str | None = None) -> RealizedSavings:
    """Compare a study's forecast with what was served since.

    Args:
        against: the arm that would serve otherwise; the verdict's rival if None.

    Raises:
        StudyError: the folder is no study that has decided, or has no such arm.
        StoreError: nothing of the task was captured.

    """
    found = reopen(study)
    names = list(found.table.names)
    served = [replace(one, arm=_own_name(one.arm, names)) for one in store.served(found.task.name)]
    known = [one for one in served if one.arm in names and one.role != "imported"]
    if not any(one.role in ANSWERING and one.requests > one.failed for one in known):
        others = ", ".join(sorted({f"{one.arm} ({one.role})" for one in served})) or "none"
        raise StoreError(
            f"{store.shown}: no question of task {found.task.name!r} was answered by an arm of this study "
            f"({', '.join(names)}); captured of this task: {others}. `tunepoint serve {study}` captures them"
        )
    if against is not None and against not in names:
        raise StudyError(f"{study}: no finalist named {against!r}; {nearest(against, names)}")
    strangers = {one.arm for one in served} - set(names)
    return _compared(found, known, len(strangers), against)


def _own_name(captured: str, names: Sequence[str]) -> str:
    """The study's name of an arm that the loop serves as `NAME #2`."""
    plain, mark, number = captured.rpartition(" #")
    return plain if mark and number.isdigit() and captured not in names and plain in names else captured


def _compared(
    found: Reopened, known: Sequence[ServedTotals], unknown: int, against: str | None
) -> RealizedSavings:
    names, task = list(found.table.names), found.task
    before = found.decide(task, found.costs)
    sums = {name: [one for one in known if one.arm == name] for name in names}
    answered = {
        name: sum(one.requests - one.failed for one in sums[name] if one.role in ANSWERING) for name in names
    }
    arm = max(names, key=lambda name: answered[name])
    rival = against or _rival(before, arm)
    if rival == arm:
        others = ", ".join(name for name in names if name != arm)
        raise StudyError(f"{arm!r} is what serves; give --against another arm: {others}")
    first, last = min(one.first for one in known), max(one.last for one in known)
    total = sum(answered.values())
    volume = total * SECONDS_A_MONTH / (last - first) if last - first >= SHORTEST else None
    costs = [_with_measured(cost, sums[cost.arm]) for cost in found.costs]
    now = task if volume is None else _at_volume(found, volume)
    after = found.decide(now, costs)
    place, other = names.index(arm), names.index(rival)
    upfront, core_second = before.evidence.costs.upfront, task.costs.core_hour_usd.likely / 3600
    few = "1 arm in the store is" if unknown == 1 else f"{unknown} arms in the store are"
    notes = [f"{few} none of this study and left out"] if unknown else []
    if volume is None:
        notes.append("less than a day was captured: the volume of the task stands")
    return RealizedSavings(
        task=task.name,
        since=_day(first),
        until=_day(last),
        requests=total,
        forecast_volume=task.traffic.queries_per_month.likely,
        volume=volume,
        arms=tuple(
            _arm(before, cost, scores, sums[cost.arm], core_second)
            for cost, scores in zip(found.costs, found.table.arms, strict=True)
            if sums[cost.arm]
        ),
        arm=arm,
        against=rival,
        saved=quantiles(_saved(found, costs, now, known, rival)),
        built=float(np.median(upfront[:, place] - upfront[:, other])),
        forecast_break_even=before.evidence.break_even(arm, rival),
        break_even=after.evidence.break_even(arm, rival),
        winner=after.winner,
        verdict=after.verdict,
        notes=tuple(notes),
    )


def _rival(decision: Decision, arm: str) -> str:
    """The verdict's rival; its winner where the rival serves."""
    if decision.rival is not None and decision.rival != arm:
        return decision.rival
    return decision.winner


def _saved(
    found: Reopened, costs: Sequence[ArmCost], task: Task, known: Sequence[ServedTotals], rival: str
) -> NDArray[np.float64]:
    """(D,) dollars: the rival on all answered questions for all of the time, less what each arm took.

    What an arm took is the money that was written down with its answers, its core seconds at their
    rate, its drawn price for answers with neither, and its fixed cost (reserved machines, hosting) from
    its first to its last request. People review whatever serves: that is on both sides and left out.
    """
    alone = task.model_copy(
        update={"costs": task.costs.model_copy(update={"review_hours_per_month": NOTHING})}
    )
    draws = simulate(costs, alone, DRAWS, stream(int(found.manifest["seed"]), Stream.SAVINGS))
    standing = draws.per_month(draws.volume) - draws.volume[:, None] * draws.per_query
    place = {name: position for position, name in enumerate(draws.arms)}
    rate = (
        task.costs.core_hour_usd.sample(DRAWS, stream(int(found.manifest["seed"]), Stream.SAVINGS_MACHINES))
        / 3600
    )
    spent = np.zeros(DRAWS)
    for name in {one.arm for one in known}:
        mine = [one for one in known if one.arm == name]
        bare = sum(max(0, one.requests - one.failed - max(one.priced, one.timed)) for one in mine)
        months = (max(one.last for one in mine) - min(one.first for one in mine)) / SECONDS_A_MONTH
        spent += sum(one.cost_nanousd for one in mine) / 1e9 + sum(one.core_seconds for one in mine) * rate
        spent += bare * draws.per_query[:, place[name]] + months * standing[:, place[name]]
    total = sum(one.requests - one.failed for one in known if one.role in ANSWERING)
    whole = (max(one.last for one in known) - min(one.first for one in known)) / SECONDS_A_MONTH
    return np.asarray(total * draws.per_query[:, place[rival]] + whole * standing[:, place[rival]] - spent)


def _with_measured(cost: ArmCost, served: Sequence[ServedTotals]) -> ArmCost:
    """The cost of an arm at the price of the answers that were captured, where there are enough.

    An arm whose forecast is in money stays so, and one in seconds too, unless the other was captured alone.
    """
    dollars, seconds = _measured(cost, served)
    if dollars is None and seconds is None:
        return cost
    paid, timed = dollars or Mean(), seconds or Mean()
    return replace(
        cost,
        usd_per_query=Range.parse(paid.value),
        query_error_usd=paid.error,
        query_skew=0.0,
        core_seconds_per_query=timed.value,
        core_seconds_error=timed.error,
        core_seconds_skew=0.0,
    )


def _measured(cost: ArmCost, served: Sequence[ServedTotals]) -> tuple[Mean | None, Mean | None]:
    """Dollars and core seconds of an answer; both None where machines are reserved, or too few came."""
    if cost.dedicated is not None or not served:
        return None, None
    money_ = [(one.priced, one.cost_nanousd / 1e9, one.cost_squares / 1e18) for one in served]
    time_ = [(one.timed, one.core_seconds, one.core_squares) for one in served]
    dollars, seconds = (_mean(*(sum(part) for part in zip(*parts, strict=True))) for parts in (money_, time_))
    if dollars is not None and dollars.value == 0 and seconds is None and cost.core_seconds_per_query:
        return None, None  # no price is no proof that it is free
    return dollars, seconds


def _mean(count: float, total: float, squares: float) -> Mean | None:
    """Mean and standard error from sums; None of too few."""
    if count < FEWEST:
        return None
    middle = total / count
    variance = max(0.0, squares / count - middle**2) * count / (count - 1)
    return Mean(middle, math.sqrt(variance / count))


def _arm(
    before: Decision, cost: ArmCost, scores: ArmScores, served: Sequence[ServedTotals], core_second: float
) -> ArmSavings:
    found = before.finalist(cost.arm)
    dollars, seconds = _measured(cost, served)
    parts = [
        part for part in (dollars, None if seconds is None else seconds * core_second) if part is not None
    ]
    mean = sum_of(parts)
    requests = sum(one.requests for one in served)
    half = 1.96 * mean.error

    counted, clocked = (
        sum(part) for part in zip(*((one.counted, one.clocked) for one in served), strict=True)
    )
    tested = scores.tokens[~np.isnan(scores.tokens[:, 0])]
    given, _, output = tested.mean(axis=0).tolist() if len(tested) else (None, None, None)

    return ArmSavings(
        arm=cost.arm,
        requests=requests,
        shadows=sum(one.requests for one in served if one.role == "shadow"),
        failed=sum(one.failed for one in served),
        unreadable=sum(one.unreadable for one in served),
        forecast=found.cost_per_query_usd,
        measured=Quantiles(max(0.0, mean.value - half), mean.value, mean.value + half) if parts else None,
        input_tokens=sum(one.input_tokens for one in served) / counted if counted else None,
        output_tokens=sum(one.output_tokens for one in served) / counted if counted else None,
        seconds=sum(one.seconds for one in served) / clocked if clocked else None,
        forecast_input_tokens=given,
        forecast_output_tokens=None if output is None or np.isnan(output) else output,
        forecast_seconds=float(scores.seconds.mean()) if len(scores.seconds) else None,
    )


def _at_volume(found: Reopened, volume: float) -> Task:
    traffic = found.task.traffic.model_copy(update={"queries_per_month": Range(volume, volume, volume)})
    return found.task.model_copy(update={"traffic": traffic})


def _day(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="minutes")


def save_savings_words(store: Store, task: str, found: RealizedSavings) -> None:
    """Keep what was saved so far in the store: the gateway's dashboard shows it."""
    store.set_state(f"savings/{task}", {"words": savings_words(found), "until": found.until})


# -- for the report --------------------------------------------------------------------------------


def write_savings(study: Path, found: RealizedSavings) -> Path:
    """Keep it as realised.json in the study, and write the report anew; its path."""
    write_json(study / REALISED, savings_document(found))
    return rebuild_report(study)


def savings_document(found: RealizedSavings) -> dict[str, Any]:
    """The content of realised.json."""
    content = asdict(found)
    content["arms"] = [{**asdict(one), "words": _arm_words(one)} for one in found.arms]
    content["saved"] = {name: float(money(value)) for name, value in asdict(found.saved).items()}
    content["words"] = savings_words(found)
    return content


def savings_words(found: RealizedSavings) -> list[str]:
    """What was realised, in sentences."""
    measured = "" if found.volume is None else f", {found.volume:,.0f} a month"
    lines = [
        f"{found.requests:,} questions were answered from {found.since} to {found.until}{measured}; "
        f"{found.forecast_volume:,.0f} a month were forecast."
    ]
    saved = found.saved
    lines.append(
        f"Serving {found.arm} in place of {found.against} has saved {_usd(saved.likely)} so far "
        f"({_usd(saved.low)} to {_usd(saved.high)}); building it cost {usd(abs(found.built))} "
        f"{'more' if found.built >= 0 else 'less'}."
    )
    lines.append(
        f"Break-even with measured prices and volume: {_volume_words(found.break_even)}; "
        f"forecast: {_volume_words(found.forecast_break_even)}."
    )
    lines.append(f"Decided again with what was measured: {found.verdict}, {found.winner}.")
    return [*lines, *(f"{note[:1].upper()}{note[1:]}." for note in found.notes)]


def _usd(value: float) -> str:
    """Dollars; parts of a cent are said as such, for they are not nothing."""
    return f"{'-' if value < 0 else ''}${abs(value):.2g}" if 0 < abs(value) < 0.01 else usd(value)


def _volume_words(crossing: BreakEven) -> str:
    band = crossing.queries_per_month
    if band is None:
        return f"{crossing.cheaper_to_run} never becomes cheaper than {crossing.cheaper_to_build}"
    return (
        f"{crossing.cheaper_to_run} is cheaper than {crossing.cheaper_to_build} from {band.likely:,.0f} "
        f"({band.low:,.0f} to {band.high:,.0f}) queries a month"
    )


def _arm_words(one: ArmSavings) -> str:
    """How far the price is off, in words."""
    if one.measured is None:
        return "too few with a price, or paid by the hour"
    if one.measured.low <= one.forecast.high and one.forecast.low <= one.measured.high:
        return "as forecast"
    if not one.forecast.likely:
        return "forecast as free"
    share = one.measured.likely / one.forecast.likely - 1
    return f"{abs(share):.0%} {'dearer' if share > 0 else 'cheaper'} than forecast"
