"""Fixed cost against running cost, with the uncertainty carried through.

Cost over the horizon = upfront + months x (fixed + volume x price of an answer) + retraining.
Every uncertain quantity is drawn `draws` times; arms share the draws of what they share
(traffic, rates, the hours a project takes), so their differences are not blurred.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tunepoint.cost.prices import ArmCost
from tunepoint.stats.ranges import Range
from tunepoint.task import Task

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class CostDraws:
    """Draws of every part of the cost; D draws of A arms, in US dollars."""

    arms: tuple[str, ...]
    volume: Floats
    """(D,) queries a month."""
    months: float
    upfront: Floats
    """(D, A)"""
    monthly: Floats
    """(D, A) fixed dollars a month."""
    per_query: Floats
    """(D, A)"""
    retraining_once: Floats
    """(D, A) dollars of training again, once."""
    repeats: int
    """How often tuned models are trained again within the horizon."""

    def horizon(self, volume: Floats | float | None = None) -> Floats:
        """(D, A) dollars over the horizon, at the drawn volume or at a given one."""
        queries = np.asarray(self.volume if volume is None else volume).reshape(-1, 1)
        return self.fixed + self.months * queries * self.per_query

    @property
    def fixed(self) -> Floats:
        """(D, A) dollars over the horizon that do not depend on the volume."""
        return self.upfront + self.months * self.monthly + self.repeats * self.retraining_once

    def per_month(self, volume: Floats | float | None = None) -> Floats:
        """(D, A) running dollars of one month, without what is paid once."""
        queries = np.asarray(self.volume if volume is None else volume).reshape(-1, 1)
        return self.monthly + queries * self.per_query


@dataclass(frozen=True)
class Quantiles:
    """5%, 50% and 95% of a distribution."""

    low: float
    likely: float
    high: float


def quantiles(values: Floats) -> Quantiles:
    """The 90% band of draws with its median."""
    low, likely, high = np.quantile(values, [0.05, 0.5, 0.95]).tolist()
    return Quantiles(low, likely, high)


def simulate(costs: Sequence[ArmCost], task: Task, draws: int, rng: np.random.Generator) -> CostDraws:
    """Draw every uncertain part of the arms' costs.

    Args:
        costs: A arms.
        task: its rates, traffic and horizon.
        draws: D, the number of draws.

    """
    rates = task.costs

    def shared(quantity: Range) -> Floats:
        return quantity.sample(draws, rng)

    label = shared(rates.label_minutes) / 60
    hourly, core = shared(rates.hourly_usd), shared(rates.core_hour_usd) / 3600
    volume = shared(task.traffic.queries_per_month)
    effort, again = rng.random(draws), rng.random(draws)
    months = task.traffic.horizon_months
    repeats = max(0, math.ceil(months / rates.retrain_months) - 1)
    upfront, monthly, per_query, retraining = [], [], [], []
    for cost in costs:
        labelling = 0.0 if rates.labels_owned else cost.labels * label * hourly
        training = cost.training_core_seconds * core
        upfront.append(labelling + training + cost.hours.quantile(effort) * hourly + shared(cost.upfront_usd))
        monthly.append(shared(cost.monthly_usd))
        price = shared(cost.usd_per_query) + rng.normal(0.0, cost.query_error_usd, draws)
        seconds = cost.core_seconds_per_query + rng.normal(0.0, cost.core_seconds_error, draws)
        per_query.append(np.clip(price, 0.0, None) + np.clip(seconds, 0.0, None) * core)
        retrained = cost.retrain_hours.quantile(again) * hourly
        retraining.append(retrained + training)
    parts = [np.stack(part, axis=1) for part in (upfront, monthly, per_query, retraining)]
    names = tuple(cost.arm for cost in costs)
    return CostDraws(names, volume, months, parts[0], parts[1], parts[2], parts[3], repeats)


@dataclass(frozen=True)
class BreakEven:
    """The monthly volume from which the arm that is dearer to build is cheaper in all."""

    cheaper_to_build: str
    cheaper_to_run: str
    queries_per_month: Quantiles | None
    """90% band over the draws in which there is a break-even; None if there is none."""
    payback_days: Quantiles | None
    """Days until the difference in building is earned back at the task's traffic."""
    probability_never: float


def break_even(draws: CostDraws, one: int, other: int, *, worth: Floats | None = None) -> BreakEven:
    """Break-even volume of two arms, given by position.

    Args:
        worth: (D, A) dollars that the errors of one answer cost; 0 where None.

    Volume = difference of fixed cost over the horizon / (months x saving of an answer); a draw
    without a saving never breaks even, one whose cheaper-to-run arm costs no more to build
    does so at 0.

    """
    running = draws.per_query if worth is None else draws.per_query + worth
    built, run = np.median(draws.fixed, axis=0), np.median(running, axis=0)
    if (built[one], -run[one]) > (
        built[other],
        -run[other],
    ):  # where building costs the same, running decides
        one, other = other, one
    extra = draws.fixed[:, other] - draws.fixed[:, one]
    saving = running[:, one] - running[:, other]
    reached = (saving > 0) | (extra <= 0)
    safe = np.where(saving > 0, saving, 1.0)
    volume = np.where(extra <= 0, 0.0, extra / (draws.months * safe))
    paid = draws.upfront[:, other] - draws.upfront[:, one]
    daily = (saving * draws.volume + draws.monthly[:, one] - draws.monthly[:, other]) * 12 / 365.25
    pays = (daily > 0) | (paid <= 0)
    days = np.where(paid <= 0, 0.0, paid / np.where(daily > 0, daily, 1.0))
    return BreakEven(
        draws.arms[one],
        draws.arms[other],
        quantiles(volume[reached]) if reached.any() else None,
        quantiles(days[pays]) if pays.any() else None,
        float(1 - reached.mean()),
    )
