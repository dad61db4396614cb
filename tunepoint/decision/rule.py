"""What the decision rests on: joint draws of scores and costs, and the risks of choosing an arm."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np

from tunepoint.costs.break_even import BreakEven, break_even
from tunepoint.costs.cost_draws import CostDraws
from tunepoint.stats.arrays import Flags, Floats, Integers
from tunepoint.task.assumptions import Limits

Strength = Literal["confident", "leaning"]
CONFIDENT, LEANING = 0.05, 0.20
"""Probability of a wrong choice up to which a verdict has this strength."""
CLEARLY_WORSE = 0.975
"""Share of the draws in which an arm scores lower, from which the difference is no noise."""

NAMED_VARIANT = 0.75
"""Probability of being wrong up to which a variant may be named in place of the best one."""


def strength_of(wrong: float) -> Strength | None:
    """Return how strong a verdict is that is wrong with this probability."""
    if wrong <= CONFIDENT:
        return "confident"
    return "leaning" if wrong <= LEANING else None


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
        return strength_of(self.wrong)


@dataclass(frozen=True)
class _Compared:
    """Every arm beside the candidate with the least expected loss, as (A,) shares of the draws."""

    best: int
    """Position of that candidate."""
    wrong: Floats
    """In which choosing an arm is wrong."""
    worse: Floats
    """In which an arm scores lower than the candidate."""
    dearer: Floats
    """In which it is materially dearer."""


@dataclass(frozen=True)
class Evidence:
    """Joint draws of scores and costs: all that the rule looks at."""

    scores: Floats
    """(D, A) draws of the true mean scores."""
    estimates: Floats
    """(A,) the mean scores as measured."""
    costs: CostDraws
    fast: Flags
    """(A,) arms that meet the limit on latency."""
    limits: Limits
    materiality: float
    error_usd: float | None
    simplicity: tuple[int, ...] | None = None
    """(A,) rank of each arm, the simplest first, which decides between equals; None to keep the best bet."""
    sides: tuple[str, ...] | None = None
    """(A,) what an arm is a variant of, as `variants_of` names it; None if each stands for itself."""
    replaced: int | None = None
    """Position of what runs today and has to go: it cannot be chosen, and scores are compared with its score
    instead of the best one."""
    at_all_looks: Evidence | None = None
    """Draws of the same, as wide as bounds that hold whenever people look at their labels."""

    def thinned(self, size: int) -> Evidence:
        """Return the same evidence on the first `size` draws."""
        first = slice(0, size)
        return replace(self, scores=self.scores[first], costs=self.costs.for_draws(first))

    def total(self, volume: float | None = None) -> Floats:
        """Return (D, A) dollars over the horizon, including what errors cost if that is known."""
        dollars = self.costs.horizon(volume)
        if self.error_usd is None:
            return dollars
        queries = np.asarray(self.costs.volume if volume is None else volume).reshape(-1, 1)
        return dollars + self.error_usd * self.costs.schedule.query_weight * queries * (1 - self.scores)

    def eligible(self, volume: float | None = None) -> Flags:
        """Return (A,) whether an arm meets every limit, at the task's traffic or at another volume."""
        limits, costs = self.limits, self.costs
        eligible = self.fast.copy()
        if limits.upfront_usd is not None:
            eligible &= np.median(costs.upfront, axis=0) <= limits.upfront_usd
        if limits.monthly_usd is not None:
            eligible &= np.median(costs.per_month(volume), axis=0) <= limits.monthly_usd
        if limits.min_score is not None:
            eligible &= self.estimates >= limits.min_score
        return eligible & self.lasting

    @property
    def lasting(self) -> Flags:
        """(A,) the arms that do not have to go."""
        lasting = np.ones(len(self.estimates), dtype=bool)
        if self.replaced is not None:
            lasting[self.replaced] = False
        return lasting

    def candidates_mask(self, volume: float | None = None) -> Flags:
        """Return (A,) the arms to choose from: the eligible ones, or all that last where none is."""
        eligible = self.eligible(volume)
        return eligible if eligible.any() else self.lasting

    def acceptable(self, volume: float | None = None) -> Flags:
        """Return (D, A) whether an arm is within the margin of the best candidate, or of what it replaces."""
        reference = self.candidates_mask(volume) if self.replaced is None else [self.replaced]
        best = self.scores[:, reference].max(axis=1, keepdims=True)
        acceptable = self.scores >= best - self.limits.margin
        if self.limits.min_score is not None:
            acceptable &= self.scores >= self.limits.min_score
        return np.asarray(acceptable)

    def risk_draws(self, volume: float | None = None) -> tuple[Flags, Flags]:
        """Return (D, A) whether an arm is unacceptable, and whether choosing it passes over a better one."""
        total, candidates = self.total(volume), self.candidates_mask(volume)
        if self.error_usd is not None:
            # Errors have a price, so a lower score is part of the total and the margin plays no part.
            floor = self.limits.min_score
            below = np.zeros(total.shape, dtype=bool) if floor is None else self.scores < floor
            least = total[:, candidates].min(axis=1, keepdims=True)
            return below, np.asarray(total - least > self.materiality * total)
        acceptable = self.acceptable(volume)
        cheapest = np.where(acceptable & candidates, total, np.inf).min(axis=1, keepdims=True)
        return ~acceptable, np.asarray(total - cheapest > self.materiality * total)

    def doubts_about(self, arm: int) -> Floats:
        """Return (A,) how open it is whether each other arm makes it wrong to choose this one, 0 to .5."""
        total = self.total()
        cheaper = total[:, [arm]] - total > self.materiality * total[:, [arm]]
        if self.error_usd is None:
            lead = self.scores[:, [arm]] - self.scores
            cheaper = (cheaper & (lead <= self.limits.margin)) | (lead < -self.limits.margin)
        wrong = cheaper.mean(axis=0)
        return np.asarray(np.minimum(wrong, 1 - wrong))

    def risks_of(self, *arms: int) -> Risks:
        """Return the risks of choosing one arm, given by position, or of leaving open which of several.

        Several are unacceptable where all of them are, and pass over what is none of them.
        """
        if len(arms) == 1:
            unacceptable, passed_over = (draws[:, arms[0]] for draws in self.risk_draws())
        else:
            unacceptable, passed_over = self._shared_risk_draws(list(arms))
        wrong = unacceptable | passed_over
        return Risks(float(unacceptable.mean()), float(passed_over.mean()), float(wrong.mean()))

    def _shared_risk_draws(self, arms: list[int], volume: float | None = None) -> tuple[Flags, Flags]:
        """Return (D,) whether all of some arms are unacceptable, and whether all pass over another arm."""
        unacceptable, total = self.risk_draws(volume)[0], self.total(volume)
        others = self.candidates_mask(volume).copy()
        others[arms] = False
        if self.error_usd is None:
            total = np.where(unacceptable, np.inf, total)
        least = total[:, arms].min(axis=1)
        rival = np.where(others, total, np.inf).min(axis=1)
        passed_over = np.isfinite(least) & (rival < least * (1 - self.materiality))
        return np.asarray(unacceptable[:, arms].all(axis=1)), np.asarray(passed_over)

    def verdict_risks(self) -> Risks:
        """Return the risks of the verdict: of the best bet, or of its variants if only they are settled."""
        return self.risks_of(*self.named())

    def verdict_strength(self) -> Strength | None:
        """Return how strong the verdict is: confident only by draws that allow for every look at labels."""
        strength = self.verdict_risks().strength
        if strength == "confident" and self.at_all_looks is not None:
            return self.at_all_looks.risks_of(*self.named()).strength or "leaning"
        return strength

    def named(self) -> tuple[int, ...]:
        """Return the positions that the verdict names: the best bet, or variants if only they are settled."""
        return self.open_variants() or (self.best_bet(),)

    def open_variants(self, volume: float | None = None) -> tuple[int, ...]:
        """Return the positions of the variants of which one is right, if it is open which; else none.

        They are the candidates of the best bet's side that are neither clearly worse nor clearly dearer.
        """
        return self._open_here if volume is None else self._open(volume)

    @cached_property
    def _open_here(self) -> tuple[int, ...]:
        return self._open(None)

    def _open(self, volume: float | None) -> tuple[int, ...]:
        compared = self._compared(volume)
        best = compared.best
        if strength_of(compared.wrong[best]) is not None:
            return ()
        clearly = np.maximum(compared.worse, compared.dearer) > CLEARLY_WORSE
        variants = [
            arm
            for arm in np.flatnonzero(self.candidates_mask(volume)).tolist()
            if arm == best or (self._is_variant(arm, best) and not clearly[arm])
        ]
        if len(variants) == 1:
            return ()
        together = float(np.logical_or(*self._shared_risk_draws(variants, volume)).mean())
        # Variants are found on the data that judges them: at a higher risk they are wrong too often.
        return tuple(variants) if together <= CONFIDENT else ()

    def _compared(self, volume: float | None) -> _Compared:
        return self._compared_here if volume is None else self._compare(volume)

    @cached_property
    def _compared_here(self) -> _Compared:
        return self._compare(None)

    def _compare(self, volume: float | None) -> _Compared:
        """Compare every arm with the candidate of the least expected loss."""
        unacceptable, passed_over = self.risk_draws(volume)
        total, wrong = self.total(volume), (unacceptable | passed_over).mean(axis=0)
        candidates = np.flatnonzero(self.candidates_mask(volume))
        best = self._least_loss(candidates, unacceptable.mean(axis=0), passed_over.mean(axis=0), total)
        worse = (self.scores < self.scores[:, [best]]).mean(axis=0)
        dearer = (total - total[:, [best]] > self.materiality * total).mean(axis=0)
        return _Compared(best, wrong, worse, dearer)

    def regret(self, volume: float | None = None) -> Floats:
        """Return (A,) expected dollars lost against the best arm of each draw."""
        total = self.total(volume)
        least = total[:, self.candidates_mask(volume)].min(axis=1, keepdims=True)
        return np.asarray((total - least).mean(axis=0))

    def best_bet(self, volume: float | None = None) -> int:
        """Return the position of the candidate with the least expected loss, or of its simplest equal."""
        equals = self.equals(volume)
        return equals[0] if self.simplicity is None else min(equals, key=self.simplicity.__getitem__)

    def equals(self, volume: float | None = None, *, gated: bool = True) -> tuple[int, ...]:
        """Return the positions of the candidate with the least expected loss and of those equal to it.

        An equal is a candidate that one may choose at the same strength, that is not clearly worse in
        score, and that is not materially dearer in half of the draws or more. Where the first alone is not
        strong enough, it stands alone, or with those of its `open_variants` that are as cheap and that one
        may choose with no more risk than `NAMED_VARIANT`. Without the gate, the strengths play no part.
        """
        compared = self._compared(volume)
        best, strength = compared.best, strength_of(compared.wrong[compared.best])
        alike = [
            arm
            for arm in np.flatnonzero(self.candidates_mask(volume)).tolist()
            if arm != best and compared.worse[arm] <= CLEARLY_WORSE and compared.dearer[arm] < 0.5
        ]
        if gated and strength is None:
            variants = self.open_variants(volume)
            likely = [arm for arm in variants if compared.wrong[arm] <= NAMED_VARIANT]
            return (best, *(arm for arm in alike if arm in likely))
        return (best, *(arm for arm in alike if not gated or strength_of(compared.wrong[arm]) == strength))

    def _is_variant(self, arm: int, other: int) -> bool:
        """Whether two arms, given by position, differ in what a verdict does not name."""
        return self.sides is not None and self.sides[arm] == self.sides[other]

    def _least_loss(
        self, candidates: Integers, unacceptable: Floats, passed_over: Floats, total: Floats
    ) -> int:
        """The candidate with the least expected loss, from its risks and the (D, A) totals."""
        mean_total = total.mean(axis=0)
        loss = unacceptable + passed_over
        if self.error_usd is not None:
            loss = np.where(unacceptable > 0.5, np.inf, mean_total)
        # Ties of loss go to the arm that is less often unacceptable, then to the cheaper one.
        order = np.lexsort((mean_total[candidates], unacceptable[candidates], loss[candidates]))
        return int(candidates[order[0]])

    def break_even(self, first: str, second: str) -> BreakEven:
        """Return the volume at which two arms, given by name, cost the same, errors included."""
        worth = None if self.error_usd is None else self.error_usd * (1 - self.scores)
        arms = self.costs.arms
        return break_even(self.costs, arms.index(first), arms.index(second), worth=worth)
