"""What the reader of a verdict should know before believing it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tunepoint.costs.arm_cost import ArmCost
from tunepoint.costs.break_even import BreakEven
from tunepoint.decision.numbers import percent
from tunepoint.stats.paired import JointScores
from tunepoint.task.task import Task
from tunepoint.trials.judge_caveats import judge_caveats
from tunepoint.trials.judge_quality import JudgeQuality
from tunepoint.trials.table import ArmScores, Table

MAX_FAILURES_NAMED = 3
"""Failed items that a caveat names."""
IMPLAUSIBLE_SCORE = 0.05
"""Best score below which the setup is more likely wrong than every arm."""
ROUGH_GROUPS = 30
"""Independent groups of test items below which intervals are called rough."""
MIN_REPAIRED = 0.02
"""Share of repaired answers from which the reader is told."""
LATE_PAYBACK_PROBABILITY = 0.5
"""Probability of no payback from which the reader is told."""


def caveats_of(
    table: Table,
    costs: Sequence[ArmCost],
    joint: JointScores,
    misses: Sequence[tuple[str, ...]],
    judged: JudgeQuality | None,
    task: Task,
) -> list[str]:
    """Return what is doubtful about the evidence, in words."""
    caveats = [*judge_caveats(judged, task.limits.margin), *(note for cost in costs for note in cost.notes)]
    caveats += _test_caveats(table, joint)
    for arm, cost in zip(table.arms, costs, strict=True):
        caveats += [*_repeat_caveats(arm, cost), *_format_caveats(arm, cost.title)]
    if all(misses):
        by_arm = (f"{cost.title}: {', '.join(missed)}" for cost, missed in zip(costs, misses, strict=True))
        caveats.append(f"No option meets every limit. {'; '.join(by_arm)}.")
    return caveats


def _test_caveats(table: Table, joint: JointScores) -> list[str]:
    caveats = []
    if table.left_out:
        caveats.append(
            f"Left out {table.left_out} test items: some option or training seed has no result for them."
        )
    best = joint.estimates.max()
    if best < IMPLAUSIBLE_SCORE:
        caveats.append(
            f"The best score is only {percent(best)}. Before you believe it, check the item names, the "
            "right answers and the scorer."
        )
    if joint.test_groups < ROUGH_GROUPS:
        caveats.append(f"Only {joint.test_groups} independent groups of test items: the intervals are rough.")
    return caveats


def _repeat_caveats(arm: ArmScores, cost: ArmCost) -> list[str]:
    """Repeats that are missing, of training or of answering."""
    caveats = []
    trained = cost.kind in ("tuned", "hybrid", "cascade")
    if trained and len(arm.seeds) == 1 and not cost.deterministic:
        caveats.append(
            f"{cost.title}: one training seed, so the interval does not show how much another seed would "
            "change the score."
        )
    if arm.decoded and len(arm.runs) == 2:
        caveats.append(
            f"{cost.title}: two decodes hardly tell how much whole runs differ, which widens the interval; "
            "three or more narrow it."
        )
    return caveats


def _format_caveats(arm: ArmScores, title: str) -> list[str]:
    """Answers that could not be read."""
    caveats = []
    if arm.format_ok < 1:
        caveats.append(
            f"{title}: {percent(1 - arm.format_ok)} of its answers did not parse and count as "
            f"wrong{_failures(arm)}. A format failure is not an inability: repair the format before you drop "
            "this option."
        )
    if arm.repaired >= MIN_REPAIRED:
        first_time = 1 - arm.format_ok + arm.repaired
        caveats.append(
            f"{title}: {percent(first_time)} of its answers could not be read at first, "
            f"{percent(arm.repaired)} only at the second attempt. The score is after the repair, and the "
            "cost counts both calls."
        )
    return caveats


def _failures(arm: ArmScores) -> str:
    """The first answers that failed, in parentheses."""
    if not arm.failures:
        return ""
    named, rest = arm.failures[:MAX_FAILURES_NAMED], len(arm.failures) - MAX_FAILURES_NAMED
    return f" ({'; '.join(named)}{f'; and {rest} more' if rest > 0 else ''})"


def late_payback(
    crossings: Sequence[BreakEven], winner: str, titles: Mapping[str, str] | None = None
) -> list[str]:
    """Return a caveat for each arm against which the winner earns its building cost back too late."""
    titles, caveats = titles or {}, []
    for crossing in crossings:
        lifetime, late = crossing.lifetime_days, crossing.probability_no_payback
        if crossing.dearer_to_build != winner or lifetime is None or late <= LATE_PAYBACK_PROBABILITY:
            continue
        pair = (crossing.cheaper_to_build, crossing.cheaper_to_run)
        other = pair[1] if pair[0] == winner else pair[0]
        caveats.append(
            f"{titles.get(winner, winner)} has no payback against {titles.get(other, other)} in {late:.0%} "
            f"of the simulations: its base model retires in {lifetime:,.0f} days, before the higher build "
            "cost is earned back."
        )
    return caveats
