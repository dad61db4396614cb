"""What runs today and has to go, and which options are not worse: a test of non-inferiority."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tunepoint.costs.arm_cost import ArmCost
from tunepoint.decision.differences import Conclusion, conclude
from tunepoint.decision.rule import Evidence
from tunepoint.errors import EvidenceError
from tunepoint.stats.comparisons import compare
from tunepoint.stats.intervals import Interval
from tunepoint.stats.paired import JointScores


@dataclass(frozen=True)
class Replacement:
    """An option beside what it would replace."""

    arm: str
    difference: Interval
    """Of its mean score less that of what runs today; holds together with those of the other options."""
    conclusion: Conclusion
    """`not worse`: by the margin at most, over the whole interval."""
    probability: float
    """That it is worse by the margin at most."""
    saved_usd: float | None
    """Median dollars that it saves over the horizon, its build cost counted; negative if it costs more.

    None where nothing says what today's answers cost."""


@dataclass(frozen=True)
class Migration:
    """What has to go, and what may take its place."""

    replaced: str
    """Name of the arm."""
    margin: float
    months_left: float | None
    """Until it is shut down; None where no day is known."""
    options: tuple[Replacement, ...]
    """The likeliest not to be worse first."""


def replaced_arm(costs: Sequence[ArmCost]) -> int | None:
    """Return the position of what has to go; None where nothing does.

    Raises:
        EvidenceError: two arms have to go, so that there is not one to compare with; or no other is left.

    """
    positions = [position for position, cost in enumerate(costs) if cost.replaced]
    if len(positions) > 1:
        names = " and ".join(costs[position].arm for position in positions)
        raise EvidenceError(
            f"{names} are both to be replaced; set `replaced` of the one that is served today"
        )
    return positions[0] if positions else None


def migration_of(
    joint: JointScores, evidence: Evidence, costs: Sequence[ArmCost], rng: np.random.Generator
) -> Migration | None:
    """Return every other arm against what has to go; None where nothing does.

    Args:
        joint: distribution of the scores.
        evidence: the draws.
        costs: of the arms.
        rng: draws the critical value of the intervals, which hold for all options at once.

    """
    replaced = evidence.replaced
    if replaced is None:
        return None
    margin, horizon = evidence.limits.margin, evidence.costs.horizon()
    others = [arm for arm in range(len(costs)) if arm != replaced]
    today = costs[replaced]
    priced = today.usd_per_query.high > 0 or today.monthly_usd.high > 0 or today.dedicated is not None
    options = [
        Replacement(
            arm=costs[arm].arm,
            difference=comparison.difference,
            conclusion=conclude(comparison.difference, margin),
            probability=float((evidence.scores[:, arm] >= evidence.scores[:, replaced] - margin).mean()),
            saved_usd=float(np.median(horizon[:, replaced] - horizon[:, arm])) if priced else None,
        )
        for arm, comparison in zip(
            others, compare(joint, [(arm, replaced) for arm in others], rng), strict=True
        )
    ]
    options.sort(key=lambda option: (-option.probability, -option.difference.estimate))
    return Migration(costs[replaced].arm, margin, costs[replaced].retires_months, tuple(options))
