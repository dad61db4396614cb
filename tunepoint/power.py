"""What would settle an undecided study, and what the next piece of evidence is worth.

Future studies are simulated from the study's own variance components: what is known now is drawn,
a larger study is made of it, and the rule is applied to that (the predictive probability of
Spiegelhalter, Freedman and Blackburn 1986).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tunepoint.cost.prices import ArmCost
from tunepoint.evidence import Evidence
from tunepoint.guards import too_few
from tunepoint.measure.tables import Table
from tunepoint.stats.intervals import Interval
from tunepoint.stats.paired import JointScores, draw_errors, draw_scores
from tunepoint.task import Task

Floats = NDArray[np.float64]
Kind = Literal["test_items", "training_seeds", "training_examples"]
ASKED = 0.9
"""Share of simulated futures that must be settled for a promise of 80%: the arm that looks best now
looks better than it is, so fewer real studies are settled than simulated ones (docs/error-rates.md)."""
FACTORS = (1.25, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
"""Multiples of the measured items that are tried."""
SEED_FACTORS = (2, 3, 4, 6, 8, 12, 16)
DOUBLINGS = (1, 2, 3)
"""Times that the training examples are doubled: further than that no curve is trusted."""
STUDIES = 100
DRAWS = 1_000
WORDS: Mapping[Kind, str] = {
    "test_items": "test items",
    "training_seeds": "training seeds",
    "training_examples": "training examples",
}


@dataclass(frozen=True)
class Way:
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


@dataclass(frozen=True)
class UnitPrices:
    """Dollars of one more piece of evidence."""

    item: float
    """A test item: its label and an answer of every arm and seed."""
    seed: float
    """A training seed of every trained arm, measured on the test."""
    example: float
    """A labelled training example."""
    retraining: float
    """Training every trained arm again, once the examples are there."""


def unit_prices(table: Table, costs: Sequence[ArmCost], task: Task) -> UnitPrices:
    """What more evidence costs at the task's likely rates; new labels are paid for in any case."""
    rates = task.costs
    label = rates.label_minutes.likely / 60 * rates.hourly_usd.likely
    core = rates.core_hour_usd.likely / 3600
    answers = [cost.usd_per_query.likely + cost.core_seconds_per_query * core for cost in costs]
    seeds = [len(arm.seeds) for arm in table.arms]
    asked = [
        0.0 if cost.kind == "incumbent" else arm.answers for arm, cost in zip(table.arms, costs, strict=True)
    ]
    training = [cost.training_core_seconds * core for cost in costs]
    trained = [i for i, cost in enumerate(costs) if cost.training_core_seconds > 0 or seeds[i] > 1]
    many = [i for i in trained if seeds[i] > 1]  # one training run of an arm without luck shows all
    return UnitPrices(
        label + sum(price * count for price, count in zip(answers, asked, strict=True)),
        sum(training[i] + len(table.items) * answers[i] * asked[i] / seeds[i] for i in many),
        label,
        sum(training[i] * seeds[i] for i in trained),
    )


@dataclass(frozen=True)
class Growth:
    """What twice the training examples would bring."""

    examples: int
    """Training examples now."""
    gains: Mapping[str, Interval]
    """Arm -> gain in mean score at twice the examples, with its 95% interval."""
    doublings: tuple[float, ...] = (1.0, 2.0, 3.0)
    """What doubling once, twice and three times brings, as multiples of that gain."""
    soon: float | None = None
    """What 100 more examples bring, as a multiple of that gain; by the logarithm if None."""


@dataclass(frozen=True)
class Future:
    """A study that is larger than the one at hand."""

    items: float = 1.0
    """Multiple of the test items."""
    seeds: float = 1.0
    """Multiple of the training seeds."""
    doublings: int = 0
    """Times that the training examples are doubled."""


def evidence_needed(
    joint: JointScores,
    evidence: Evidence,
    prices: UnitPrices,
    rng: np.random.Generator,
    *,
    reachable: bool = True,
    growth: Growth | None = None,
) -> EvidenceNeeded:
    """The least of each kind of evidence that gives at least a leaning verdict, four times in five.

    Args:
        reachable: whether any arm meets the limits.
        growth: what more training examples bring; None where no learning curve was drawn.

    """
    if not reachable:
        return EvidenceNeeded(None, None, None, "no arm meets the limits; more evidence will not change that")

    def settles(future: Future) -> bool:
        return settled(joint, evidence, future, rng, growth) >= ASKED

    ways = _ways(joint, prices, settles, growth)
    if ways:
        return _needed(ways, joint)
    most = joint.most_seeds
    if most and settles(Future(items=4, seeds=4)):
        items = Way(3 * joint.items, 3 * joint.items * prices.item)
        seeds = Way(3 * most, 3 * most * prices.seed)
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
    return settled(calm, evidence, Future(items=FACTORS[-1]), rng) >= ASKED


def _ways(
    joint: JointScores, prices: UnitPrices, settles: Callable[[Future], bool], growth: Growth | None
) -> dict[Kind, Way]:
    """Each kind of evidence that would do alone, with the least of it."""
    ways: dict[Kind, Way] = {}
    factor = _least(FACTORS, lambda factor: settles(Future(items=factor)))
    if factor is not None:
        more = int(np.ceil((factor - 1) * joint.items / 10) * 10)
        ways["test_items"] = Way(more, more * prices.item)
    most = joint.most_seeds
    factor = _least(SEED_FACTORS, lambda factor: settles(Future(seeds=factor))) if most else None
    if factor is not None:
        more = int((factor - 1) * most)
        ways["training_seeds"] = Way(more, more * prices.seed)
    if growth is not None:
        doublings = _least(DOUBLINGS, lambda times: settles(Future(doublings=int(times))))
        if doublings is not None:
            more = growth.examples * (2 ** int(doublings) - 1)
            ways["training_examples"] = Way(more, more * prices.example + prices.retraining)
    return ways


def _needed(ways: Mapping[Kind, Way], joint: JointScores) -> EvidenceNeeded:
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


def _larger(joint: JointScores, future: Future) -> tuple[JointScores, JointScores]:
    """The joint distribution of the larger study, and that of what it will teach."""
    items = future.items
    times = np.array([1.0 if arm in joint.decoded else future.seeds for arm in range(len(joint.estimates))])
    seeds = np.sqrt(np.outer(times, times))  # a block has seeds or decodes, never both
    then = replace(
        joint,
        item_covariance=joint.item_covariance / items,
        groups=int(joint.groups * items),
        seed_covariance=joint.seed_covariance / seeds,
        blocks=tuple((arms, int(count * times[arms[0]])) for arms, count in joint.blocks),
        items=int(joint.items * items),
        labelled=None if joint.labelled is None else int(joint.labelled * items),
        means=None,
        codes=None,
    )
    news = replace(
        joint,
        item_covariance=joint.item_covariance * (1 - 1 / items),
        seed_covariance=joint.seed_covariance * (1 - 1 / seeds),
    )
    return then, news


def _centres(
    joint: JointScores,
    evidence: Evidence,
    future: Future,
    studies: int,
    rng: np.random.Generator,
    growth: Growth | None,
) -> Floats:
    """(studies, A) estimates of future studies, as what is known now foretells them."""
    centres = joint.estimates + draw_errors(_larger(joint, future)[1], studies, rng)
    if growth is not None and future.doublings:
        luck = rng.standard_normal(studies)  # one curve for all: arms trained alike gain alike
        for name, gain in growth.gains.items():
            if name in evidence.costs.arms:
                drawn = gain.estimate + luck * (gain.high - gain.low) / (2 * 1.96)
                times = growth.doublings[future.doublings - 1]
                centres[:, evidence.costs.arms.index(name)] += times * drawn
    return np.asarray(centres)


def settled(
    joint: JointScores,
    evidence: Evidence,
    future: Future,
    rng: np.random.Generator,
    growth: Growth | None = None,
    studies: int = STUDIES,
) -> float:
    """Share of future studies of a given size that are not undecided."""
    then, _ = _larger(joint, future)
    if too_few(then.groups):
        return 0.0
    part = evidence.thinned(DRAWS)
    spread = draw_scores(then, len(part.scores), rng) - then.estimates
    found = 0
    for centre in _centres(joint, evidence, future, studies, rng, growth):
        study = replace(part, scores=centre + spread, estimates=centre)
        found += study.risks_of(study.best()).strength is not None
    return found / studies


@dataclass(frozen=True)
class Worth:
    """What one more piece of evidence is worth."""

    kind: Kind
    more: int
    value_usd: float
    """Expected gain in net value over the horizon, from choosing better (and, with more training
    examples, from better arms)."""
    price_usd: float

    @property
    def pays(self) -> bool:
        """Whether it is worth its price."""
        return self.value_usd > self.price_usd


ITEMS, EXAMPLES = 100, 100
"""Sizes of the next step."""
LOOKAHEAD = 4_000


def values_of_information(
    joint: JointScores,
    evidence: Evidence,
    prices: UnitPrices,
    rng: np.random.Generator,
    growth: Growth | None = None,
) -> tuple[Worth, ...]:
    """What 100 more test items, one more seed and 100 more training examples are worth in dollars.

    The expected value of sample information (Raiffa and Schlaifer 1961, chapter 4): the mean of
    the best arm's net value once the future estimates are known, less that of the best bet now.
    Only `error_usd` turns scores into dollars, so without it there is none.
    """
    if evidence.error_usd is None:
        return ()
    now, allowed = -evidence.total().mean(axis=0), evidence.field()
    point = float(evidence.error_usd * evidence.costs.schedule.queries * evidence.costs.volume.mean())

    def worth(kind: Kind, more: int, shift: Floats, price: float) -> Worth:
        later = (now + point * shift)[:, allowed].max(axis=1).mean()
        return Worth(kind, more, max(0.0, float(later - now[allowed].max())), price)

    def learnt(future: Future) -> Floats:
        centres = _centres(joint, evidence, future, LOOKAHEAD, rng, None)
        return np.asarray(
            centres - centres.mean(axis=0)
        )  # what is learnt is not expected to raise or lower a score

    more_items = learnt(Future(items=1 + ITEMS / joint.items))
    found = [worth("test_items", ITEMS, more_items, ITEMS * prices.item)]
    most = joint.most_seeds
    if most:
        found.append(worth("training_seeds", 1, learnt(Future(seeds=1 + 1 / most)), prices.seed))
    if growth is not None:
        arms = evidence.costs.arms
        gains = np.array([growth.gains[arm].estimate if arm in growth.gains else 0.0 for arm in arms])
        share = growth.soon if growth.soon is not None else np.log2(1 + EXAMPLES / growth.examples)
        shift = share * gains[None]
        price = EXAMPLES * prices.example + prices.retraining
        found.append(worth("training_examples", EXAMPLES, shift, price))
    return tuple(found)
