"""The volume from which the arm that is dearer to build is cheaper in all, and when it has paid back.

Cost over the horizon = upfront + months x (fixed + machines + volume x price of an answer) + retraining,
each month by its traffic and its discount (`schedule.py`); docs/economics.md has every formula.
Every uncertain quantity is drawn `draws` times; arms share the draws of what they share
(traffic, rates, the hours a project takes), so their differences are not blurred.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tunepoint.costs.cost_draws import CostDraws
from tunepoint.stats.arrays import Flags, Floats
from tunepoint.stats.ranges import Quantiles, quantiles


@dataclass(frozen=True)
class BreakEven:
    """The monthly volume from which the arm that is dearer to build is cheaper in all."""

    cheaper_to_build: str
    """By the cost over the horizon at no traffic."""
    cheaper_to_run: str
    queries_per_month: Quantiles | None
    """90% interval over the draws that have a break-even; None where none has."""
    probability_never: float
    """Share of the draws without a break-even."""
    dearer_to_build: str
    """By the upfront cost alone, so it can be `cheaper_to_build`, which counts fixed costs too."""
    payback_days: Quantiles | None
    """Days until the running cost has earned the difference in upfront cost back, at the task's traffic."""
    lifetime_days: float | None
    """Days until the base model of `dearer_to_build` retires; None where nothing is known."""
    probability_no_payback: float
    """That the difference is never earned back at this traffic, or only after that model has retired."""


@dataclass(frozen=True)
class _Payback:
    dearer_to_build: str
    days: Quantiles | None
    lifetime_days: float | None
    probability_never: float


def break_even(draws: CostDraws, first: int, second: int, *, worth: Floats | None = None) -> BreakEven:
    """Return the break-even volume of two arms, given by position.

    Volume = difference of fixed cost over the horizon / (months x saving per answer), with the months
    weighted by the schedule. A draw without a saving never breaks even, nor do equal arms; a draw whose
    cheaper-to-run arm also costs less to build breaks even at 0. With reserved machines cost is a
    staircase, and the volume is the first root of the difference that a ladder of volumes brackets.

    Args:
        worth: (D, A) dollars that the errors of one answer cost; 0 where None.

    """
    draws, worth = draws.for_arms(first, second), None if worth is None else worth[:, [first, second]]
    running = draws.per_query if worth is None else draws.per_query + worth
    fixed = draws.at_no_traffic()
    build, run = _build_first(fixed, running)
    extra = fixed[:, run] - fixed[:, build]
    saving = running[:, build] - running[:, run]
    if draws.machines:
        volume, reached = _staircase_crossing(draws, build, run, worth)
    else:
        reached = (saving > 0) | ((extra < 0) & (saving >= 0))
        safe_saving = np.where(saving > 0, saving, 1.0)  # avoids a division by 0 where it is not used
        volume = np.where(extra <= 0, 0.0, extra / (draws.schedule.query_weight * safe_saving))
    payback = _payback(draws, build, run, worth)
    return BreakEven(
        cheaper_to_build=draws.arms[build],
        cheaper_to_run=draws.arms[run],
        queries_per_month=quantiles(volume[reached]) if reached.any() else None,
        probability_never=float(1 - reached.mean()),
        dearer_to_build=payback.dearer_to_build,
        payback_days=payback.days,
        lifetime_days=payback.lifetime_days,
        probability_no_payback=payback.probability_never,
    )


def _build_first(fixed: Floats, running: Floats) -> tuple[int, int]:
    """Positions of the arm that is cheaper to build and of the other; running cost decides a tie."""
    built, run = np.median(fixed, axis=0), np.median(running, axis=0)
    return (1, 0) if (built[0], -run[0]) > (built[1], -run[1]) else (0, 1)


def _payback(draws: CostDraws, build: int, run: int, worth: Floats | None) -> _Payback:
    """When the arm with the higher upfront cost has earned the difference back.

    If both cost the same upfront, that arm is the second one.
    """
    cheaper, dearer = build, run
    if float(np.median(draws.upfront[:, build] - draws.upfront[:, run])) > 0:
        cheaper, dearer = run, build
    extra = draws.upfront[:, dearer] - draws.upfront[:, cheaper]
    monthly = draws.per_month(draws.volume)
    if worth is not None:
        monthly = monthly + draws.volume[:, None] * worth
    # In this order of operations: recorded studies hold these numbers to the last digit.
    saving_per_day = (monthly[:, cheaper] - monthly[:, dearer]) * 12 / 365.25
    # An arm that loses money every month pays nothing back, even where it costs less to build.
    pays = (saving_per_day > 0) | ((extra <= 0) & (saving_per_day >= 0))
    days = np.where(extra <= 0, 0.0, extra / np.where(saving_per_day > 0, saving_per_day, 1.0))
    lifetime_days = draws.lifetime_days(dearer)
    if lifetime_days is not None:  # a model that retires first has to be built anew, which pays nothing back
        pays &= days <= lifetime_days
    return _Payback(
        draws.arms[dearer],
        quantiles(days[pays]) if pays.any() else None,
        lifetime_days,
        float(1 - pays.mean()),
    )


VOLUME_LADDER = tuple(float(volume) for volume in np.geomspace(1e1, 1e10, 73))
"""Queries a month at which a staircase is evaluated: eight per decade. An arm that is cheaper at none of
them counts as never cheaper."""
BISECTION_STEPS = 24
"""Leave a 16-millionth of a rung of the ladder."""


def _staircase_crossing(draws: CostDraws, build: int, run: int, worth: Floats | None) -> tuple[Floats, Flags]:
    """(D,) volumes from which the arm that is dearer to build is cheaper, and which draws have one."""

    def is_cheaper(volume: Floats | float) -> Flags:
        total = draws.horizon(volume)
        if worth is not None:
            total = total + draws.schedule.query_weight * np.reshape(volume, (-1, 1)) * worth
        return np.asarray(total[:, run] - total[:, build] < 0)

    count = len(draws.volume)
    low, high = np.zeros(count), np.zeros(count)
    at_once = is_cheaper(low)
    reached = at_once.copy()
    for volume in VOLUME_LADDER:  # brackets each draw between the first cheaper rung and the one before
        cheaper = is_cheaper(volume)
        low = np.where(reached | cheaper, low, volume)
        high = np.where(cheaper & ~reached, volume, high)
        reached |= cheaper
        if reached.all():
            break
    for _ in range(BISECTION_STEPS):
        middle = (low + high) / 2
        cheaper = is_cheaper(middle)
        low, high = np.where(cheaper, low, middle), np.where(cheaper, middle, high)
    return np.where(at_once, 0.0, high), reached
