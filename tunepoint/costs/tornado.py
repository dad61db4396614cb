"""What the difference in cost of two arms depends on most: each quantity from its low to its high, alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from tunepoint.costs.arm_cost import ArmCost
from tunepoint.costs.caching import CachedPrefix
from tunepoint.costs.simulation import simulate
from tunepoint.stats.ranges import Range
from tunepoint.task.task import Task

MIN_SWING_SHARE = 0.01
"""Share of the widest swing under which a quantity is left out."""
Z_90 = 1.645
"""Standard errors on either side of a mean that hold 90% of a normal distribution."""
RANGE_WORDS = {
    "upfront_usd": "upfront dollars",
    "hours": "hours until it serves",
    "monthly_usd": "fixed dollars a month",
    "usd_per_query": "price of an answer",
    "retrain_hours": "hours of each retraining",
}
"""Uncertain quantities of one arm: the field of `ArmCost` -> what people read."""

CACHE_WORDS = {
    "minutes": "minutes that its prompt stays cached",
    "reached": "share of calls that reach its cached prompt",
}
"""Uncertain quantities of a cached prefix: the field of `CachedPrefix` -> what people read."""


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


def tornado(costs: Sequence[ArmCost], task: Task, first: int, second: int) -> tuple[Swing, ...]:
    """Return the swings of the difference of two arms, given by position; the widest first."""
    arms = [_without_uncertainty(costs[first]), _without_uncertainty(costs[second])]
    likely_task = _likely(task)

    def difference(pair: Sequence[ArmCost], assumptions: Task) -> float:
        # Nothing is uncertain here, so one draw shows the cost and the seed does not matter.
        total = simulate(pair, assumptions, 1, np.random.default_rng(0)).horizon()[0]
        return float(total[0] - total[1])

    swings = [
        Swing(f"{section}.{key}", *(difference(arms, _with(likely_task, section, key, end)) for end in ends))
        for section, key, ends in _uncertain_assumptions(task)
    ]
    for place, position in enumerate((first, second)):
        for what, ends in _uncertain_costs(costs[position]):
            low, high = (difference([*arms[:place], end, *arms[place + 1 :]], likely_task) for end in ends)
            swings.append(Swing(f"{costs[position].title}: {what}", low, high))
    smallest = MIN_SWING_SHARE * max((swing.width for swing in swings), default=0.0)
    return tuple(sorted((s for s in swings if s.width > smallest), key=lambda swing: -swing.width))


def _certain(value: float) -> Range:
    return Range(value, value, value)


def _without_uncertainty(cost: ArmCost) -> ArmCost:
    """The arm with every quantity at its likely value."""
    ranges: dict[str, Any] = {
        field.name: _certain(value.likely)
        for field in fields(cost)
        if isinstance(value := getattr(cost, field.name), Range)
    }
    hosting = cost.dedicated
    if hosting is not None:
        hosting = hosting.model_copy(update={"usd_per_hour": _certain(hosting.usd_per_hour.likely)})
    return replace(
        cost,
        **ranges,
        query_error_usd=0.0,
        core_seconds_error=0.0,
        dedicated=hosting,
        prefixes=tuple(_with_certain_cache(prefix) for prefix in cost.prefixes),
    )


def _with_certain_cache(prefix: CachedPrefix, **ends: float) -> CachedPrefix:
    """The prefix with its cache at likely values, or at those that are given."""
    likely = {"minutes": prefix.minutes.likely, "reached": prefix.reached.likely} | ends
    return prefix.model_copy(update={key: _certain(value) for key, value in likely.items()})


def _likely(task: Task) -> Task:
    """The task with every uncertain assumption at its likely value."""
    for section, key, _ in _uncertain_assumptions(task):
        task = _with(task, section, key, getattr(getattr(task, section), key).likely)
    return task


def _uncertain_assumptions(task: Task) -> Iterator[tuple[str, str, tuple[float, float]]]:
    """Section and key of each uncertain assumption of the task, with both ends."""
    for section in ("traffic", "costs"):
        content = getattr(task, section)
        for key in type(content).model_fields:
            value = getattr(content, key)
            if isinstance(value, Range) and value.high > value.low:
                yield section, key, (value.low, value.high)


def _with(task: Task, section: str, key: str, value: float) -> Task:
    changed = getattr(task, section).model_copy(update={key: _certain(value)})
    return task.model_copy(update={section: changed})


def _uncertain_costs(cost: ArmCost) -> Iterator[tuple[str, tuple[ArmCost, ArmCost]]]:
    """Each uncertain quantity of this arm alone: what people read, and the arm at both ends."""
    likely = _without_uncertainty(cost)
    for name, words in RANGE_WORDS.items():
        value: Range = getattr(cost, name)
        error = Z_90 * cost.query_error_usd if name == "usd_per_query" else 0.0
        low, high = max(0.0, value.low - error), value.high + error
        if high > low:
            ends: list[dict[str, Any]] = [{name: _certain(end)} for end in (low, high)]
            yield words, (replace(likely, **ends[0]), replace(likely, **ends[1]))
    if cost.core_seconds_error:
        mean, error = cost.core_seconds_per_query, Z_90 * cost.core_seconds_error
        at_low = replace(likely, core_seconds_per_query=max(0.0, mean - error))
        yield "seconds of an answer", (at_low, replace(likely, core_seconds_per_query=max(0.0, mean + error)))
    yield from _uncertain_caches(cost, likely)
    hosting = cost.dedicated
    if hosting is not None and hosting.usd_per_hour.high > hosting.usd_per_hour.low:
        at_low, at_high = (
            replace(likely, dedicated=hosting.model_copy(update={"usd_per_hour": _certain(end)}))
            for end in (hosting.usd_per_hour.low, hosting.usd_per_hour.high)
        )
        yield "dollars of a machine hour", (at_low, at_high)


def _uncertain_caches(cost: ArmCost, likely: ArmCost) -> Iterator[tuple[str, tuple[ArmCost, ArmCost]]]:
    """Each uncertain quantity of the caches of this arm: what people read, and the arm at both ends."""
    for name, words in CACHE_WORDS.items():
        ranges: list[Range] = [getattr(prefix, name) for prefix in cost.prefixes]
        if any(value.high > value.low for value in ranges):
            at_low, at_high = (
                tuple(
                    _with_certain_cache(prefix, **{name: getattr(value, end)})
                    for prefix, value in zip(cost.prefixes, ranges, strict=True)
                )
                for end in ("low", "high")
            )
            yield words, (replace(likely, prefixes=at_low), replace(likely, prefixes=at_high))
