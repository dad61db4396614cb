"""Fixed cost against running cost, with the uncertainty carried through.

Cost over the horizon = upfront + months x (fixed + machines + volume x price of an answer) + retraining,
each month by its traffic and its discount (`schedule.py`); docs/economics.md has every formula.
Every uncertain quantity is drawn `draws` times; arms share the draws of what they share
(traffic, rates, the hours a project takes), so their differences are not blurred.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tunepoint.costs.simulation import CostDraws
from tunepoint.stats.arrays import Floats
from tunepoint.stats.ranges import Quantiles, quantiles


@dataclass(frozen=True)
class BreakEven:
    """The monthly volume from which the arm that is dearer to build is cheaper in all."""

    cheaper_to_build: str
    cheaper_to_run: str
    queries_per_month: Quantiles | None
    """90% band over the draws in which there is a break-even; None if there is none."""
    probability_never: float
    dearer_to_build: str
    """By what is paid upfront; the other one by what it costs over the horizon if nobody asks."""
    payback_days: Quantiles | None
    """Days until the difference in building is earned back at the task's traffic, where it is."""
    lifetime_days: float | None
    """Days until the base model of the arm that costs more to build retires; None where nothing is known."""
    probability_no_payback: float
    """That building is never earned back at this traffic, or only after that model has retired."""


def break_even(draws: CostDraws, one: int, other: int, *, worth: Floats | None = None) -> BreakEven:
    """Break-even volume of two arms, given by position.

    Args:
        worth: (D, A) dollars that the errors of one answer cost; 0 where None.

    Volume = difference of fixed cost over the horizon / (months x saving of an answer), months as the
    schedule weighs them; a draw without a saving never breaks even, nor do equal arms; one whose
    cheaper-to-run arm costs less to build does so at 0. With reserved machines the cost is a staircase,
    and the volume is the first root of the difference that a ladder of volumes brackets, by bisection.

    """
    draws, worth = draws.of(one, other), None if worth is None else worth[:, [one, other]]
    one, other = 0, 1
    running = draws.per_query if worth is None else draws.per_query + worth
    standing = draws.fixed + draws._reserved(np.zeros((1, 1)), draws.schedule.present, draws.schedule.traffic)
    built, run = np.median(standing, axis=0), np.median(running, axis=0)
    if (built[one], -run[one]) > (
        built[other],
        -run[other],
    ):  # where building costs the same, running decides
        one, other = other, one
    extra = standing[:, other] - standing[:, one]
    saving = running[:, one] - running[:, other]
    if draws.machines.keys() & {one, other}:
        volume, reached = _crossing(draws, one, other, worth)
    else:
        reached = (saving > 0) | ((extra < 0) & (saving >= 0))
        safe = np.where(saving > 0, saving, 1.0)
        volume = np.where(extra <= 0, 0.0, extra / (draws.schedule.queries * safe))
    return BreakEven(
        draws.arms[one],
        draws.arms[other],
        quantiles(volume[reached]) if reached.any() else None,
        float(1 - reached.mean()),
        *_payback(draws, one, other, worth),
    )


def _payback(
    draws: CostDraws, one: int, other: int, worth: Floats | None
) -> tuple[str, Quantiles | None, float | None, float]:
    """The arm that costs more to build, the days until that is earned back, its life, and P(never).

    Of two that cost the same to build it is the other.
    """
    if float(np.median(draws.upfront[:, one] - draws.upfront[:, other])) > 0:
        one, other = other, one
    paid = draws.upfront[:, other] - draws.upfront[:, one]
    monthly = draws.per_month(draws.volume)
    if worth is not None:
        monthly = monthly + draws.volume[:, None] * worth
    daily = (monthly[:, one] - monthly[:, other]) * 12 / 365.25
    pays = (daily > 0) | ((paid <= 0) & (daily >= 0))  # what loses money every month pays nothing back
    days = np.where(paid <= 0, 0.0, paid / np.where(daily > 0, daily, 1.0))
    lifetime = draws.lifetimes[other] if draws.lifetimes else None
    lifetime = None if lifetime is None else lifetime * 365.25 / 12
    if lifetime is not None:  # what must be built anew by then has paid nothing back
        pays &= days <= lifetime
    found = quantiles(days[pays]) if pays.any() else None
    return draws.arms[other], found, lifetime, float(1 - pays.mean())


LADDER = tuple(float(volume) for volume in np.geomspace(1e1, 1e10, 73))
"""Queries a month at which a staircase is looked at; an arm that is cheaper at none of them never is."""


def _crossing(
    draws: CostDraws, one: int, other: int, worth: Floats | None
) -> tuple[Floats, NDArray[np.bool_]]:
    """(D,) volumes from which the arm that is dearer to build is cheaper, and in which draws there is one."""

    def behind(volume: Floats | float) -> Floats:
        total = draws.horizon(volume)
        if worth is not None:
            total = total + draws.schedule.queries * np.reshape(volume, (-1, 1)) * worth
        return np.asarray(total[:, other] - total[:, one])

    count = len(draws.volume)
    low, high = np.zeros(count), np.zeros(count)
    at_once = behind(low) < 0
    reached = at_once.copy()
    for volume in LADDER:  # the first step at which it is cheaper, and the one before
        cheaper = behind(volume) < 0
        low = np.where(reached | cheaper, low, volume)
        high = np.where(cheaper & ~reached, volume, high)
        reached |= cheaper
        if reached.all():
            break
    for _ in range(24):
        middle = (low + high) / 2
        cheaper = behind(middle) < 0
        low, high = np.where(cheaper, low, middle), np.where(cheaper, middle, high)
    return np.where(at_once, 0.0, high), reached
