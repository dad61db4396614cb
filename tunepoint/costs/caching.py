"""The share of calls that find the start of their prompt in the provider's cache, as traffic has it.

Calls arrive in bursts, and bursts as a Poisson process; docs/economics.md derives the formulas. They hold
in production, where calls are minutes apart, and not in a study, which sends all of them at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from tunepoint.files.amounts import Amount, Dollars
from tunepoint.stats.arrays import Floats
from tunepoint.stats.ranges import Range
from tunepoint.task.hosting import HOURS_PER_MONTH, HOURS_PER_WEEK

OFFICE_DAYS, OFFICE_DAY_HOURS = 5, 24.0
"""Hours of traffic a week that fit into five days are taken to lie there, and others in seven."""
ALWAYS = Range(1, 1, 1)


class CachedPrefix(BaseModel):
    """The start of an arm's prompt that is the same for every input, and how its provider caches it."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)
    tokens: Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]
    """Of one answer, those that the cache can hold."""
    input: Dollars
    """Dollars per million tokens that are not cached."""
    read: Dollars
    """Dollars per million tokens that are found in the cache."""
    write: Dollars
    """Dollars per million tokens that a call writes into the cache, because it did not find them."""
    minutes: Amount
    """How long the provider keeps them."""
    renewed: bool = True
    """Whether every use starts that time anew; otherwise it counts from the writing."""
    asked_for: bool = False
    """Whether a call asks for the cache, so that one does without it where it does not pay."""
    reached: Amount = ALWAYS
    """Share of the calls that reach a machine with the cached tokens, while these are kept."""
    calls: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 1.0
    """Share of the answers that send it: below 1 in the strong half of a cascade."""
    hit: Annotated[float, Field(ge=0, le=1)] | None = None
    """Declared share of calls that find it, instead of the one by traffic."""

    @property
    def usd_saved_by_hit(self) -> float:
        """Dollars that an answer saves, on average over all answers, if its call finds the tokens."""
        return self.calls * self.tokens * (self.input - self.read) / 1e6

    @property
    def usd_added_by_miss(self) -> float:
        """Dollars that an answer costs on top, on average over all answers, if its call writes them."""
        return self.calls * self.tokens * (self.write - self.input) / 1e6


@dataclass(frozen=True)
class Arrivals:
    """(D,) draws of when queries come."""

    hours_a_week: Floats
    """Hours in which there is traffic; the queries spread over them."""
    calls_per_burst: Floats
    """Mean number of calls that come together; all but the first find what it wrote."""


@dataclass(frozen=True)
class Spells:
    """(D,) draws of how traffic meets a cache.

    A spell is the traffic from one pause that outlasts the cache to the next: a day where the night is
    longer than the lifetime, a week where only the weekend is, and endless otherwise.
    """

    minutes: Floats
    """Of traffic in a spell; inf where it is endless."""
    lifetime: Floats
    """Minutes of traffic for which the cache keeps a prefix: shorter pauses count by their share of time."""
    bursts: Floats
    """Bursts in a minute of traffic, for one query a month."""
    calls_per_burst: Floats

    def for_draws(self, draws: slice) -> Spells:
        """Return some of the draws."""
        parts = (self.minutes, self.lifetime, self.bursts, self.calls_per_burst)
        return Spells(*(part[draws] for part in parts))

    def hit_share(self, queries_per_month: Floats, *, renewed: bool) -> Floats:
        """Return (N, D) the share of calls that find a prefix in the cache.

        With r calls in a minute of traffic, a lifetime of T minutes and b calls in a burst it is
        1 - exp(-rT/b) / b if each use renews the lifetime (no burst came in the T minutes before), else
        1 - 1 / (b + rT) (each writing is followed by b - 1 + rT hits); the first call of a spell finds
        nothing.

        Args:
            queries_per_month: (N, D) or (N, 1), that carry the prefix.
            renewed: whether each use renews the lifetime.

        """
        bursts = queries_per_month * self.bursts
        alone = _alone_if_renewed if renewed else _alone_if_not
        return np.asarray(1 - alone(bursts, self.lifetime, self.minutes) / self.calls_per_burst)


def spells_of(minutes: Floats, arrivals: Arrivals, calls: float = 1.0) -> Spells:
    """Return how D draws of traffic meet D draws of a lifetime.

    Args:
        minutes: (D,) that the cache keeps a prefix.
        arrivals: the traffic.
        calls: share of the queries that carry the prefix.

    """
    hours, hours_a_week = minutes / 60, arrivals.hours_a_week
    five_days = hours_a_week <= OFFICE_DAYS * OFFICE_DAY_HOURS
    day = hours_a_week / np.where(five_days, OFFICE_DAYS, 7)
    night = OFFICE_DAY_HOURS - day
    weekend = np.where(five_days, night + (7 - OFFICE_DAYS) * OFFICE_DAY_HOURS, 0.0)
    by_day, by_week = hours < night, (hours >= night) & (hours < weekend)
    spell = np.where(by_day, day, np.where(by_week, hours_a_week, np.inf)) * 60
    open_share = np.where(by_week, day / OFFICE_DAY_HOURS, hours_a_week / HOURS_PER_WEEK)
    lifetime = np.where(by_day, np.minimum(hours, day), hours * open_share) * 60
    per_minute = calls / (HOURS_PER_MONTH * 60) * (HOURS_PER_WEEK / hours_a_week)
    # Of a burst of geometric size, a share of the calls carries the prefix: those bursts are smaller too.
    carried = 1 + calls * (arrivals.calls_per_burst - 1)
    return Spells(spell, lifetime, per_minute / carried, carried)


def _alone_if_renewed(bursts: Floats, lifetime: Floats, spell: Floats) -> Floats:
    """Share of bursts with none in the lifetime before them: the mean of exp(-bursts * min(t, lifetime)).

    t is the time since the spell began.
    """
    expected = bursts * lifetime
    some = np.expm1(-expected)
    # at the start of a spell, the mean over the first lifetime; -some where nothing is expected
    start = np.where(expected > 0, -some / np.where(expected > 0, expected, 1.0), 1.0)
    share = lifetime / spell
    return np.asarray(share * start + (1 - share) * (1 + some))


def _alone_if_not(bursts: Floats, lifetime: Floats, spell: Floats) -> Floats:
    """Share of bursts that find the cache empty: renewals of mean m = lifetime + 1 / bursts in a spell.

    Their number in a spell s that begins with an empty cache is close to (s + lifetime) / m +
    (1 / (bursts m)^2 - 1) / 2 (Cox 1962, Renewal Theory), and of s / m without a pause.
    """
    per_cycle = 1 + bursts * lifetime
    extra = bursts * lifetime / per_cycle + (per_cycle**-2.0 - 1) / 2
    pauses_per_burst = 1 / spell / np.maximum(bursts, 1e-12)
    return np.asarray(np.minimum(1 / per_cycle + extra * pauses_per_burst, 1.0))


@dataclass(frozen=True)
class PrefixDraws:
    """A cached prefix with (D,) draws of what is uncertain about its cache."""

    prefix: CachedPrefix
    spells: Spells
    reached: Floats

    def for_draws(self, draws: slice) -> PrefixDraws:
        """Return some of the draws."""
        return PrefixDraws(self.prefix, self.spells.for_draws(draws), self.reached[draws])

    def hit_share(self, queries_per_month: Floats) -> Floats:
        """Return (N, D) the share of calls that find the prefix, at (N, D) or (N, 1) queries a month."""
        if self.prefix.hit is not None:
            return np.full((len(queries_per_month), len(self.reached)), self.prefix.hit)
        return self.reached * self.spells.hit_share(queries_per_month, renewed=self.prefix.renewed)

    def usd_saved(self, queries_per_month: Floats) -> Floats:
        """Return (N, D) dollars that the cache saves an answer; negative where writing costs more."""
        share, added = self.hit_share(queries_per_month), self.prefix.usd_added_by_miss
        saved = share * (self.prefix.usd_saved_by_hit + added) - added
        return np.maximum(saved, 0.0) if self.prefix.asked_for else saved


def draw_prefixes(
    prefixes: Sequence[CachedPrefix], arrivals: Arrivals, rng: np.random.Generator
) -> tuple[PrefixDraws, ...]:
    """Draw what is uncertain about the caches of an arm's prefixes."""
    draws = len(arrivals.hours_a_week)
    return tuple(
        PrefixDraws(
            prefix,
            spells_of(prefix.minutes.sample(draws, rng), arrivals, prefix.calls),
            prefix.reached.sample(draws, rng),
        )
        for prefix in prefixes
    )
