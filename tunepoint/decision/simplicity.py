"""Which of two equal arms is the simpler one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tunepoint.costs.arm_cost import ArmCost
from tunepoint.trials.table import ArmScores, Table
from tunepoint.trials.trial import ArmKind

SIMPLEST_FIRST: tuple[ArmKind, ...] = ("incumbent", "baseline", "prompt", "tuned", "hybrid", "cascade")
"""What runs today changes nothing; a control needs no language model; two models are the most to keep."""


def ranks_of_simplicity(table: Table, costs: Sequence[ArmCost]) -> tuple[int, ...]:
    """Return the rank of each arm: by kind, then fewer tokens an answer, then the lower p95.

    An arm whose tokens nobody counted reads none, as an encoder of this machine does; one without
    measured seconds comes after those that have them.
    """
    keys = [
        (SIMPLEST_FIRST.index(cost.kind), _tokens(arm), _p95(arm), position)
        for position, (arm, cost) in enumerate(zip(table.arms, costs, strict=True))
    ]
    rank_of = {key: rank for rank, key in enumerate(sorted(keys))}
    return tuple(rank_of[key] for key in keys)


def _tokens(arm: ArmScores) -> float:
    """Mean input and output tokens of an answer."""
    counts = arm.tokens[:, [0, 2]] if len(arm.tokens) else np.zeros((1, 2))
    return float(np.nan_to_num(counts).sum(axis=1).mean())


def _p95(arm: ArmScores) -> float:
    return float(np.quantile(arm.seconds, 0.95)) if len(arm.seconds) else float("inf")
