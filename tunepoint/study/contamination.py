"""Test items with a near duplicate outside the test, and the verdict without them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from tunepoint.costs.arm_cost import ArmCost
from tunepoint.data.prepare import Prepared
from tunepoint.decision.guards import capped, twins_decide
from tunepoint.decision.verdict import Decision, decide
from tunepoint.errors import EvidenceError
from tunepoint.stats.intervals import Interval
from tunepoint.stats.streams import Stream, stream
from tunepoint.task.task import Task
from tunepoint.trials.table import Table


@dataclass(frozen=True)
class Contamination:
    """How much the test resembles what arms learned from, and what is decided without that part."""

    items: int = 0
    """Test items with a near duplicate outside the test."""
    scores: Mapping[str, Interval] | None = None
    """Name of an arm -> its score without those items; None where nothing was decided without them."""
    verdict: str | None = None
    """Without those items."""
    winner: str | None = None
    """Without those items."""
    why_not: str | None = None
    """Why nothing was decided without them."""

    def content(self) -> dict[str, Any]:
        """Return the `contamination` of decision.json."""
        content: dict[str, Any] = {"test_items_with_near_twin": self.items, "score_without_them": {}}
        if self.why_not is not None:
            return {**content, "why_not": self.why_not}
        if self.scores is None:
            return content
        return {
            **content,
            "score_without_them": {arm: asdict(score) for arm, score in self.scores.items()},
            "verdict_without_them": self.verdict,
            "winner_without_them": self.winner,
        }


def contamination(
    table: Table, costs: Sequence[ArmCost], task: Task, prepared: Prepared, seed: int
) -> Contamination:
    """Find the test items with a near duplicate outside the test, and decide without them."""
    twins = prepared.split.certificate.twins
    keep = np.array([item not in twins for item in table.items])
    items = int((~keep).sum())
    if not items:
        return Contamination()
    try:
        # the same draws as the decision itself, so that only the items can make a difference
        kept = replace(table.subset(keep), pool=table.pool)
        clean = decide(kept, costs, task, stream(seed, Stream.DECISION))
    except EvidenceError as error:
        return Contamination(items, why_not=str(error))
    scores = {finalist.arm: finalist.score for finalist in clean.finalists}
    return Contamination(items, scores, clean.verdict, clean.winner)


def without_copies(decision: Decision, copies: Contamination) -> Decision:
    """Return the decision, not confident where it changes once near duplicates leave the test."""
    doubts = twins_decide(
        decision.verdict, decision.winner, copies.verdict, copies.winner, decision.titles, decision.equals
    )
    caveats = (*doubts, *decision.caveats)
    return replace(decision, strength=capped(decision.strength, doubts), caveats=caveats)
