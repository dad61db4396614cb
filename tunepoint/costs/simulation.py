"""Draws of every part of the cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from tunepoint.costs.arm_cost import ArmCost
from tunepoint.costs.schedule import Schedule
from tunepoint.stats.arrays import Floats
from tunepoint.stats.moments import deviations
from tunepoint.task.hosting import Dedicated
from tunepoint.task.task import Task


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
