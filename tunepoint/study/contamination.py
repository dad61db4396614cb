"""Test items with a near duplicate outside the test, and the verdict without them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from tunepoint.costs.arm_cost import ArmCost
from tunepoint.data.prepare import Prepared
from tunepoint.decision.guards import capped, twins_decide
from tunepoint.decision.verdict import Decision, decide
from tunepoint.errors import EvidenceError
from tunepoint.stats.streams import Stream, stream
from tunepoint.task.task import Task
from tunepoint.trials.table import Table


def contamination(
    table: Table, costs: Sequence[ArmCost], task: Task, prepared: Prepared, seed: int
) -> dict[str, Any]:
    """Test items with a near duplicate outside the test, and the verdict without them."""
    twins = prepared.split.certificate.twins
    keep = np.array([item not in twins for item in table.items])
    found: dict[str, Any] = {"test_items_with_near_twin": int((~keep).sum()), "score_without_them": {}}
    if keep.all():
        return found
    rest = table.only(keep)
    try:
        clean = decide(rest, costs, task, stream(seed, Stream.DECISION))
    except EvidenceError as error:
        return {**found, "why_not": str(error)}
    scores = {f.arm: asdict(f.score) for f in clean.finalists}
    return {
        **found,
        "score_without_them": scores,
        "verdict_without_them": clean.verdict,
        "winner_without_them": clean.winner,
    }


def without_copies(decision: Decision, copies: Mapping[str, Any]) -> Decision:
    """The decision, not confident where it changes once near duplicates of train leave the test."""
    clean = copies.get("verdict_without_them"), copies.get("winner_without_them")
    doubts = twins_decide(decision.verdict, decision.winner, *clean)
    caveats = (*doubts, *decision.caveats)
    return replace(decision, strength=capped(decision.strength, doubts), caveats=caveats)
