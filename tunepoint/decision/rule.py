"""What the decision rests on: joint draws, the risks of a choice, and what would change it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tunepoint.costs.break_even import BreakEven, break_even
from tunepoint.costs.simulation import CostDraws
from tunepoint.stats.arrays import Flags, Floats
from tunepoint.task.assumptions import Limits

Strength = Literal["confident", "leaning"]
CONFIDENT, LEANING = 0.05, 0.20


@dataclass(frozen=True)
class Risks:
    """The two ways in which choosing an arm may be wrong."""

    unacceptable: float
    """Probability that it is worse than the best by more than the margin."""
    passed_over: float
    """Probability that a materially cheaper arm is acceptable (or, with `error_usd`,
    that another arm is better by more than the materiality)."""
    wrong: float
    """Probability of either."""

    @property
    def strength(self) -> Strength | None:
        """How strong a verdict these risks allow."""
        return "confident" if self.wrong <= CONFIDENT else "leaning" if self.wrong <= LEANING else None


@dataclass(frozen=True)
class Evidence:
    """Joint draws of scores and costs: all that the rule looks at."""

    scores: Floats
    """(D, A) draws of the true mean scores."""
    estimates: Floats
    """(A,) the mean scores as measured."""
    costs: CostDraws
    fast: NDArray[np.bool_]
    """(A,) arms that meet the limit on latency."""
    limits: Limits
    materiality: float
    error_usd: float | None

    def thinned(self, most: int) -> Evidence:
        """The same evidence on the first so many draws."""
        few = slice(0, most)
        return replace(self, scores=self.scores[few], costs=self.costs.only(few))

    def total(self, volume: float | None = None) -> Floats:
        """(D, A) dollars over the horizon, with what errors cost if that is known."""
        spent = self.costs.horizon(volume)
        if self.error_usd is None:
            return spent
        queries = np.asarray(self.costs.volume if volume is None else volume).reshape(-1, 1)
        return spent + self.error_usd * self.costs.schedule.queries * queries * (1 - self.scores)

    def eligible(self, volume: float | None = None) -> NDArray[np.bool_]:
        """(A,) arms that meet every limit, at the task's traffic or at another volume."""
        limits, costs = self.limits, self.costs
        found = self.fast.copy()
        if limits.upfront_usd is not None:
            found &= np.median(costs.upfront, axis=0) <= limits.upfront_usd
        if limits.monthly_usd is not None:
            found &= np.median(costs.per_month(volume), axis=0) <= limits.monthly_usd
        if limits.min_score is not None:
            found &= self.estimates >= limits.min_score
        return found

    def field(self, volume: float | None = None) -> NDArray[np.bool_]:
        """(A,) the arms to choose from: the eligible ones, or all where none is."""
        found = self.eligible(volume)
        return found if found.any() else np.ones_like(found)

    def acceptable(self, volume: float | None = None) -> NDArray[np.bool_]:
        """(D, A) whether an arm is within the margin of the best eligible one."""
        field = self.scores[:, self.field(volume)]
        enough = self.scores >= field.max(axis=1, keepdims=True) - self.limits.margin
        if self.limits.min_score is not None:
            enough &= self.scores >= self.limits.min_score
        return np.asarray(enough)

    def faults(self, volume: float | None = None) -> tuple[Flags, Flags]:
        """(D, A) whether an arm is unacceptable, and whether choosing it passes over a better one."""
        total, field = self.total(volume), self.field(volume)
        if self.error_usd is not None:
            floor = self.limits.min_score
            below = np.zeros(total.shape, dtype=bool) if floor is None else self.scores < floor
            least = total[:, field].min(axis=1, keepdims=True)
            return below, np.asarray(total - least > self.materiality * total)
        acceptable = self.acceptable(volume)
        cheapest = np.where(acceptable & field, total, np.inf).min(axis=1, keepdims=True)
        return ~acceptable, np.asarray(total - cheapest > self.materiality * total)

    def risks_of(self, arm: int) -> Risks:
        """The risks of choosing one arm, given by position."""
        unacceptable, missed = (fault[:, arm] for fault in self.faults())
        either = unacceptable | missed
        return Risks(float(unacceptable.mean()), float(missed.mean()), float(either.mean()))

    def regret(self, volume: float | None = None) -> Floats:
        """(A,) expected dollars lost against the best arm of each draw."""
        total = self.total(volume)
        least = total[:, self.field(volume)].min(axis=1, keepdims=True)
        return np.asarray((total - least).mean(axis=0))

    def best(self, volume: float | None = None) -> int:
        """The best bet: least expected loss among the arms that meet the limits."""
        unacceptable, passed_over = (fault.mean(axis=0) for fault in self.faults(volume))
        total = self.total(volume).mean(axis=0)
        loss = unacceptable + passed_over
        if self.error_usd is not None:
            loss = np.where(unacceptable > 0.5, np.inf, total)
        allowed = np.flatnonzero(self.field(volume))
        order = np.lexsort((total[allowed], unacceptable[allowed], loss[allowed]))
        return int(allowed[order[0]])

    def break_even(self, one: str, other: str) -> BreakEven:
        """The volume at which two arms, given by name, cost the same, errors included."""
        worth = None if self.error_usd is None else self.error_usd * (1 - self.scores)
        arms = self.costs.arms
        return break_even(self.costs, arms.index(one), arms.index(other), worth=worth)
