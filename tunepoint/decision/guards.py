"""Honesty guards: what may not decide a study, and what caps the strength of a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np

from tunepoint.decision.rule import Evidence, Strength
from tunepoint.stats.comparisons import compare
from tunepoint.stats.paired import joint_scores
from tunepoint.trials.table import ArmScores, Table

MIN_FORMAT_FAILURES = 0.02
"""Share of unreadable answers from which an arm may have lost for its format alone."""


def capped(strength: Strength | None, doubts: Sequence[str]) -> Strength | None:
    """No verdict is confident while one of these doubts stands."""
    return "leaning" if doubts and strength == "confident" else strength


MIN_GROUPS = 8
"""Independent groups of test items without which there is no verdict: fewer exclude nothing."""


def too_few(groups: int) -> list[str]:
    """Whether there are too few independent groups of test items for any verdict."""
    if groups >= MIN_GROUPS:
        return []
    return [
        f"{groups} independent groups of test items decide nothing, whatever they show: {MIN_GROUPS} at "
        "least, and some hundreds for a small difference"
    ]


def lost_by_format(table: Table, evidence: Evidence, winner: int) -> list[str]:
    """Arms that would win if the answers that nobody could read were as good as the others.

    A format failure is not an inability: such an arm was to be repaired (schema, JSON mode, another
    wording) before it may lose. One that was repaired, or whose failures stand after a repair, lost fairly.
    """
    found = []
    for position, arm in enumerate(table.arms):
        if position == winner or 1 - arm.format_ok < MIN_FORMAT_FAILURES or arm.repaired > 0 or arm.format_ok == 0:
            continue
        scores, estimates = evidence.scores.copy(), evidence.estimates.copy()
        scores[:, position] /= arm.format_ok
        estimates[position] = min(1.0, estimates[position] / arm.format_ok)
        repaired = replace(evidence, scores=scores, estimates=estimates)
        if repaired.best() == position:
            found.append(
                f"{arm.arm} loses by its format: {1 - arm.format_ok:.1%} of its answers could not be read "
                "and nobody repaired them; were they as good as the others it would be chosen. Ask for them "
                "again (a schema, JSON mode, another wording) before you believe this verdict"
            )
    return found


def repeats_differ(table: Table, rng: np.random.Generator) -> list[str]:
    """Arms whose own repeats differ on the same items by more than the items explain (A/A)."""
    found = []
    for arm in table.arms:
        if len(arm.runs) < 2 or arm.human is not None:
            continue
        worst = _widest(arm, table, rng)
        if worst is not None:
            found.append(
                f"{arm.arm}: {worst}; so much of a difference between arms can be "
                f"{'the decoding' if arm.decoded else 'the seed'}, and the "
                "intervals count it"
            )
    return found


def _widest(arm: ArmScores, table: Table, rng: np.random.Generator) -> str | None:
    """The largest difference of two repeats of an arm that the items do not explain."""
    joint = joint_scores([run[None] for run in arm.runs], table.clusters)
    pairs = list(combinations(range(len(arm.runs)), 2))
    clear = [c for c in compare(joint, pairs, rng) if 0 not in c.difference]
    if not clear:
        return None
    one = max(clear, key=lambda c: abs(c.difference.estimate))
    low, high = one.difference.low, one.difference.high
    names = f"decodes {one.arm + 1} and {one.against + 1}"
    if not arm.decoded:
        names = f"seeds {arm.seeds[one.arm]} and {arm.seeds[one.against]}"
    return f"{names} differ by {one.difference.estimate:+.3f} ({low:+.3f} to {high:+.3f}) on the same items"


def twins_decide(verdict: str, winner: str, clean_verdict: str | None, clean_winner: str | None) -> list[str]:
    """Whether the verdict rests on test items that have a near duplicate outside the test."""
    if clean_verdict is None or (clean_verdict, clean_winner) == (verdict, winner):
        return []
    return [
        f"without the test items that have a near duplicate in train or dev the verdict is {clean_verdict} "
        f"({clean_winner}): what was learnt by heart may have decided"
    ]
