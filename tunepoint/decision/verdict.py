"""Trials, costs and limits in; a decision out. It cannot tell a prompt from a LoRA.

The rule and the formulas, with their sources, are in docs/decision.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from tunepoint.costs.arm_cost import ArmCost
from tunepoint.costs.break_even import BreakEven
from tunepoint.costs.simulation import CostDraws, simulate
from tunepoint.costs.tornado import Swing, tornado
from tunepoint.decision.caveats import caveats_of, late_payback
from tunepoint.decision.evidence_needed import EvidenceNeeded, evidence_needed
from tunepoint.decision.futures import LearningGain, unit_prices
from tunepoint.decision.guards import capped, lost_by_format, repeats_differ, too_few
from tunepoint.decision.reversals import reversals
from tunepoint.decision.rule import Evidence, Risks, Strength
from tunepoint.decision.value_of_information import ValueOfInformation, values_of_information
from tunepoint.errors import EvidenceError
from tunepoint.stats.arrays import Floats
from tunepoint.stats.intervals import Interval
from tunepoint.stats.paired import JointScores, compare, draw_scores, holm, score_intervals, seed_errors
from tunepoint.stats.ranges import Quantiles, quantiles
from tunepoint.stats.resampling import bootstrap_means, spread_ratio
from tunepoint.task.assumptions import Limits
from tunepoint.task.task import Task
from tunepoint.trials.judge_quality import JudgeQuality, calibrate
from tunepoint.trials.table import ArmScores, Table, joint_of
from tunepoint.trials.trial import ArmKind

Verdict = Literal["prompt", "fine-tune", "hybrid", "keep", "undecided"]
Conclusion = Literal["better", "worse", "not worse", "unresolved"]

DRAWS = 4_000
RESAMPLES = 10_000
MOST_RESAMPLED = 50_000_000
"""Groups that the bootstrap draws at most; more than 5,000 groups are resampled less often."""
DISAGREES = 1.2
"""Ratio of standard errors from which the reader is told that bootstrap and formula disagree."""
VERDICTS: dict[ArmKind, Verdict] = {
    "prompt": "prompt",
    "tuned": "fine-tune",
    "hybrid": "hybrid",
    "cascade": "hybrid",
    "incumbent": "keep",
}


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


@dataclass(frozen=True)
class Difference:
    """Paired difference in mean score."""

    arm: str
    against: str
    difference: Interval
    """Holds together with those of all other pairs."""
    conclusion: Conclusion
    bootstrap: Interval
    """Of this pair alone, by the cluster bootstrap of the items and draws of the training seeds."""
    p_holm: float
    """That there is no difference, adjusted for the differences that are reported (Holm)."""


@dataclass(frozen=True)
class Decision:
    """The verdict with its evidence; `document()` in documents.py writes it to decision.json."""

    task: str
    verdict: Verdict
    strength: Strength | None
    winner: str
    risks: Risks
    finalists: tuple[Finalist, ...]
    differences: tuple[Difference, ...]
    break_even: tuple[BreakEven, ...]
    evidence_needed: EvidenceNeeded | None
    worth: tuple[ValueOfInformation, ...]
    """What more evidence is worth; empty without `error_usd`."""
    reversal: tuple[str, ...]
    caveats: tuple[str, ...]
    items: int
    groups: int
    evidence: Evidence
    """The draws behind it all; the report's sliders recompute the verdict from them."""
    judged: JudgeQuality | None = None
    """How good the judge is, where one gave the scores."""
    rival: str | None = None
    """The best arm on the other side of 'prompt or tune', or the best of all others."""
    swings: tuple[Swing, ...] = ()
    """What the winner's cost over the rival's depends on, the most first."""

    def finalist(self, arm: str) -> Finalist:
        """The finalist of that name."""
        return next(finalist for finalist in self.finalists if finalist.arm == arm)


def decide(
    table: Table,
    costs: Sequence[ArmCost],
    task: Task,
    rng: np.random.Generator,
    *,
    caveats: Sequence[str] = (),
    growth: LearningGain | None = None,
) -> Decision:
    """Compare arms measured on the same items and name the best bet.

    Args:
        costs: one for each arm of the table, in the same order.
        task: limits, value, traffic and rates.
        rng: all randomness; the same generator gives the same decision.
        growth: what more training examples bring, where a learning curve was drawn.

    Raises:
        EvidenceError: fewer than two arms or two independent groups of items.

    """
    table, judged, joint = _measured(table)
    evidence = evidence_of(table, costs, task, joint, rng)
    winner = evidence.best()
    misses = [_misses(arm, evidence.costs, i, task.limits) for i, arm in enumerate(table.arms)]
    risks, unfair = evidence.risks_of(winner), lost_by_format(table, evidence, winner)
    strength = None if (few := too_few(joint.groups)) or misses[winner] else capped(risks.strength, unfair)
    differences, doubts = _differences(joint, table, winner, task.limits.margin, rng)
    known = joint, evidence, unit_prices(table, costs, task), rng
    finalists = _finalists(table, costs, joint, evidence, misses, rng)  # before growth takes from rng
    needed = None if strength else evidence_needed(*known, reachable=not misses[winner], growth=growth)
    decision = Decision(
        task=task.name,
        verdict=VERDICTS[costs[winner].kind] if strength else "undecided",
        strength=strength,
        winner=table.names[winner],
        risks=risks,
        finalists=finalists,
        differences=differences,
        break_even=_break_evens(evidence, table.names, winner),
        evidence_needed=needed,
        worth=values_of_information(*known, growth),
        reversal=reversals(evidence, winner),
        caveats=(*caveats, *few, *unfair, *doubts, *caveats_of(table, costs, joint, misses, judged, task)),
        items=joint.items,
        groups=joint.groups,
        evidence=evidence,
        judged=judged,
    )
    return _with_rival(decision, costs, task)


def _with_rival(decision: Decision, costs: Sequence[ArmCost], task: Task) -> Decision:
    """The decision with what the winner costs over its rival, and whether it pays back in time."""
    names = decision.evidence.costs.arms
    winner = names.index(decision.winner)
    rival = _rival(costs, decision.evidence.estimates, winner)
    caveats = (*decision.caveats, *late_payback(decision.break_even, decision.winner))
    swings = tornado(costs, task, winner, rival)
    return replace(decision, rival=names[rival], swings=swings, caveats=caveats)


def _rival(costs: Sequence[ArmCost], estimates: Floats, winner: int) -> int:
    """The best arm on the other side of 'prompt or tune', or the best of all others; by position."""

    def prompted(arm: int) -> bool:
        return VERDICTS[costs[arm].kind] in ("prompt", "keep")

    others = [arm for arm in range(len(costs)) if arm != winner]
    across = [arm for arm in others if prompted(arm) != prompted(winner)]
    return max(across or others, key=lambda arm: float(estimates[arm]))


def evidence_of(
    table: Table, costs: Sequence[ArmCost], task: Task, joint: JointScores, rng: np.random.Generator
) -> Evidence:
    """Draws of scores and costs, and which arms are fast enough: all that the rule looks at."""
    draws = simulate(costs, task, DRAWS, rng)
    fast = np.array([_fast_enough(arm, task.limits) for arm in table.arms])
    scores, value = draw_scores(joint, DRAWS, rng), task.value
    return Evidence(scores, joint.estimates, draws, fast, task.limits, value.materiality, value.error_usd)


def _break_evens(evidence: Evidence, names: Sequence[str], winner: int) -> tuple[BreakEven, ...]:
    """The winner against every other arm."""
    others = [name for name in names if name != names[winner]]
    return tuple(evidence.break_even(names[winner], name) for name in others)


def _measured(table: Table) -> tuple[Table, JudgeQuality | None, JointScores]:
    """Scores with a judge's corrected, how good the judge is, and the joint distribution of the means."""
    if len(table.arms) < 2:
        raise EvidenceError(f"a decision compares at least 2 arms, got {len(table.arms)}")
    table, judged = calibrate(table)
    return table, judged, joint_of(table)


def _fast_enough(arm: ArmScores, limits: Limits) -> bool:
    if limits.p95_seconds is None:
        return True
    return len(arm.seconds) > 0 and float(np.quantile(arm.seconds, 0.95)) <= limits.p95_seconds


def _misses(arm: ArmScores, draws: CostDraws, position: int, limits: Limits) -> tuple[str, ...]:
    """Limits on latency and money that an arm does not meet, in words."""
    found = []
    if limits.p95_seconds is not None:
        if not len(arm.seconds):
            found.append("p95_seconds is limited, but its trials have no seconds")
        elif (p95 := float(np.quantile(arm.seconds, 0.95))) > limits.p95_seconds:
            found.append(f"p95 of {p95:.3g} s is over {limits.p95_seconds:g} s")
    upfront = float(np.median(draws.upfront[:, position]))
    if limits.upfront_usd is not None and upfront > limits.upfront_usd:
        found.append(f"${upfront:,.0f} upfront is over ${limits.upfront_usd:,.0f}")
    monthly = float(np.median(draws.per_month()[:, position]))
    if limits.monthly_usd is not None and monthly > limits.monthly_usd:
        found.append(f"${monthly:,.2f} a month is over ${limits.monthly_usd:,.0f}")
    if limits.min_score is not None and arm.scores.mean() < limits.min_score:
        found.append(f"score {arm.scores.mean():.3f} is under {limits.min_score:g}")
    return tuple(found)


def _finalists(
    table: Table,
    costs: Sequence[ArmCost],
    joint: JointScores,
    evidence: Evidence,
    misses: Sequence[tuple[str, ...]],
    rng: np.random.Generator,
) -> tuple[Finalist, ...]:
    intervals = score_intervals(joint, rng)
    draws = evidence.costs
    monthly, horizon = draws.per_month(), draws.horizon()
    acceptable = evidence.acceptable().mean(axis=0)
    value = evidence.scores if evidence.error_usd is None else -evidence.total()
    best = np.bincount(value.argmax(axis=1), minlength=len(table.arms)) / len(value)
    regret = None if evidence.error_usd is None else evidence.regret()
    return tuple(
        Finalist(
            arm=arm.arm,
            kind=costs[i].kind,
            items=joint.items,
            score=intervals[i],
            format_ok=arm.format_ok,
            repaired=arm.repaired,
            cost_per_query_usd=quantiles(draws.per_query[:, i]),
            monthly_usd=quantiles(monthly[:, i]),
            horizon_usd=quantiles(horizon[:, i]),
            upfront_usd=quantiles(draws.upfront[:, i]),
            p50_seconds=_quantile(arm.seconds, 0.5),
            p95_seconds=_quantile(arm.seconds, 0.95),
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
    """Where the uncertainty of a score comes from."""
    items, runs = (float(part[position, position]) for part in (joint.item_covariance, joint.seed_covariance))
    single = arm.decode_variance
    if single is None:
        return Errors(float(np.sqrt(items)), float(np.sqrt(runs)), None)
    single = min(single, items)
    decodes = float(np.sqrt(single + (runs if arm.decoded else 0.0)))
    return Errors(float(np.sqrt(items - single)), 0.0 if arm.decoded else float(np.sqrt(runs)), decodes)


def _quantile(values: Floats, probability: float) -> float | None:
    return float(np.quantile(values, probability)) if len(values) else None


def _differences(
    joint: JointScores,
    table: Table,
    winner: int,
    margin: float,
    rng: np.random.Generator,
) -> tuple[tuple[Difference, ...], list[str]]:
    """The winner against every other arm, and caveats; the intervals hold for all pairs at once."""
    names, count = table.names, len(table.arms)
    pairs = [(winner, other) for other in range(count) if other != winner]
    rest = [(i, j) for i in range(count) for j in range(i) if winner not in (i, j)]
    found = compare(joint, pairs, rng, beside=rest)
    p_values = holm([one.p_value for one in found])
    times = max(1_000, min(RESAMPLES, MOST_RESAMPLED // joint.groups))
    resampled = bootstrap_means(joint, times, rng)
    with_seeds = resampled + seed_errors(joint, times, rng)
    low, high = np.quantile(with_seeds[:, [winner]] - with_seeds, [0.025, 0.975], axis=0).clip(-1, 1)
    differences, caveats = [], []
    few_groups = bool(too_few(joint.groups))
    for one, p_value in zip(found, p_values, strict=True):
        mean, other = one.difference.estimate, one.against
        bootstrap = Interval(mean, min(mean, float(low[other])), max(mean, float(high[other])))
        if few_groups:  # they cannot be resampled into what they have not shown
            bootstrap = one.difference
        conclusion = _conclude(one.difference, margin)
        differences.append(
            Difference(names[winner], names[other], one.difference, conclusion, bootstrap, p_value)
        )
        if not few_groups and (ratio := spread_ratio(joint, resampled, winner, other)) > DISAGREES:
            caveats.append(
                f"{names[winner]} against {names[other]}: the bootstrap's standard error is {ratio:.2f} "
                "times the analytic one; a few large groups of items decide, and the interval is too short"
            )
    return tuple(differences), [*caveats, *repeats_differ(table, rng)]


def _conclude(difference: Interval, margin: float) -> Conclusion:
    if difference.low > 0:
        return "better"
    if difference.high < 0:
        return "worse"
    return "not worse" if difference.low > -margin else "unresolved"
