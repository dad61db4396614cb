"""Simulated larger studies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from tunepoint.costs.arm_cost import ArmCost
from tunepoint.decision.guards import too_few
from tunepoint.decision.rule import Evidence
from tunepoint.stats.arrays import Floats
from tunepoint.stats.intervals import Interval
from tunepoint.stats.paired import JointScores, draw_errors, draw_scores
from tunepoint.task.task import Task
from tunepoint.trials.table import Table

Kind = Literal["test_items", "training_seeds", "training_examples"]
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
class LearningGain:
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
class FutureStudy:
    """A study that is larger than the one at hand."""

    items: float = 1.0
    """Multiple of the test items."""
    seeds: float = 1.0
    """Multiple of the training seeds."""
    doublings: int = 0
    """Times that the training examples are doubled."""


def _larger(joint: JointScores, future: FutureStudy) -> tuple[JointScores, JointScores]:
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
    future: FutureStudy,
    studies: int,
    rng: np.random.Generator,
    growth: LearningGain | None,
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
    future: FutureStudy,
    rng: np.random.Generator,
    growth: LearningGain | None = None,
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
