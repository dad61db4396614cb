"""What the reader of a verdict should know of labels where the options disagree."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tunepoint.decision.numbers import percent
from tunepoint.stats.disagreements import MIN_LABELLED_GROUPS, PoolScores, difference_p_value
from tunepoint.study.labelling.labels import agreement, read_labels
from tunepoint.trials.table import Table, joint_of

ANOTHER_POOL = 0.01
"""p-value of "the pool shows the same differences as the test set" below which it is in doubt."""
LOW_KAPPA = 0.6
"""Agreement beyond chance below which two people do not mean the same by a label (Landis and Koch 1977)."""


def labelling_caveats(table: Table, folder: Path) -> list[str]:
    """Return what the labels of a pool are, and what is doubtful about them; empty without any."""
    pool = table.pool
    if pool is None:
        return []
    labels = len(pool.labelled)
    if pool.labelled_groups < MIN_LABELLED_GROUPS:
        return [
            f"{labels} labels of inputs on which the options disagree do not count yet: from "
            f"{MIN_LABELLED_GROUPS} groups of inputs on they do."
        ]
    caveats = [
        f"{labels} labels outside the test set count too. The options gave the same answer to "
        f"{percent(1 - pool.disagreement)} of {len(pool.strata):,} inputs without a label, and only the "
        "others were labeled. The intervals hold however often you looked."
    ]
    return [*caveats, *_another_pool(table, pool), *_kappa(folder)]


def _another_pool(table: Table, pool: PoolScores) -> list[str]:
    p_value = difference_p_value(joint_of(replace(table, pool=None)), pool)
    if p_value >= ANOTHER_POOL:
        return []
    return [
        f"The pool and the test set show different differences between the options (p = {p_value:.2g}). "
        "Perhaps the pool is of another time or source. If it is what production looks like, label a new "
        "test set from it; if not, give a pool like the test set."
    ]


def _kappa(folder: Path) -> list[str]:
    agreed = agreement(read_labels(folder))
    if agreed is None or agreed.kappa is None or agreed.kappa >= LOW_KAPPA:
        return []
    return [
        f"Two people agree on {percent(agreed.share)} of {agreed.inputs} inputs that both labeled (kappa "
        f"{agreed.kappa:.2f}). Wrong labels make options look alike: settle what the labels mean, and label "
        "those inputs again."
    ]
