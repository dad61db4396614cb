"""Draws of every part of the cost, and the totals that they add up to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from tunepoint.costs.caching import PrefixDraws
from tunepoint.costs.schedule import Schedule
from tunepoint.stats.arrays import Floats
from tunepoint.task.hosting import Dedicated

_BY_DRAW_AND_ARM = ("upfront", "monthly", "per_query", "retraining_once", "following_once")
"""Fields of `CostDraws` with one number for each draw and arm."""


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
    """(D, A) dollars of an answer if nothing of its prompt is cached; `answer` has what caches save."""
    retraining_once: Floats
    """(D, A) dollars of one retraining."""
    following_once: Floats
    """(D, A) dollars of one move to the successor of a retired base model."""
    repeats: float
    """How often tuned models are retrained within the horizon; later times count by their present value."""
    retired: Floats
    """(A,) how often a provider retires the arm's base model within the horizon, weighted alike."""
    retires_months: tuple[float | None, ...] = ()
    """Months until the announced retirement of each arm's base model."""
    lifetimes: tuple[float | None, ...] = ()
    """Months until each arm's base model retires, announced or by the usual lifetime; None if unknown."""
    machines: Mapping[int, tuple[Dedicated, Floats]] = field(default_factory=dict)
    """Position of an arm on reserved machines -> the machines, and (D,) dollars of an hour of one."""
    prefixes: Mapping[int, tuple[PrefixDraws, ...]] = field(default_factory=dict)
    """Position of an arm whose provider caches prompts -> the starts of its prompts."""

    @property
    def months(self) -> float:
        """Length of the horizon."""
        return self.schedule.months

    def horizon(self, volume: Floats | float | None = None) -> Floats:
        """Return (D, A) dollars over the horizon, at the drawn volume or at the one given."""
        queries = self._queries(volume)
        running = self.schedule.query_weight * queries * self.per_query
        machines = self._machine_dollars(queries, self.schedule.present, self.schedule.traffic)
        total = self.fixed_over_horizon + running + machines
        if not self.prefixes:
            return total
        return total - queries * self._saved_by_caches(queries, *self.schedule.volumes)

    @cached_property
    def fixed_over_horizon(self) -> Floats:
        """(D, A) dollars over the horizon that do not depend on the volume, without machines."""
        again = self.repeats * self.retraining_once + self.retired * self.following_once
        return self.upfront + self.schedule.monthly_weight * self.monthly + again

    def at_no_traffic(self) -> Floats:
        """Return (D, A) dollars over the horizon if there are no queries, idle machines included."""
        idle = self._machine_dollars(np.zeros((1, 1)), self.schedule.present, self.schedule.traffic)
        return self.fixed_over_horizon + idle

    def per_month(self, volume: Floats | float | None = None) -> Floats:
        """Return (D, A) running dollars of the first month, without one-off costs."""
        queries = self._queries(volume)
        first_month = np.ones(1)
        machines = self._machine_dollars(queries, first_month, first_month)
        return self.monthly + queries * self.answer(volume) + machines

    def answer(self, volume: Floats | float | None = None) -> Floats:
        """Return (D, A) dollars of an answer in the first month; caches save more with more traffic."""
        if not self.prefixes:
            return self.per_query
        first_month = np.ones(1)
        return self.per_query - self._saved_by_caches(self._queries(volume), first_month, first_month)

    def hit_share(self, arm: int, volume: Floats | float | None = None) -> Floats | None:
        """Return (D,) the share of an arm's cacheable tokens that are cached, in the first month.

        None for an arm without any, given by position.
        """
        if arm not in self.prefixes:
            return None
        queries = self._queries(volume)
        weights = [draws.prefix.calls * draws.prefix.tokens for draws in self.prefixes[arm]]
        shares = [draws.hit_share(queries.T)[0] for draws in self.prefixes[arm]]
        return np.asarray(np.average(shares, axis=0, weights=weights))

    def lifetime_days(self, arm: int) -> float | None:
        """Return the days until an arm's base model retires, by position; None if unknown."""
        months = self.lifetimes[arm] if self.lifetimes else None
        return None if months is None else months * 365.25 / 12

    def _queries(self, volume: Floats | float | None) -> Floats:
        """(D, 1) or (1, 1) queries of a month."""
        return np.asarray(self.volume if volume is None else volume, np.float64).reshape(-1, 1)

    def _machine_dollars(self, queries: Floats, present: Floats, traffic: Floats) -> Floats:
        """Return (D, A) dollars of reserved machines, or (1,) zeros if no arm has any.

        Args:
            queries: of the first month, (D, 1) or (1, 1).
            present: (M,) present value of a dollar in each month.
            traffic: (M,) queries of each month over those of the first.

        """
        if not self.machines:
            return np.zeros(1)
        dollars = np.zeros(self.upfront.shape)
        for arm, (hosting, hourly) in self.machines.items():
            machine_months = hosting.machines(queries * traffic) @ present  # (D,) or (1,)
            dollars[:, arm] = machine_months * hourly * hosting.hours_per_month
        return dollars

    def _saved_by_caches(self, queries: Floats, weights: Floats, volumes: Floats) -> Floats:
        """Return (D, A) dollars that caches save.

        Args:
            queries: of the first month, (D, 1) or (1, 1).
            weights: (N,) how much each volume counts.
            volumes: (N,) over that of the first month.

        """
        saved = np.zeros(self.upfront.shape)
        for arm, prefixes in self.prefixes.items():
            for draws in prefixes:
                saved[:, arm] += weights @ draws.usd_saved(volumes[:, None] * queries.T)
        return saved

    def for_arms(self, *arms: int) -> CostDraws:
        """Return the draws of some arms, given by position."""
        columns = {name: getattr(self, name)[:, arms] for name in _BY_DRAW_AND_ARM}
        return replace(
            self,
            **columns,
            arms=tuple(self.arms[arm] for arm in arms),
            machines={new: self.machines[old] for new, old in enumerate(arms) if old in self.machines},
            prefixes={new: self.prefixes[old] for new, old in enumerate(arms) if old in self.prefixes},
            retired=self.retired[list(arms)],
            retires_months=(),
            lifetimes=tuple(self.lifetimes[arm] for arm in arms) if self.lifetimes else (),
        )

    def for_draws(self, draws: slice) -> CostDraws:
        """Return some of the draws, of all arms."""
        rows = {name: getattr(self, name)[draws] for name in ("volume", *_BY_DRAW_AND_ARM)}
        machines = {arm: (hosting, hourly[draws]) for arm, (hosting, hourly) in self.machines.items()}
        prefixes = {arm: tuple(p.for_draws(draws) for p in drawn) for arm, drawn in self.prefixes.items()}
        return replace(self, **rows, machines=machines, prefixes=prefixes)
