"""What would settle an undecided study, and what the next piece of evidence is worth.

Future studies are simulated from the study's own variance components: what is known now is drawn,
a larger study is made of it, and the rule is applied to that (the predictive probability of
Spiegelhalter, Freedman and Blackburn 1986).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tunepoint.decision.futures import DOUBLINGS, WORDS, FutureStudy, Kind, LearningGain, UnitPrices, settled
from tunepoint.decision.rule import Evidence
from tunepoint.stats.paired import JointScores

ASKED = 0.9
"""Share of simulated futures that must be settled for a promise of 80%: the arm that looks best now
looks better than it is, so fewer real studies are settled than simulated ones (docs/error-rates.md)."""
FACTORS = (1.25, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
"""Multiples of the measured items that are tried."""
SEED_FACTORS = (2, 3, 4, 6, 8, 12, 16)


@dataclass(frozen=True)
class Option:
    """One kind of evidence that would settle a study, on top of what there is."""

    more: int
    usd: float
    """What it costs: labels, answers and training."""


@dataclass(frozen=True)
class EvidenceNeeded:
    """What would settle an undecided study; None for what would not help."""

    test_items: int | None
    """More test items, on top of those measured."""
    training_seeds: int | None
    """More seeds of every trained arm."""
    training_examples: int | None
    """More labelled examples to train on."""
    why: str
    usd: Mapping[Kind, float] | None = None
    """What each costs, where it would help."""


def evidence_needed(
    joint: JointScores,
    evidence: Evidence,
    prices: UnitPrices,
    rng: np.random.Generator,
    *,
    reachable: bool = True,
    growth: LearningGain | None = None,
) -> EvidenceNeeded:
    """The least of each kind of evidence that gives at least a leaning verdict, four times in five.

    Args:
        reachable: whether any arm meets the limits.
        growth: what more training examples bring; None where no learning curve was drawn.

    """
    if not reachable:
        return EvidenceNeeded(None, None, None, "no arm meets the limits; more evidence will not change that")

    def settles(future: FutureStudy) -> bool:
        return settled(joint, evidence, future, rng, growth) >= ASKED

    ways = _ways(joint, prices, settles, growth)
    if ways:
        return _needed(ways, joint)
    most = joint.most_seeds
    if most and settles(FutureStudy(items=4, seeds=4)):
        items = Option(3 * joint.items, 3 * joint.items * prices.item)
        seeds = Option(3 * most, 3 * most * prices.seed)
        why = (
            f"training seeds vary too much: {seeds.more} more seeds and {items.more} more test items "
            f"together (about {_dollars(items.usd + seeds.usd)}) would settle it with a probability of 80%"
        )
        usd: dict[Kind, float] = {"test_items": items.usd, "training_seeds": seeds.usd}
        return EvidenceNeeded(items.more, seeds.more, None, why, usd)
    moody = sorted(joint.decoded)
    if moody and settles_without_decodes(joint, evidence, rng):
        names = ", ".join(evidence.costs.arms[arm] for arm in moody)
        why = (
            f"whole runs of answers differ ({names}), and no number of test items tells what the next run "
            "will do: find out why the same question is answered otherwise, or measure more decodes"
        )
        return EvidenceNeeded(None, None, None, why)
    why = (
        f"the arms are so close that even {FACTORS[-1]} times the test items would not separate them "
        "reliably; a wider margin or another price would"
    )
    return EvidenceNeeded(None, None, None, why)


def settles_without_decodes(joint: JointScores, evidence: Evidence, rng: np.random.Generator) -> bool:
    """Whether many more test items would do if every run of an arm answered alike."""
    steady = joint.seed_covariance.copy()
    for arm in joint.decoded:
        steady[arm, :] = steady[:, arm] = 0.0
    calm = replace(joint, seed_covariance=steady)
    return settled(calm, evidence, FutureStudy(items=FACTORS[-1]), rng) >= ASKED


def _ways(
    joint: JointScores,
    prices: UnitPrices,
    settles: Callable[[FutureStudy], bool],
    growth: LearningGain | None,
) -> dict[Kind, Option]:
    """Each kind of evidence that would do alone, with the least of it."""
    ways: dict[Kind, Option] = {}
    factor = _least(FACTORS, lambda factor: settles(FutureStudy(items=factor)))
    if factor is not None:
        more = int(np.ceil((factor - 1) * joint.items / 10) * 10)
        ways["test_items"] = Option(more, more * prices.item)
    most = joint.most_seeds
    factor = _least(SEED_FACTORS, lambda factor: settles(FutureStudy(seeds=factor))) if most else None
    if factor is not None:
        more = int((factor - 1) * most)
        ways["training_seeds"] = Option(more, more * prices.seed)
    if growth is not None:
        doublings = _least(DOUBLINGS, lambda times: settles(FutureStudy(doublings=int(times))))
        if doublings is not None:
            more = growth.examples * (2 ** int(doublings) - 1)
            ways["training_examples"] = Option(more, more * prices.example + prices.retraining)
    return ways


def _needed(ways: Mapping[Kind, Option], joint: JointScores) -> EvidenceNeeded:
    """The ways, the cheapest first in words."""
    first, *others = sorted(ways, key=lambda kind: ways[kind].usd)
    graded = ", as many of them graded by people as now," if joint.labelled is not None else ""
    said = f"about {ways[first].more} more {WORDS[first]}"
    said += graded if first == "test_items" else ""
    why = f"{said} (about {_dollars(ways[first].usd)}) would settle it with a probability of 80%"
    if others:
        rest = (f"{ways[kind].more} more {WORDS[kind]} ({_dollars(ways[kind].usd)})" for kind in others)
        why += f"; so would {' or '.join(rest)}"
    more = {kind: ways[kind].more if kind in ways else None for kind in WORDS}
    return EvidenceNeeded(**more, why=why, usd={kind: way.usd for kind, way in ways.items()})


def _dollars(amount: float) -> str:
    return f"${amount:,.2f}" if amount < 100 else f"${amount:,.0f}"


def _least(steps: Sequence[float], holds: Callable[[float], bool]) -> float | None:
    """The first step from which something holds, by bisection; None if it does not hold at the last."""
    if not holds(steps[-1]):
        return None
    low, high = 0, len(steps) - 1
    while low < high:
        middle = (low + high) // 2
        if holds(steps[middle]):
            high = middle
        else:
            low = middle + 1
    return steps[high]
