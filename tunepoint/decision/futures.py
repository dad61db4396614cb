"""Simulated larger studies, and what they would cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from tunepoint.costs.arm_cost import ArmCost
from tunepoint.decision.guards import too_few
from tunepoint.decision.labels_needed import LabelsNeeded
from tunepoint.decision.rule import Evidence
from tunepoint.stats.arrays import Floats
from tunepoint.stats.intervals import Interval
from tunepoint.stats.paired import JointScores, draw_errors, draw_scores
from tunepoint.task.task import Task
from tunepoint.trials.table import Table

Kind = Literal["labels", "test_items", "training_seeds", "training_examples"]
EXAMPLE_DOUBLINGS = (1, 2, 3)
"""Times that the training examples are doubled: further than that no curve is trusted."""
SIMULATED_STUDIES = 100
FUTURE_DRAWS = 1_000
EVIDENCE_WORDS: Mapping[Kind, str] = {
    "labels": "labels where the options disagree",
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
    label_minutes: float = 0.0
    """Minutes that a label takes."""

    def labels(self, needed: LabelsNeeded) -> float:
        """Return the dollars of labels where the options disagree, and of answers to all inputs."""
        return needed.labels * self.example + needed.inputs * (self.item - self.example)


def unit_prices(table: Table, costs: Sequence[ArmCost], task: Task) -> UnitPrices:
    """Return what more evidence costs at the task's likely rates; new labels are paid for in any case."""
    rates = task.costs
    label = rates.label_minutes.likely / 60 * rates.hourly_usd.likely
    core_second = rates.core_hour_usd.likely / 3600
    answer = [cost.usd_per_query.likely + cost.core_seconds_per_query * core_second for cost in costs]
    training = [cost.training_core_seconds * core_second for cost in costs]
    seeds = [len(arm.seeds) for arm in table.arms]
    # What runs today answered already: its log has no price.
    answers_per_item = [
        0.0 if cost.kind == "incumbent" else arm.answers for arm, cost in zip(table.arms, costs, strict=True)
    ]
    trained = [i for i, cost in enumerate(costs) if cost.training_core_seconds > 0 or seeds[i] > 1]
    # A deterministic training run shows everything with its first seed.
    with_seeds = [i for i in trained if seeds[i] > 1]
    return UnitPrices(
        item=label + sum(price * count for price, count in zip(answer, answers_per_item, strict=True)),
        seed=sum(
            training[i] + len(table.items) * answer[i] * answers_per_item[i] / seeds[i] for i in with_seeds
        ),
        example=label,
        retraining=sum(training[i] * seeds[i] for i in trained),
        label_minutes=rates.label_minutes.likely,
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
    """The joint distribution of the larger study, and that of what it adds to what is known.

    The variance of an estimate is its variance in the larger study plus that of the news.
    """
    times = np.array([1.0 if arm in joint.decoded else future.seeds for arm in range(len(joint.estimates))])
    seeds = np.sqrt(np.outer(times, times))  # a block has seeds or decodes, never both
    graded = joint.graded_groups
    larger = replace(
        joint,
        item_covariance=joint.item_covariance / future.items,
        groups=int(joint.groups * future.items),
        seed_covariance=joint.seed_covariance / seeds,
        blocks=tuple((arms, int(count * times[arms[0]])) for arms, count in joint.blocks),
        items=int(joint.items * future.items),
        graded_groups=None if graded is None else int(graded * future.items),
        means=None,
        codes=None,
        tested=None,
        at_all_looks=None,
    )
    news = replace(
        joint,
        item_covariance=joint.item_covariance * (1 - 1 / future.items),
        seed_covariance=joint.seed_covariance * (1 - 1 / seeds),
    )
    return larger, news


def future_estimates(
    joint: JointScores,
    evidence: Evidence,
    future: FutureStudy,
    studies: int,
    rng: np.random.Generator,
    growth: LearningGain | None,
) -> Floats:
    """Draw (studies, A) estimates of future studies from what is known now."""
    estimates = joint.estimates + draw_errors(_larger(joint, future)[1], studies, rng)
    if growth is not None and future.doublings:
        # One curve for all arms: what is trained alike gains alike.
        deviation = rng.standard_normal(studies)
        times = growth.doublings[future.doublings - 1]
        for name, gain in growth.gains.items():
            if name in evidence.costs.arms:
                drawn = gain.estimate + deviation * (gain.high - gain.low) / (2 * 1.96)
                estimates[:, evidence.costs.arms.index(name)] += times * drawn
    return np.asarray(estimates)


def settled_share(
    joint: JointScores,
    evidence: Evidence,
    future: FutureStudy,
    rng: np.random.Generator,
    growth: LearningGain | None = None,
    studies: int = SIMULATED_STUDIES,
) -> float:
    """Return the share of simulated studies of a given size that end with a verdict."""
    larger, _ = _larger(joint, future)
    if too_few(int(joint.test_groups * future.items)):
        return 0.0
    thinned = evidence.thinned(FUTURE_DRAWS)
    # The same spread around every estimate: drawing it anew for each study would cost most of the time.
    spread = draw_scores(larger, len(thinned.scores), rng) - larger.estimates
    settled = 0
    for estimates in future_estimates(joint, evidence, future, studies, rng, growth):
        study = replace(thinned, scores=estimates + spread, estimates=estimates)
        settled += study.verdict_risks().strength is not None
    return settled / studies
