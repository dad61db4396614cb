"""The volume from which the arm that is dearer to build is cheaper in all, and when it has paid back.

Cost over the horizon = upfront + months x (fixed + machines + volume x price of an answer) + retraining,
each month by its traffic and its discount (`schedule.py`); docs/economics.md has every formula.
Every uncertain quantity is drawn `draws` times; arms share the draws of what they share
(traffic, rates, the hours a project takes), so their differences are not blurred.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tunepoint.costs.cost_draws import CostDraws
from tunepoint.stats.arrays import Flags, Floats, Integers
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
    queries_until: Quantiles | None = None
    """The volume from which caches make it dearer again, where most draws have one."""


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
    staircase: the volume is the first root of the difference that a ladder of volumes brackets. With cached
    prompts the price of an answer falls with the volume, and the option that is dearer to build may be
    cheaper, then dearer and cheaper again: the volume is that from which it stays cheaper.

    Args:
        worth: (D, A) dollars that the errors of one answer cost; 0 where None.

    """
    draws, worth = draws.for_arms(first, second), None if worth is None else worth[:, [first, second]]
    running = draws.answer() if worth is None else draws.answer() + worth
    fixed = draws.at_no_traffic()
    build, run = _build_first(fixed, running)
    extra = fixed[:, run] - fixed[:, build]
    saving = running[:, build] - running[:, run]
    until = np.zeros(0)
    if draws.machines or draws.prefixes:
        if draws.prefixes:
            worth = None if worth is None else worth[:MAX_CURVE_DRAWS]
            draws = draws.for_draws(slice(0, MAX_CURVE_DRAWS))
        volume, reached, until = _crossing(draws, build, run, worth)
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
        queries_until=quantiles(until) if 2 * len(until) > reached.sum() else None,
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
"""Queries a month at which a difference is evaluated: eight per decade. An arm that is cheaper at none of
them counts as never cheaper."""
BISECTION_STEPS = 24
"""Leave a 16-millionth of a rung of the ladder, on a staircase."""
SECANT_STEPS = 6
"""Leave less than a thousandth of the volume, on a curve without steps."""
MAX_CURVE_DRAWS = 2_000
"""Draws whose crossing is solved where prompts are cached: half of a decision's, for half of the time."""


def _crossing(draws: CostDraws, build: int, run: int, worth: Floats | None) -> tuple[Floats, Flags, Floats]:
    """(D,) volumes from which the arm that is dearer to build is cheaper, and which draws have one.

    The third array has the volumes from which it is dearer again, of the draws in which it is.
    """

    def difference(volume: Floats | float) -> Floats:
        total = draws.horizon(volume)
        if worth is not None:
            total = total + draws.schedule.query_weight * np.reshape(volume, (-1, 1)) * worth
        return np.asarray(total[:, run] - total[:, build])

    # Machines are a staircase, whose first crossing counts; caches may make prompting cheaper again.
    rungs, table = _ladder(difference, whole=bool(draws.prefixes))
    cheaper = table < 0
    reached: Flags = np.any(cheaper, axis=0)
    at: Integers = np.argmax(cheaper, axis=0)
    ends = np.zeros(len(reached), dtype=bool)
    if draws.prefixes:
        after_last = len(table) - (~cheaper[::-1]).argmax(axis=0)
        after_last = np.where(cheaper.all(axis=0), 0, after_last)
        at = np.where(cheaper[-1], after_last, at)
        ends = reached & ~cheaper[-1]
    solve = _bisected if draws.machines else _by_secants
    root = solve(difference, *_around(rungs, table, at))
    last = len(table) - 1 - cheaper[::-1].argmax(axis=0)
    until = np.zeros(0)
    if ends.any():
        above = np.minimum(last + 1, len(table) - 1)
        until = solve(lambda volume: -difference(volume), *_around(rungs, -table, above))[ends]
    return np.where(at == 0, 0.0, root), reached, until


def _ladder(difference: Callable[[Floats | float], Floats], *, whole: bool) -> tuple[Floats, Floats]:
    """Return (R,) volumes and (R, D) differences at them: all, or until each draw has been negative."""
    values = [difference(0.0)]
    reached = values[0] < 0
    for volume in VOLUME_LADDER:
        if reached.all() and not whole:
            break
        values.append(difference(volume))
        reached |= values[-1] < 0
    return np.array([0.0, *VOLUME_LADDER[: len(values) - 1]]), np.stack(values)


def _around(rungs: Floats, table: Floats, at: Integers) -> tuple[Floats, Floats, Floats, Floats]:
    """(D,) volumes below and at a rung of each draw, and the differences there."""
    below, columns = np.maximum(at - 1, 0), np.arange(table.shape[1])
    return rungs[below], rungs[at], table[below, columns], table[at, columns]


def _bisected(
    difference: Callable[[Floats], Floats], low: Floats, high: Floats, at_low: Floats, at_high: Floats
) -> Floats:
    """(D,) first volume above a sign change that lies between `low` and `high`."""
    for _ in range(BISECTION_STEPS):
        middle = (low + high) / 2
        cheaper = difference(middle) < 0
        low, high = np.where(cheaper, low, middle), np.where(cheaper, middle, high)
    return high


def _by_secants(
    difference: Callable[[Floats], Floats], low: Floats, high: Floats, at_low: Floats, at_high: Floats
) -> Floats:
    """(D,) volumes of a sign change, by regula falsi in its Illinois form (Dowell and Jarratt 1971)."""
    root = high
    side = np.zeros(len(low))
    for _ in range(SECANT_STEPS):
        span = at_low - at_high
        step = np.clip(at_low / np.where(span > 0, span, 1.0), 0.0, 1.0)
        root = low + (high - low) * np.where(span > 0, step, 1.0)
        value = difference(root)
        below = value < 0
        # an end that stays twice in a row counts half, so that the other side moves too
        at_low = np.where(below, np.where(side > 0, at_low / 2, at_low), value)
        at_high = np.where(below, value, np.where(side < 0, at_high / 2, at_high))
        low, high = np.where(below, low, root), np.where(below, root, high)
        side = np.where(below, 1.0, -1.0)
    return root
