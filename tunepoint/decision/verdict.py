"""Trials, costs and limits in; a decision out. It cannot tell a prompt from a LoRA.

The rule and the formulas, with their sources, are in docs/decision.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Literal

import numpy as np

from tunepoint.costs.arm_cost import ArmCost
from tunepoint.costs.break_even import BreakEven
from tunepoint.costs.simulation import simulate
from tunepoint.costs.tornado import Swing, tornado
from tunepoint.decision.caveats import caveats_of, late_payback
from tunepoint.decision.differences import Difference, compare_winner
from tunepoint.decision.evidence_needed import EvidenceNeeded, evidence_needed
from tunepoint.decision.finalists import Finalist, build_finalists, is_fast_enough, missed_limits
from tunepoint.decision.futures import LearningGain, unit_prices
from tunepoint.decision.guards import capped, lost_by_format, open_variants, too_few
from tunepoint.decision.labels_needed import labels_needed
from tunepoint.decision.replacement import Migration, migration_of, replaced_arm
from tunepoint.decision.reversals import reversals
from tunepoint.decision.rule import Evidence, Risks, Strength
from tunepoint.decision.sides import rival_of, variants_of
from tunepoint.decision.simplicity import ranks_of_simplicity
from tunepoint.decision.value_of_information import ValueOfInformation, values_of_information
from tunepoint.errors import EvidenceError
from tunepoint.stats.paired import JointScores, draw_scores
from tunepoint.task.task import Task
from tunepoint.trials.judge_quality import JudgeQuality, calibrate
from tunepoint.trials.table import Table, joint_of
from tunepoint.trials.trial import ArmKind

Verdict = Literal["prompt", "fine-tune", "hybrid", "keep", "baseline", "undecided"]

DECISION_DRAWS = 4_000
"""Joint draws of scores and costs behind every probability of a decision."""
VERDICT_OF_KIND: dict[ArmKind, Verdict] = {
    "prompt": "prompt",
    "tuned": "fine-tune",
    "hybrid": "hybrid",
    "cascade": "hybrid",
    "incumbent": "keep",
    "baseline": "baseline",
}


@dataclass(frozen=True)
class Decision:
    """The verdict with its evidence; `document()` in document.py writes it to decision.json."""

    task: str
    verdict: Verdict
    strength: Strength | None
    winner: str
    risks: Risks
    finalists: tuple[Finalist, ...]
    differences: tuple[Difference, ...]
    evidence_needed: EvidenceNeeded | None
    worth: tuple[ValueOfInformation, ...]
    """What more evidence is worth; empty without `error_usd`."""
    reversal: tuple[str, ...]
    caveats: tuple[str, ...]
    items: int
    groups: int
    evidence: Evidence
    """The draws behind it all; the report's sliders recompute the verdict from them."""
    equals: tuple[str, ...] = ()
    """The other arms that do as well for the same money, of which the winner is the simplest."""
    judged: JudgeQuality | None = None
    """How good the judge is, where one gave the scores."""
    break_even: tuple[BreakEven, ...] = ()
    """The winner with every other arm."""
    rival: str | None = None
    """What has to be replaced, else the best arm on the other side of 'prompt or tune', or of all others."""
    migration: Migration | None = None
    """The options against what has to be replaced; None where nothing has to."""
    swings: tuple[Swing, ...] = ()
    """What the winner's cost over the rival's depends on, the most first."""

    def finalist(self, arm: str) -> Finalist:
        """Return the finalist of that name."""
        return next(finalist for finalist in self.finalists if finalist.arm == arm)

    @cached_property
    def titles(self) -> Mapping[str, str]:
        """Name of an arm -> what people read."""
        return {finalist.arm: finalist.title for finalist in self.finalists}


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
        rng: all randomness; a recorded decision depends on the order of the calls below that draw from it.
        caveats: what the reader should know of how the trials came about.
        growth: what more training examples bring, where a learning curve was drawn.

    Raises:
        EvidenceError: fewer than two arms or two independent groups of items.

    """
    table, judged, joint = _measured(table)
    titles, kinds = [cost.title for cost in costs], [cost.kind for cost in costs]
    evidence = evidence_of(table, costs, task, joint, rng)
    winner, prices, misses = evidence.best_bet(), unit_prices(table, costs, task), _misses(table, evidence)
    strength, guards = _guarded_strength(table, joint, evidence, winner, not misses[winner], titles)
    differences, doubts = compare_winner(joint, table, winner, task.limits.margin, titles, rng)
    finalists = build_finalists(table, costs, joint, evidence, misses, rng)
    reached = not misses[winner]
    fewer = partial(labels_needed, table, kinds, joint, evidence) if task.takes_labels else None
    what_settles = partial(evidence_needed, joint, evidence, prices, rng, titles, reached, growth, fewer)
    decision = Decision(
        task=task.name,
        verdict=VERDICT_OF_KIND[kinds[winner]] if strength else "undecided",
        strength=strength,
        winner=table.names[winner],
        risks=evidence.verdict_risks(),
        finalists=finalists,
        differences=differences,
        evidence_needed=None if strength else what_settles(),
        worth=values_of_information(joint, evidence, prices, rng, growth),
        reversal=reversals(evidence, winner, titles),
        caveats=(*caveats, *guards, *doubts, *caveats_of(table, costs, joint, misses, judged, task)),
        items=joint.items,
        groups=joint.test_groups,
        evidence=evidence,
        judged=judged,
    )
    return _with_rival(replace(decision, migration=migration_of(joint, evidence, costs, rng)), costs, task)


def _misses(table: Table, evidence: Evidence) -> list[tuple[str, ...]]:
    """Why each arm cannot be chosen, in words; empty for those that can."""
    limits = [missed_limits(arm, evidence.costs, i, evidence.limits) for i, arm in enumerate(table.arms)]
    if evidence.replaced is not None:
        limits[evidence.replaced] = (*limits[evidence.replaced], "it has to be replaced")
    return limits


def _with_rival(decision: Decision, costs: Sequence[ArmCost], task: Task) -> Decision:
    """The decision with its equals, the break-evens, and what the winner costs over its rival."""
    names, estimates = decision.evidence.costs.arms, decision.evidence.estimates.tolist()
    winner = names.index(decision.winner)
    rival = decision.evidence.replaced
    if rival is None:
        rival = rival_of([cost.kind for cost in costs], estimates, winner)
    crossings = _break_evens(decision.evidence, winner)
    late = late_payback(crossings, decision.winner, decision.titles)
    return replace(
        decision,
        equals=tuple(names[arm] for arm in sorted(decision.evidence.equals()) if arm != winner),
        break_even=crossings,
        rival=names[rival],
        swings=tornado(costs, task, winner, rival),
        caveats=(*decision.caveats, *late),
    )


def _measured(table: Table) -> tuple[Table, JudgeQuality | None, JointScores]:
    """Scores with a judge's corrected, how good the judge is, and the joint distribution of the means."""
    if len(table.arms) < 2:
        raise EvidenceError(f"a decision compares at least 2 arms, got {len(table.arms)}")
    table, judged = calibrate(table)
    return table, judged, joint_of(table)


def _guarded_strength(
    table: Table,
    joint: JointScores,
    evidence: Evidence,
    winner: int,
    reachable: bool,
    titles: Sequence[str],
) -> tuple[Strength | None, list[str]]:
    """The strength that the risks and the guards of honesty allow, and the guards' caveats."""
    few, unfair = too_few(joint.test_groups), lost_by_format(table, evidence, winner, titles)
    opened = open_variants(evidence, winner, titles)
    strength = None if few or not reachable else capped(evidence.verdict_strength(), [*unfair, *opened])
    return strength, [*few, *unfair, *opened]


def evidence_of(
    table: Table, costs: Sequence[ArmCost], task: Task, joint: JointScores, rng: np.random.Generator
) -> Evidence:
    """Draw scores and costs, and find the arms that are fast enough: all that the rule looks at."""
    cost_draws, wide = simulate(costs, task, DECISION_DRAWS, rng), joint.at_all_looks
    return Evidence(
        scores=draw_scores(joint, DECISION_DRAWS, rng),
        estimates=joint.estimates,
        costs=cost_draws,
        fast=np.array([is_fast_enough(arm, task.limits) for arm in table.arms]),
        limits=task.limits,
        materiality=task.value.materiality,
        error_usd=task.value.error_usd,
        simplicity=ranks_of_simplicity(table, costs),
        sides=variants_of([cost.kind for cost in costs], table.names),
        replaced=replaced_arm(costs),
        at_all_looks=None if wide is None else evidence_of(table, costs, task, wide, rng),
    )


def _break_evens(evidence: Evidence, winner: int) -> tuple[BreakEven, ...]:
    """The winner with every other arm."""
    names = evidence.costs.arms
    return tuple(evidence.break_even(names[winner], name) for name in names if name != names[winner])
