"""What the difference in cost of two arms depends on most: each quantity from its low to its high, alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from tunepoint.costs.arm_cost import ArmCost
from tunepoint.costs.simulation import simulate
from tunepoint.stats.ranges import Range
from tunepoint.task.task import Task

SMALL = 0.01
"""Share of the widest swing under which one is left out."""
ERRORS = 1.645
"""Standard errors of a measured price on either side: 90%."""


@dataclass(frozen=True)
class Swing:
    """The difference in cost over the horizon at both ends of one quantity, all others likely."""

    what: str
    """A key of the task, or an arm's own price."""
    low: float
    """Dollars by which the first arm is dearer than the second (negative: cheaper)."""
    high: float

    @property
    def width(self) -> float:
        """How much the quantity moves the difference."""
        return abs(self.high - self.low)


def tornado(costs: Sequence[ArmCost], task: Task, one: int, other: int) -> tuple[Swing, ...]:
    """Swings of the difference of two arms, given by position; the widest first, without the small."""
    likely = [_pinned(cost) for cost in costs]
    known = _likely(task)

    def difference(arms: Sequence[ArmCost], at: Task) -> float:
        total = simulate([arms[one], arms[other]], at, 1, np.random.default_rng(0)).horizon()[0]
        return float(total[0] - total[1])

    found = [
        Swing(f"{section}.{key}", *(difference(likely, _with(known, section, key, end)) for end in ends))
        for section, key, ends in _ranges(task)
    ]
    for place in (one, other):
        for what, ends in _own(costs[place]):
            at = [difference([*likely[:place], changed, *likely[place + 1 :]], known) for changed in ends]
            found.append(Swing(f"{costs[place].arm}: {what}", *at))
    least = SMALL * max((swing.width for swing in found), default=0.0)
    swings = [swing for swing in found if swing.width > least]
    return tuple(sorted(swings, key=lambda swing: -swing.width))


def _flat(quantity: Range, value: float | None = None) -> Range:
    at = quantity.likely if value is None else value
    return Range(at, at, at)


def _pinned(cost: ArmCost) -> ArmCost:
    """An arm whose every quantity is the likely one."""
    ranges: dict[str, Any] = {
        f.name: _flat(value) for f in fields(cost) if isinstance(value := getattr(cost, f.name), Range)
    }
    hosting = cost.dedicated
    if hosting is not None:
        hosting = hosting.model_copy(update={"usd_per_hour": _flat(hosting.usd_per_hour)})
    return replace(cost, **ranges, query_error_usd=0.0, core_seconds_error=0.0, dedicated=hosting)


def _likely(task: Task) -> Task:
    for section, key, _ in _ranges(task):
        task = _with(task, section, key, getattr(getattr(task, section), key).likely)
    return task


def _ranges(task: Task) -> Iterator[tuple[str, str, tuple[float, float]]]:
    """Keys of the task whose quantity is uncertain, with both ends."""
    for section in ("traffic", "costs"):
        content = getattr(task, section)
        for key in type(content).model_fields:
            value = getattr(content, key)
            if isinstance(value, Range) and value.high > value.low:
                yield section, key, (value.low, value.high)


def _with(task: Task, section: str, key: str, value: float) -> Task:
    content = getattr(task, section)
    changed = content.model_copy(update={key: _flat(getattr(content, key), value)})
    return task.model_copy(update={section: changed})


def _own(cost: ArmCost) -> Iterator[tuple[str, tuple[ArmCost, ArmCost]]]:
    """What only this arm's cost depends on: the words, and the arm at both ends."""
    base = _pinned(cost)
    words: Mapping[str, str] = {
        "upfront_usd": "upfront dollars",
        "hours": "hours until it serves",
        "monthly_usd": "fixed dollars a month",
        "usd_per_query": "price of an answer",
        "retrain_hours": "hours of each retraining",
    }
    for name, said in words.items():
        value: Range = getattr(cost, name)
        error = ERRORS * cost.query_error_usd if name == "usd_per_query" else 0.0
        ends = max(0.0, value.low - error), value.high + error
        if ends[1] > ends[0]:
            at: list[dict[str, Any]] = [{name: Range(end, end, end)} for end in ends]
            yield said, (replace(base, **at[0]), replace(base, **at[1]))
    if cost.core_seconds_error:
        middle, error = cost.core_seconds_per_query, ERRORS * cost.core_seconds_error
        low, high = (
            replace(base, core_seconds_per_query=max(0.0, middle + sign * error)) for sign in (-1, 1)
        )
        yield "seconds of an answer", (low, high)
    hosting = cost.dedicated
    if hosting is not None and hosting.usd_per_hour.high > hosting.usd_per_hour.low:
        hourly = hosting.usd_per_hour
        low, high = (
            replace(base, dedicated=hosting.model_copy(update={"usd_per_hour": _flat(hourly, end)}))
            for end in (hourly.low, hourly.high)
        )
        yield "dollars of a machine hour", (low, high)
