"""Guards of honesty: what may not decide a study, and what caps the strength of a verdict."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np

from tunepoint.decision.numbers import percent, points_interval
from tunepoint.decision.rule import Evidence, Strength
from tunepoint.stats.comparisons import compare
from tunepoint.stats.paired import joint_scores
from tunepoint.trials.table import ArmScores, Table

MIN_FORMAT_FAILURES = 0.02
"""Share of unreadable answers from which an arm may have lost for its format alone."""
MIN_GROUPS = 8
"""Independent groups of test items without which there is no verdict: fewer exclude nothing."""


def capped(strength: Strength | None, doubts: Sequence[str]) -> Strength | None:
    """Return the strength, which is never confident while there are doubts."""
    return "leaning" if doubts and strength == "confident" else strength


def too_few(groups: int) -> list[str]:
    """Return a caveat if there are too few independent groups of test items for any verdict."""
    if groups >= MIN_GROUPS:
        return []
    return [
        f"{groups} independent groups of test items decide nothing: at least {MIN_GROUPS} are needed, and "
        "some hundreds for a small difference."
    ]


def lost_by_format(table: Table, evidence: Evidence, winner: int, titles: Sequence[str]) -> list[str]:
    """Return a caveat for each arm that would win if its unreadable answers were as good as the others.

    A format failure is not an inability: such an arm deserves a repair (schema, JSON mode, another
    wording) before it loses. One that was repaired, or whose failures stand after a repair, lost fairly.
    """
    caveats = []
    for position, arm in enumerate(table.arms):
        tried = arm.repaired > 0 or arm.format_ok == 0
        if position == winner or tried or 1 - arm.format_ok < MIN_FORMAT_FAILURES:
            continue
        scores, estimates = evidence.scores.copy(), evidence.estimates.copy()
        scores[:, position] /= arm.format_ok  # the mean score of the answers that could be read
        estimates[position] = min(1.0, estimates[position] / arm.format_ok)
        if replace(evidence, scores=scores, estimates=estimates).best_bet() == position:
            caveats.append(
                f"{titles[position]} loses by its format: {percent(1 - arm.format_ok)} of its answers could "
                "not be read, and it would win if they were as good as the rest. Ask for them again (with "
                "a schema, JSON mode or another wording) before you believe this verdict."
            )
    return caveats


def open_variants(evidence: Evidence, winner: int, titles: Sequence[str]) -> list[str]:
    """Return a caveat if the kind of the verdict is settled, and which of its variants is best is not."""
    variants = evidence.open_variants()
    if not variants:
        return []
    gain = evidence.scores[:, list(variants)].max(axis=1) - evidence.scores[:, winner]
    others = ", ".join(titles[arm] for arm in variants if arm != winner)
    return [
        f"The kind is settled, the variant is not: {titles[winner]} is the simplest, and the best of the "
        f"others ({others}) may give up to {100 * float(np.quantile(gain, 0.975)):.1f} points more right "
        "answers."
    ]


def repeats_differ(table: Table, rng: np.random.Generator, titles: Sequence[str] | None = None) -> list[str]:
    """Return a caveat for each arm whose repeats differ by more than the items explain (an A/A test)."""
    caveats = []
    for arm, title in zip(table.arms, titles or table.names, strict=True):
        if len(arm.runs) < 2 or arm.human is not None:
            continue
        difference = _widest_difference(arm, table, rng)
        if difference is not None:
            source = "decoding" if arm.decoded else "training seed"
            caveats.append(
                f"{title}: {difference}. A difference of this size between options can come from the "
                f"{source} alone; the intervals allow for it."
            )
    return caveats


def _widest_difference(arm: ArmScores, table: Table, rng: np.random.Generator) -> str | None:
    """The largest difference of two repeats that the items do not explain, in words."""
    joint = joint_scores([run[None] for run in arm.runs], table.clusters)
    pairs = list(combinations(range(len(arm.runs)), 2))
    clear = [comparison for comparison in compare(joint, pairs, rng) if 0 not in comparison.difference]
    if not clear:
        return None
    widest = max(clear, key=lambda comparison: abs(comparison.difference.estimate))
    runs = f"decodes {widest.arm + 1} and {widest.against + 1}"
    if not arm.decoded:
        runs = f"training seeds {arm.seeds[widest.arm]} and {arm.seeds[widest.against]}"
    return f"{runs} differ by {points_interval(widest.difference)} on the same items"


def twins_decide(
    verdict: str,
    winner: str,
    clean_verdict: str | None,
    clean_winner: str | None,
    titles: Mapping[str, str] | None = None,
    equals: Collection[str] = (),
) -> list[str]:
    """Return a caveat if the verdict rests on test items that have a near duplicate outside the test.

    Args:
        verdict: on all test items.
        winner: on all test items.
        clean_verdict: without those items; None where it was not decided.
        clean_winner: without those items.
        titles: name of an arm -> what people read.
        equals: other arms that do as well as the winner on all test items.

    """
    if clean_verdict is None or (clean_verdict == verdict and clean_winner in (winner, *equals)):
        return []
    title = (titles or {}).get(str(clean_winner), clean_winner)
    return [
        "Without the test items that have a near duplicate in the training or validation set, the verdict "
        f"is {clean_verdict} ({title}): memorized answers may have decided."
    ]
