"""Fixed cost against running cost, with the uncertainty carried through.

Cost over the horizon = upfront + months x (fixed + machines + volume x price of an answer) + retraining,
each month by its traffic and its discount (`schedule.py`); docs/economics.md has every formula.
Every uncertain quantity is drawn `draws` times; arms share the draws of what they share
(traffic, rates, the hours a project takes), so their differences are not blurred.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tunepoint.cost.means import deviations
from tunepoint.cost.prices import ArmCost
from tunepoint.cost.schedule import Schedule
from tunepoint.hosting import Dedicated
from tunepoint.task import Task

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class CostDraws:
    """Draws of every part of the cost; D draws of A arms, in US dollars."""

    arms: tuple[str, ...]
    volume: Floats
    """(D,) queries of the first month."""
    schedule: Schedule
    upfront: Floats
    """(D, A)"""
    monthly: Floats
    """(D, A) fixed dollars a month."""
    per_query: Floats
    """(D, A)"""
    retraining_once: Floats
    """(D, A) dollars of training again, once."""
    following_once: Floats
    """(D, A) dollars of moving to the base model that follows a retired one, once."""
    repeats: float
    """How often tuned models are trained again within the horizon, later times worth less."""
    retired: Floats
    """(A,) how often a provider retires the arm's base model within it, weighed alike."""
    retires_months: tuple[float | None, ...] = ()
    """Months until the announced retirement of each arm's base model."""
    lifetimes: tuple[float | None, ...] = ()
    """Months until each arm's base model retires, announced or as a rule; None where nothing is known."""
    machines: Mapping[int, tuple[Dedicated, Floats]] = field(default_factory=dict)
    """Position of an arm that is served on reserved machines -> they, and (D,) dollars of an hour."""

    @property
    def months(self) -> float:
        """Length of the horizon."""
        return self.schedule.months

    def horizon(self, volume: Floats | float | None = None) -> Floats:
        """(D, A) dollars over the horizon, at the drawn volume or at a given one."""
        queries = np.asarray(self.volume if volume is None else volume, np.float64).reshape(-1, 1)
        running = self.schedule.queries * queries * self.per_query
        return self.fixed + running + self._reserved(queries, self.schedule.present, self.schedule.traffic)

    @cached_property
    def fixed(self) -> Floats:
        """(D, A) dollars over the horizon that do not depend on the volume; machines are not among them."""
        again = self.repeats * self.retraining_once + self.retired * self.following_once
        return self.upfront + self.schedule.fixed * self.monthly + again

    def per_month(self, volume: Floats | float | None = None) -> Floats:
        """(D, A) running dollars of the first month, without what is paid once."""
        queries = np.asarray(self.volume if volume is None else volume, np.float64).reshape(-1, 1)
        one = np.ones(1)
        return self.monthly + queries * self.per_query + self._reserved(queries, one, one)

    def _reserved(self, queries: Floats, present: Floats, traffic: Floats) -> Floats:
        """(D, A) dollars of reserved machines over months of these weights, (1,) where there are none.

        Args:
            queries: of a month, (D, 1) or (1, 1).

        """
        if not self.machines:
            return np.zeros(1)
        found = np.zeros(self.upfront.shape)
        for arm, (hosting, hourly) in self.machines.items():
            months = hosting.machines(queries * traffic) @ present  # (D,) or (1,)
            found[:, arm] = months * hourly * hosting.hours_a_month
        return found

    def of(self, *arms: int) -> CostDraws:
        """The same for some arms, given by position."""
        names = ("upfront", "monthly", "per_query", "retraining_once", "following_once")
        some = {name: getattr(self, name)[:, arms] for name in names}
        machines = {new: self.machines[old] for new, old in enumerate(arms) if old in self.machines}
        named = tuple(self.arms[arm] for arm in arms)
        lives = tuple(self.lifetimes[arm] for arm in arms) if self.lifetimes else ()
        retired = self.retired[list(arms)]
        return replace(
            self, **some, machines=machines, arms=named, retired=retired, retires_months=(), lifetimes=lives
        )

    def only(self, draws: slice) -> CostDraws:
        """The same on some of the draws."""
        names = ("volume", "upfront", "monthly", "per_query", "retraining_once", "following_once")
        some = {name: getattr(self, name)[draws] for name in names}
        machines = {arm: (hosting, hourly[draws]) for arm, (hosting, hourly) in self.machines.items()}
        return replace(self, **some, machines=machines)


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


@dataclass(frozen=True)
class _Shared:
    """Draws of what all arms share, (D,) each; dollars but where it says otherwise."""

    label: Floats
    hourly: Floats
    core_second: Floats
    volume: Floats
    """Queries of the first month."""
    effort: Floats
    """Where in their ranges the hours of building lie, 0..1."""
    again: Floats
    """Where those of every later month and training lie, 0..1."""
    labelled_hours: Floats
    """Hours on top for an arm that needs labels."""
    served_hours: Floats
    """Hours on top for an arm that does not serve yet."""
    review: Floats
    """Dollars a month."""
    moving: Floats
    """Dollars of moving a prompt to another base model."""

    @classmethod
    def drawn(cls, task: Task, draws: int, rng: np.random.Generator) -> _Shared:
        """All of them."""
        rates = task.costs
        minutes = rates.label_minutes.sample(draws, rng) / 60
        hourly = rates.hourly_usd.sample(draws, rng)
        core = rates.core_hour_usd.sample(draws, rng) / 3600
        volume = task.traffic.queries_per_month.sample(draws, rng)
        effort, again = rng.random(draws), rng.random(draws)
        return cls(
            minutes * hourly if rates.label_usd is None else rates.label_usd.sample(draws, rng),
            hourly,
            core,
            volume,
            effort,
            again,
            rates.cleaning_hours.quantile(effort),
            rates.evaluation_hours.quantile(effort),
            rates.review_hours_per_month.quantile(again) * hourly,
            rates.reprompt_hours.quantile(again) * hourly,
        )


def simulate(costs: Sequence[ArmCost], task: Task, draws: int, rng: np.random.Generator) -> CostDraws:
    """Draw every uncertain part of the arms' costs.

    Args:
        costs: A arms.
        task: its rates, traffic and horizon.
        draws: D, the number of draws.

    """
    rates, schedule = task.costs, schedule_of(task)
    shared = _Shared.drawn(task, draws, rng)
    of_arms = [_drawn(cost, shared, 0.0 if rates.labels_owned else 1.0, rng) for cost in costs]
    upfront, monthly, per_query, retraining, following = (
        np.stack(p, axis=1) for p in zip(*of_arms, strict=True)
    )
    lifetime = rates.base_model_months
    retired = [schedule.events(lifetime, cost.retires_months) for cost in costs]
    return CostDraws(
        tuple(cost.arm for cost in costs),
        shared.volume,
        schedule,
        upfront,
        monthly,
        per_query,
        retraining,
        following,
        repeats=schedule.events(rates.retrain_months),
        retired=np.array(retired),
        retires_months=tuple(cost.retires_months for cost in costs),
        lifetimes=tuple(cost.retires_months or (lifetime if cost.rented else None) for cost in costs),
        machines={
            i: (cost.dedicated, cost.dedicated.usd_per_hour.sample(draws, rng))
            for i, cost in enumerate(costs)
            if cost.dedicated is not None
        },
    )


def _drawn(
    cost: ArmCost, shared: _Shared, labels: float, rng: np.random.Generator
) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    """(D,) dollars upfront, a month, a query, of training again, of following a retired base model."""
    draws = len(shared.volume)
    training = cost.training_core_seconds * shared.core_second + cost.training_usd
    hours = cost.hours.quantile(shared.effort)
    if cost.kind != "incumbent":
        hours = hours + shared.served_hours + (shared.labelled_hours if cost.labels else 0.0)
    upfront = labels * cost.labels * shared.label + training + hours * shared.hourly
    upfront = upfront + cost.upfront_usd.sample(draws, rng)
    monthly = cost.monthly_usd.sample(draws, rng) + shared.review
    price = cost.usd_per_query.sample(draws, rng)
    price = price + deviations(cost.query_error_usd, cost.query_skew, draws, rng)
    late = deviations(cost.core_seconds_error, cost.core_seconds_skew, draws, rng)
    seconds = cost.core_seconds_per_query + late
    per_query = np.clip(price, 0.0, None) + np.clip(seconds, 0.0, None) * shared.core_second
    retrained = cost.retrain_hours.quantile(shared.again) * shared.hourly + training
    followed = shared.moving if cost.kind in ("prompt", "incumbent") else retrained
    return upfront, monthly, per_query, retrained, followed if cost.rented else np.zeros(draws)


def schedule_of(task: Task) -> Schedule:
    """Horizon, growth and discount of a task."""
    traffic = task.traffic
    return Schedule(traffic.horizon_months, traffic.growth_per_month, task.costs.discount_per_year)


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
