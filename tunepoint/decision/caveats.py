"""What the reader of a verdict should know before believing it."""

from __future__ import annotations

from collections.abc import Sequence

from tunepoint.costs.arm_cost import ArmCost
from tunepoint.costs.break_even import BreakEven
from tunepoint.stats.paired import JointScores
from tunepoint.task.task import Task
from tunepoint.trials.judge_quality import JudgeQuality, judge_caveats
from tunepoint.trials.table import ArmScores, Table

SHOWN = 3
"""Failed items that a caveat names."""


def caveats_of(
    table: Table,
    costs: Sequence[ArmCost],
    joint: JointScores,
    misses: Sequence[tuple[str, ...]],
    judged: JudgeQuality | None,
    task: Task,
) -> list[str]:
    """What is doubtful about the evidence, in words."""
    found = [*judge_caveats(judged, task.limits.margin), *(note for cost in costs for note in cost.notes)]
    if table.left_out:
        found.append(f"{table.left_out} items were left out: some arm or seed has no trial of them")
    if joint.estimates.max() < 0.05:
        found.append(
            f"the best score is {joint.estimates.max():.3f}: before you believe it, check the item names, "
            "the targets and the scorer"
        )
    if joint.groups < 30:
        found.append(f"only {joint.groups} independent groups of test items: intervals are rough")
    for arm, cost in zip(table.arms, costs, strict=True):
        trained = cost.kind in ("tuned", "hybrid", "cascade")
        if trained and len(arm.seeds) == 1 and not cost.deterministic:
            found.append(f"{arm.arm}: one training seed, its seed variance is not in the interval")
        if arm.decoded and len(arm.runs) == 2:
            found.append(
                f"{arm.arm}: two decodes say next to nothing of what a whole run moves, and widen its "
                "interval; three and more narrow it"
            )
        found += _format_caveats(arm)
    if all(misses):
        found.append(
            "no arm meets every limit: "
            + "; ".join(f"{arm.arm}: {', '.join(m)}" for arm, m in zip(table.arms, misses, strict=True))
        )
    return found


LATE = 0.5
"""Probability of no payback from which the reader is told."""


def late_payback(crossings: Sequence[BreakEven], winner: str) -> list[str]:
    """Arms over which the winner cost more to build, and whose difference it earns back too late."""
    found = []
    for one in crossings:
        lifetime, late = one.lifetime_days, one.probability_no_payback
        if one.dearer_to_build != winner or lifetime is None or late <= LATE:
            continue
        other = next(arm for arm in (one.cheaper_to_build, one.cheaper_to_run) if arm != winner)
        found.append(
            f"{winner} has no payback against {other}: what it costs more to build is not earned back before "
            f"its base model retires in {lifetime:,.0f} days in {late:.0%} of draws"
        )
    return found


def _format_caveats(arm: ArmScores) -> list[str]:
    """What the reader should know about answers that could not be read."""
    found = []
    if arm.format_ok < 1:
        more = f"; and {len(arm.failures) - SHOWN} more" if len(arm.failures) > SHOWN else ""
        why = f" ({'; '.join(arm.failures[:SHOWN])}{more})" if arm.failures else ""
        found.append(
            f"{arm.arm}: {1 - arm.format_ok:.1%} of its answers did not parse and count as wrong{why}; a "
            "format failure is not an inability: repair it before it loses"
        )
    if arm.repaired >= 0.02:
        before = 1 - arm.format_ok + arm.repaired
        found.append(
            f"{arm.arm}: {before:.1%} of its answers could not be read at first, {arm.repaired:.1%} only "
            "at the second attempt; its score is after the repair, and its cost counts both calls"
        )
    return found
