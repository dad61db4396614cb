"""Monte Carlo simulation of the arms' costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tunepoint.costs.arm_cost import ArmCost
from tunepoint.costs.caching import Arrivals, PrefixDraws, draw_prefixes
from tunepoint.costs.cost_draws import CostDraws
from tunepoint.costs.schedule import Schedule
from tunepoint.stats.arrays import Floats
from tunepoint.stats.moments import deviations
from tunepoint.stats.ranges import Range
from tunepoint.task.task import Task


@dataclass(frozen=True)
class _SharedDraws:
    """(D,) draws of what all arms share."""

    label: Floats
    """Dollars of a label."""
    hourly: Floats
    """Dollars of an hour of work."""
    core_second: Floats
    """Dollars of a core for a second."""
    volume: Floats
    """Queries of the first month."""
    build_effort: Floats
    """Where in their ranges the hours of building lie, 0..1."""
    upkeep_effort: Floats
    """Where in their ranges the hours of every later month and retraining lie, 0..1."""
    cleaning_hours: Floats
    """On top, for an arm that needs labels."""
    evaluation_hours: Floats
    """On top, for an arm that does not serve yet."""
    review: Floats
    """Dollars a month."""
    reprompt: Floats
    """Dollars of moving a prompt to another base model."""


@dataclass(frozen=True)
class _ArmDraws:
    """(D,) dollars of one arm."""

    upfront: Floats
    monthly: Floats
    per_query: Floats
    retraining_once: Floats
    following_once: Floats


def simulate(costs: Sequence[ArmCost], task: Task, draws: int, rng: np.random.Generator) -> CostDraws:
    """Draw every uncertain part of the arms' costs.

    Args:
        costs: A arms.
        task: its rates, traffic and horizon.
        draws: D, the number of draws.

    """
    rates, schedule = task.costs, schedule_of(task)
    shared = _draw_shared(task, draws, rng)
    costs = [_with_batches(cost, task.traffic.batch_share) for cost in costs]
    by_arm = [_draw_arm(cost, shared, owns_labels=rates.labels_owned, rng=rng) for cost in costs]
    lifetime = rates.base_model_months
    return CostDraws(
        arms=tuple(cost.arm for cost in costs),
        volume=shared.volume,
        schedule=schedule,
        upfront=np.stack([arm.upfront for arm in by_arm], axis=1),
        monthly=np.stack([arm.monthly for arm in by_arm], axis=1),
        per_query=np.stack([arm.per_query for arm in by_arm], axis=1),
        retraining_once=np.stack([arm.retraining_once for arm in by_arm], axis=1),
        following_once=np.stack([arm.following_once for arm in by_arm], axis=1),
        repeats=schedule.events(rates.retrain_months),
        retired=np.array([schedule.events(lifetime, cost.retires_months) for cost in costs]),
        retires_months=tuple(cost.retires_months for cost in costs),
        # The usual lifetime counts only for a model that a provider can retire.
        lifetimes=tuple(cost.retires_months or (lifetime if cost.rented else None) for cost in costs),
        machines={
            position: (cost.dedicated, cost.dedicated.usd_per_hour.sample(draws, rng))
            for position, cost in enumerate(costs)
            if cost.dedicated is not None
        },
        prefixes=_draw_caches(costs, task, draws, rng),  # after all that was drawn before there were caches
    )


def _with_batches(cost: ArmCost, share: float) -> ArmCost:
    """An arm with this share of its answers by batch: cheaper, and none of them finds a prompt cached."""
    if not share or not cost.batch_discount:
        return cost
    factor, price = 1 - share * cost.batch_discount, cost.usd_per_query
    prefixes = [p.model_copy(update={"calls": p.calls * (1 - share)}) for p in cost.prefixes if share < 1]
    return replace(
        cost,
        usd_per_query=Range(price.low * factor, price.likely * factor, price.high * factor),
        query_error_usd=cost.query_error_usd * factor,
        prefixes=tuple(prefixes),
    )


def _draw_caches(
    costs: Sequence[ArmCost], task: Task, draws: int, rng: np.random.Generator
) -> dict[int, tuple[PrefixDraws, ...]]:
    """Position of an arm -> its cached prefixes; all arms share the traffic."""
    if not any(cost.prefixes for cost in costs):
        return {}
    traffic = task.traffic
    arrivals = Arrivals(traffic.hours_a_week.sample(draws, rng), traffic.calls_per_burst.sample(draws, rng))
    return {
        position: draw_prefixes(cost.prefixes, arrivals, rng)
        for position, cost in enumerate(costs)
        if cost.prefixes
    }


def _draw_shared(task: Task, draws: int, rng: np.random.Generator) -> _SharedDraws:
    # The order of these draws is part of every recorded decision: with another order the same seed
    # gives other numbers. The minutes of a label are drawn even where they are not used.
    rates = task.costs
    label_hours = rates.label_minutes.sample(draws, rng) / 60
    hourly = rates.hourly_usd.sample(draws, rng)
    core_second = rates.core_hour_usd.sample(draws, rng) / 3600
    volume = task.traffic.queries_per_month.sample(draws, rng)
    build_effort, upkeep_effort = rng.random(draws), rng.random(draws)
    label = label_hours * hourly if rates.label_usd is None else rates.label_usd.sample(draws, rng)
    return _SharedDraws(
        label=label,
        hourly=hourly,
        core_second=core_second,
        volume=volume,
        build_effort=build_effort,
        upkeep_effort=upkeep_effort,
        cleaning_hours=rates.cleaning_hours.quantile(build_effort),
        evaluation_hours=rates.evaluation_hours.quantile(build_effort),
        review=rates.review_hours_per_month.quantile(upkeep_effort) * hourly,
        reprompt=rates.reprompt_hours.quantile(upkeep_effort) * hourly,
    )


def _draw_arm(
    cost: ArmCost, shared: _SharedDraws, *, owns_labels: bool, rng: np.random.Generator
) -> _ArmDraws:
    draws = len(shared.volume)
    training = cost.training_core_seconds * shared.core_second + cost.training_usd
    hours = cost.hours.quantile(shared.build_effort)
    if cost.kind != "incumbent":
        hours = hours + shared.evaluation_hours + (shared.cleaning_hours if cost.labels else 0.0)
    paid_labels = 0 if owns_labels else cost.labels
    upfront = paid_labels * shared.label + training + hours * shared.hourly
    upfront = upfront + cost.upfront_usd.sample(draws, rng)
    monthly = cost.monthly_usd.sample(draws, rng) + shared.review
    retraining = cost.retrain_hours.quantile(shared.upkeep_effort) * shared.hourly + training
    following = np.zeros(draws)
    if cost.rented:
        following = shared.reprompt if cost.kind in ("prompt", "incumbent") else retraining
    # Drawn last: the order of draws is part of every recorded decision.
    return _ArmDraws(upfront, monthly, _draw_per_query(cost, shared, rng), retraining, following)


def _draw_per_query(cost: ArmCost, shared: _SharedDraws, rng: np.random.Generator) -> Floats:
    """(D,) dollars of one answer: its price, and its processor time at the rate of a core."""
    draws = len(shared.volume)
    price = cost.usd_per_query.sample(draws, rng)
    price = price + deviations(cost.query_error_usd, cost.query_skew, draws, rng)
    seconds = cost.core_seconds_per_query + deviations(
        cost.core_seconds_error, cost.core_seconds_skew, draws, rng
    )
    # A measured mean near 0 may be drawn below it, and no answer earns money.
    return np.clip(price, 0.0, None) + np.clip(seconds, 0.0, None) * shared.core_second


def schedule_of(task: Task) -> Schedule:
    """Return the horizon, growth and discount of a task."""
    traffic = task.traffic
    return Schedule(traffic.horizon_months, traffic.growth_per_month, task.costs.discount_per_year)
