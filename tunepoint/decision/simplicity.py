"""Which of two equal arms is the simpler one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tunepoint.costs.arm_cost import ArmCost
from tunepoint.decision.sides import PROMPTED_KINDS
from tunepoint.trials.table import ArmScores, Table
from tunepoint.trials.trial import ArmKind

SIMPLEST_FIRST: tuple[ArmKind, ...] = ("incumbent", "baseline", "prompt", "tuned", "hybrid", "cascade")
"""What runs today changes nothing; a control needs no language model; two models are the most to keep."""


def ranks_of_simplicity(table: Table, costs: Sequence[ArmCost]) -> tuple[int, ...]:
    """Return the rank of each arm: by kind, then fewer tokens an answer, then the lower p95.

    An arm of this machine whose tokens nobody counted reads none, as an encoder does. A prompt whose server
    counts none, and an arm without measured seconds, come after those that have them.
    """
    keys = [
        (SIMPLEST_FIRST.index(cost.kind), _tokens(arm, cost.kind), _p95(arm), position)
        for position, (arm, cost) in enumerate(zip(table.arms, costs, strict=True))
    ]
    rank_of = {key: rank for rank, key in enumerate(sorted(keys))}
    return tuple(rank_of[key] for key in keys)


def _tokens(arm: ArmScores, kind: ArmKind) -> float:
    """Mean input and output tokens of the answers whose tokens were counted."""
    counts = arm.tokens[:, [0, 2]].sum(axis=1) if len(arm.tokens) else np.zeros(0)
    known = counts[~np.isnan(counts)]
    if len(known):
        return float(known.mean())
    return float("inf") if kind in PROMPTED_KINDS else 0.0


def _p95(arm: ArmScores) -> float:
    p95 = arm.seconds_at(0.95)
    return float("inf") if p95 is None else p95
