"""The arms that were measured on the test set, each with everything that speaks for and against it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tunepoint.costs.arm_cost import ArmCost
from tunepoint.costs.cost_draws import CostDraws
from tunepoint.decision.numbers import about_usd, seconds
from tunepoint.decision.rule import Evidence
from tunepoint.stats.comparisons import score_intervals
from tunepoint.stats.intervals import Interval
from tunepoint.stats.paired import JointScores
from tunepoint.stats.ranges import Quantiles, quantiles
from tunepoint.task.assumptions import Limits
from tunepoint.trials.table import ArmScores, Table
from tunepoint.trials.trial import ArmKind


@dataclass(frozen=True)
class Errors:
    """Standard errors of a mean score by what they come from; their squares add up."""

    items: float
    training_seeds: float
    """0 for an arm without training, and where its seeds differ by no more than their items explain."""
    decodes: float | None
    """None where every item was answered once: then it is part of `items`."""


@dataclass(frozen=True)
class Finalist:
    """One arm with everything that speaks for and against it."""

    arm: str
    kind: ArmKind
    items: int
    score: Interval
    format_ok: float
    """Share of answers that could be read, repaired ones included."""
    repaired: float
    """Share of answers that could be read only when they were asked for again."""
    cost_per_query_usd: Quantiles
    monthly_usd: Quantiles
    horizon_usd: Quantiles
    upfront_usd: Quantiles
    p50_seconds: float | None
    p95_seconds: float | None
    meets_limits: bool
    misses: tuple[str, ...]
    """The limits that it does not meet, in words."""
    probability_acceptable: float
    """That its score is within the margin of the best, and above `min_score`."""
    probability_best: float
    """Of the highest score; with `error_usd`, of the highest net value."""
    expected_regret_usd: float | None
    """Money lost on average by choosing it over the best; None without `error_usd`."""
    errors: Errors
    label: str | None = None
    """What people read instead of the name; None where the name will do."""
    cache_hit: Quantiles | None = None
    """Share of its prompts' fixed start that is cached at this traffic; None where nothing can be."""

    @property
    def title(self) -> str:
        """What people read: the label, else the name."""
        return self.label or self.arm


def build_finalists(
    table: Table,
    costs: Sequence[ArmCost],
    joint: JointScores,
    evidence: Evidence,
    misses: Sequence[tuple[str, ...]],
    rng: np.random.Generator,
) -> tuple[Finalist, ...]:
    """Return every arm of the table with its score, costs, latency, limits and probabilities."""
    intervals = score_intervals(joint, rng)
    draws = evidence.costs
    answer, monthly, horizon = draws.answer(), draws.per_month(), draws.horizon()
    cached = [draws.hit_share(i) for i in range(len(table.arms))]
    acceptable = evidence.acceptable().mean(axis=0)
    net_value = evidence.scores if evidence.error_usd is None else -evidence.total()
    best = np.bincount(net_value.argmax(axis=1), minlength=len(table.arms)) / len(net_value)
    regret = None if evidence.error_usd is None else evidence.regret()
    return tuple(
        Finalist(
            arm=arm.arm,
            label=costs[i].label,
            kind=costs[i].kind,
            items=joint.items,
            score=intervals[i],
            format_ok=arm.format_ok,
            repaired=arm.repaired,
            cost_per_query_usd=quantiles(answer[:, i]),
            cache_hit=None if (share := cached[i]) is None else quantiles(share),
            monthly_usd=quantiles(monthly[:, i]),
            horizon_usd=quantiles(horizon[:, i]),
            upfront_usd=quantiles(draws.upfront[:, i]),
            p50_seconds=arm.seconds_at(0.5),
            p95_seconds=arm.seconds_at(0.95),
            meets_limits=not misses[i],
            misses=misses[i],
            probability_acceptable=float(acceptable[i]),
            probability_best=float(best[i]),
            expected_regret_usd=None if regret is None else float(regret[i]),
            errors=_errors_of(arm, joint, i),
        )
        for i, arm in enumerate(table.arms)
    )


def _errors_of(arm: ArmScores, joint: JointScores, position: int) -> Errors:
    items, runs = (float(part[position, position]) for part in (joint.item_covariance, joint.seed_covariance))
    single_decodes = arm.decode_variance
    if single_decodes is None:
        return Errors(float(np.sqrt(items)), float(np.sqrt(runs)), None)
    # The noise of single decodes is in the item part; an estimate of it can exceed the whole part.
    single_decodes = min(single_decodes, items)
    decodes = float(np.sqrt(single_decodes + (runs if arm.decoded else 0.0)))
    seeds = 0.0 if arm.decoded else float(np.sqrt(runs))
    return Errors(float(np.sqrt(items - single_decodes)), seeds, decodes)


# -- limits ----------------------------------------------------------------------------------


def is_fast_enough(arm: ArmScores, limits: Limits) -> bool:
    """Return whether an arm meets the limit on latency; without measured seconds it does not."""
    if limits.p95_seconds is None:
        return True
    p95 = arm.seconds_at(0.95)
    return p95 is not None and p95 <= limits.p95_seconds


def missed_limits(arm: ArmScores, draws: CostDraws, position: int, limits: Limits) -> tuple[str, ...]:
    """Return the limits on latency, money and score that an arm does not meet, in words."""
    misses = []
    if not is_fast_enough(arm, limits):
        p95 = arm.seconds_at(0.95)
        if p95 is None:
            misses.append("limits.p95_seconds is set, but its trials have no seconds")
        else:
            misses.append(f"p95 {seconds(p95)} is over the limit of {limits.p95_seconds:g} s")
    upfront = float(np.median(draws.upfront[:, position]))
    if limits.upfront_usd is not None and upfront > limits.upfront_usd:
        misses.append(f"build cost {about_usd(upfront)} is over the limit of {about_usd(limits.upfront_usd)}")
    monthly = float(np.median(draws.per_month()[:, position]))
    if limits.monthly_usd is not None and monthly > limits.monthly_usd:
        limit = about_usd(limits.monthly_usd)
        misses.append(f"running cost {about_usd(monthly)} a month is over the limit of {limit}")
    if limits.min_score is not None and arm.scores.mean() < limits.min_score:
        misses.append(f"score {arm.scores.mean():.3f} is under the limit of {limits.min_score:g}")
    return tuple(misses)
