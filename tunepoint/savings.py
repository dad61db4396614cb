"""Forecast against what was measured since it serves: money by arm, volume, break-even."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunepoint.capture.store import Served, Store
from tunepoint.cost.break_even import BreakEven, Quantiles, quantiles
from tunepoint.cost.means import Mean
from tunepoint.cost.prices import ArmCost, money
from tunepoint.decisions import Decision
from tunepoint.errors import StoreError, StudyError, nearest
from tunepoint.measure.trials import write_json
from tunepoint.report import REALISED, rebuild_report, usd
from tunepoint.stats.ranges import Range
from tunepoint.whatif import Reopened, reopen

ANSWERING = ("champion", "fallback", "cascade", "canary", "slice")
"""Roles whose requests are the traffic; a shadow's are copies, and cost money without being asked for."""
SECONDS_A_MONTH = 365.25 * 86_400 / 12
SHORTEST = 86_400.0
"""Seconds of traffic from which a month is extrapolated."""
FEWEST = 30
"""Requests from which an arm's measured price rules over its forecast."""


@dataclass(frozen=True)
class ArmRealised:
    """One arm: dollars of an answer, as forecast and as they came."""

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


@dataclass(frozen=True)
class Realised:
    """What a study forecast, beside what the capture store holds."""

    since: str
    until: str
    requests: int
    """That were answered, copies for shadows not among them."""
    forecast_volume: float
    volume: float | None
    """Requests of a month at the rate of this time; None before there is a day of it."""
    arms: tuple[ArmRealised, ...]
    arm: str
    """That answered most."""
    against: str
    saved: Quantiles
    """Dollars so far: what `against` would have cost for the same requests, less what was spent on all arms;
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


def realised(study: Path, store: Store, *, against: str | None = None) -> Realised:
    """Compare a study's forecast with what was served since.

    Args:
        against: the arm that would serve otherwise; the verdict's rival if None.

    Raises:
        StudyError: the folder is no study that has decided, or has no such arm.
        StoreError: nothing of the task was captured.

    """
    found = reopen(study)
    names = list(found.table.names)
    served = [one for one in store.served(found.task.name) if one.role != "imported"]
    known = [one for one in served if one.arm in names]
    if not any(one.role in ANSWERING for one in known):
        others = ", ".join(sorted({one.arm for one in served})) or "none"
        raise StoreError(
            f"{store.shown}: no request of task {found.task.name!r} was answered by an arm of this study "
            f"({', '.join(names)}); captured arms: {others}. `tunepoint serve {study}` captures them"
        )
    if against is not None and against not in names:
        raise StudyError(f"{study}: no finalist named {against!r}; {nearest(against, names)}")
    return _compared(found, known, len(served) - len(known), against)


def _compared(found: Reopened, known: Sequence[Served], unknown: int, against: str | None) -> Realised:
    names, task = list(found.table.names), found.task
    before = found.decide(task, found.costs)
    answered = {
        name: sum(one.requests for one in known if one.arm == name and one.role in ANSWERING)
        for name in names
    }
    arm = max(names, key=lambda name: answered[name])
    rival = against or _rival(before, arm)
    first, last = min(one.first for one in known), max(one.last for one in known)
    total = sum(answered.values())
    volume = total * SECONDS_A_MONTH / (last - first) if last - first >= SHORTEST else None
    sums = {name: [one for one in known if one.arm == name] for name in names}
    costs = [_with_measured(cost, sums[cost.arm]) for cost in found.costs]
    now = task if volume is None else _at_volume(found, volume)
    after = found.decide(now, costs)
    months = (last - first) / SECONDS_A_MONTH
    place, other = names.index(arm), names.index(rival)
    upfront, core_second = before.evidence.costs.upfront, task.costs.core_hour_usd.likely / 3600
    notes = [f"{unknown} arms in the store are none of this study and were left out"] if unknown else []
    if volume is None:
        notes.append("less than a day was captured: the volume of the task stands")
    return Realised(
        since=_day(first),
        until=_day(last),
        requests=total,
        forecast_volume=task.traffic.queries_per_month.likely,
        volume=volume,
        arms=tuple(_arm(before, cost, sums[cost.arm], core_second) for cost in found.costs if sums[cost.arm]),
        arm=arm,
        against=rival,
        saved=quantiles(_saved(after, sums, other, total, months)),
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
    if decision.winner != arm:
        return decision.winner
    return next(one.arm for one in decision.finalists if one.arm != arm)


def _saved(
    after: Decision, sums: Mapping[str, Sequence[Served]], other: int, total: int, months: float
) -> NDArray[np.float64]:
    """(D,) dollars: the other arm on all requests and for so long, less each arm on its own."""
    costs = after.evidence.costs
    asked = np.array([sum(one.requests for one in sums[name]) for name in costs.arms], np.float64)
    spent = costs.per_query @ asked + months * _standing(after, [i for i, n in enumerate(asked) if n])
    return np.asarray(total * costs.per_query[:, other] + months * _standing(after, [other]) - spent)


def _standing(decision: Decision, arms: Sequence[int]) -> NDArray[np.float64]:
    """(D,) fixed dollars a month of some arms, reserved machines at the task's traffic among them."""
    costs = decision.evidence.costs
    volume = costs.volume
    monthly = costs.per_month(volume) - volume[:, None] * costs.per_query
    return np.asarray(monthly[:, list(arms)].sum(axis=1))


def _with_measured(cost: ArmCost, served: Sequence[Served]) -> ArmCost:
    """The cost of an arm at the price of the answers that were captured, where there are enough."""
    dollars, seconds = _dollars(served), _core_seconds(served)
    if cost.dedicated is not None:
        return cost
    if dollars is not None:
        at = Range.parse(dollars.value)
        cost = replace(cost, usd_per_query=at, query_error_usd=dollars.error, query_skew=0.0)
        seconds = seconds or Mean()
    if seconds is not None:
        value, error = seconds.value, seconds.error
        return replace(cost, core_seconds_per_query=value, core_seconds_error=error, core_seconds_skew=0.0)
    return cost


def _dollars(served: Sequence[Served]) -> Mean | None:
    count = sum(one.priced for one in served)
    total = sum(one.cost_nanousd for one in served)
    return _mean(count, float(total) / 1e9, sum(one.cost_squares for one in served) / 1e18)


def _core_seconds(served: Sequence[Served]) -> Mean | None:
    sums = (sum(part) for part in zip(*((one.core_seconds, one.core_squares) for one in served), strict=True))
    return _mean(sum(one.timed for one in served), *(float(part) for part in sums)) if served else None


def _mean(count: int, total: float, squares: float) -> Mean | None:
    """Mean and standard error from sums; None of too few."""
    if count < FEWEST:
        return None
    middle = total / count
    variance = max(0.0, squares / count - middle**2) * count / (count - 1)
    return Mean(middle, math.sqrt(variance / count))


def _arm(before: Decision, cost: ArmCost, served: Sequence[Served], core_second: float) -> ArmRealised:
    found = before.finalist(cost.arm)
    dollars, seconds = _dollars(served), _core_seconds(served)
    mean = dollars if dollars is not None else None if seconds is None else seconds * core_second
    requests = sum(one.requests for one in served)

    def tokens(count: int) -> float | None:
        return count / requests if count else None

    return ArmRealised(
        arm=cost.arm,
        requests=requests,
        shadows=sum(one.requests for one in served if one.role == "shadow"),
        failed=sum(one.failed for one in served),
        unreadable=sum(one.unreadable for one in served),
        forecast=found.cost_per_query_usd,
        measured=None
        if mean is None
        else Quantiles(max(0.0, mean.value - 1.96 * mean.error), mean.value, mean.value + 1.96 * mean.error),
        input_tokens=tokens(sum(one.input_tokens for one in served)),
        output_tokens=tokens(sum(one.output_tokens for one in served)),
    )


def _at_volume(found: Reopened, volume: float) -> Any:
    traffic = found.task.traffic.model_copy(update={"queries_per_month": Range(volume, volume, volume)})
    return found.task.model_copy(update={"traffic": traffic})


def _day(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="minutes")


# -- for the report --------------------------------------------------------------------------------


def write_realised(study: Path, found: Realised) -> Path:
    """Keep it as realised.json in the study, and write the report anew; its path."""
    write_json(study / REALISED, realised_document(found))
    return rebuild_report(study)


def realised_document(found: Realised) -> dict[str, Any]:
    """The content of realised.json."""
    content = asdict(found)
    content["arms"] = [{**asdict(one), "words": _arm_words(one)} for one in found.arms]
    content["saved"] = {name: float(money(value)) for name, value in asdict(found.saved).items()}
    content["words"] = realised_words(found)
    return content


def realised_words(found: Realised) -> list[str]:
    """What was realised, in sentences."""
    measured = "" if found.volume is None else f", {found.volume:,.0f} a month"
    lines = [
        f"{found.requests:,} requests were answered from {found.since} to {found.until}{measured}; "
        f"{found.forecast_volume:,.0f} a month were forecast."
    ]
    saved = found.saved
    lines.append(
        f"Serving {found.arm} in place of {found.against} has saved {usd(saved.likely)} so far "
        f"({usd(saved.low)} to {usd(saved.high)}); building it cost {usd(abs(found.built))} "
        f"{'more' if found.built >= 0 else 'less'}."
    )
    lines.append(
        f"Break-even with measured prices and volume: {_volume_words(found.break_even)}; "
        f"forecast: {_volume_words(found.forecast_break_even)}."
    )
    lines.append(f"Decided again with what was measured: {found.verdict}, {found.winner}.")
    return [*lines, *(f"{note[:1].upper()}{note[1:]}." for note in found.notes)]


def _volume_words(crossing: BreakEven) -> str:
    band = crossing.queries_per_month
    if band is None:
        return f"{crossing.cheaper_to_run} never becomes cheaper than {crossing.cheaper_to_build}"
    return (
        f"{crossing.cheaper_to_run} is cheaper than {crossing.cheaper_to_build} from {band.likely:,.0f} "
        f"({band.low:,.0f} to {band.high:,.0f}) queries a month"
    )


def _arm_words(one: ArmRealised) -> str:
    """How far the price is off, in words."""
    if one.measured is None:
        return "too few with a price"
    if one.measured.low <= one.forecast.high and one.forecast.low <= one.measured.high:
        return "as forecast"
    share = one.measured.likely / one.forecast.likely - 1 if one.forecast.likely else math.inf
    return f"{abs(share):.0%} {'dearer' if share > 0 else 'cheaper'} than forecast"
