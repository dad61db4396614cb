"""What one more piece of evidence is worth in dollars."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tunepoint.decision.futures import FutureStudy, Kind, LearningGain, UnitPrices, future_estimates
from tunepoint.decision.rule import Evidence
from tunepoint.stats.arrays import Floats
from tunepoint.stats.paired import JointScores

NEXT_ITEMS, NEXT_EXAMPLES = 100, 100
"""Sizes of the next step."""
VALUE_DRAWS = 4_000
"""Simulated studies behind each value."""


@dataclass(frozen=True)
class ValueOfInformation:
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


def values_of_information(
    joint: JointScores,
    evidence: Evidence,
    prices: UnitPrices,
    rng: np.random.Generator,
    growth: LearningGain | None = None,
) -> tuple[ValueOfInformation, ...]:
    """Return what 100 more test items, one more seed and 100 more training examples are worth.

    The expected value of sample information (Raiffa and Schlaifer 1961, chapter 4): the mean of
    the best arm's net value once the future estimates are known, less that of the best bet now.
    Only `error_usd` turns scores into dollars, so without it the result is empty.
    """
    if evidence.error_usd is None:
        return ()
    net_value, candidates = -evidence.total().mean(axis=0), evidence.candidates_mask()
    costs = evidence.costs
    dollars_per_score = float(evidence.error_usd * costs.schedule.query_weight * costs.volume.mean())

    def value(kind: Kind, more: int, shift: Floats, price: float) -> ValueOfInformation:
        """Value of evidence that moves the estimates by `shift`, (studies, A)."""
        informed = (net_value + dollars_per_score * shift)[:, candidates].max(axis=1).mean()
        gain = max(0.0, float(informed - net_value[candidates].max()))
        return ValueOfInformation(kind, more, gain, price)

    def surprises(future: FutureStudy) -> Floats:
        """How the estimates move; on average not at all, as news raises a score as often as it lowers it."""
        estimates = future_estimates(joint, evidence, future, VALUE_DRAWS, rng, None)
        return np.asarray(estimates - estimates.mean(axis=0))

    more_items = surprises(FutureStudy(items=1 + NEXT_ITEMS / joint.worth_items))
    values = [value("test_items", NEXT_ITEMS, more_items, NEXT_ITEMS * prices.item)]
    seeds = joint.max_seeds
    if seeds:
        values.append(value("training_seeds", 1, surprises(FutureStudy(seeds=1 + 1 / seeds)), prices.seed))
    if growth is not None:
        price = NEXT_EXAMPLES * prices.example + prices.retraining
        values.append(value("training_examples", NEXT_EXAMPLES, _gains(evidence, growth), price))
    return tuple(values)


def _gains(evidence: Evidence, growth: LearningGain) -> Floats:
    """(1, A) gains in mean score with the next training examples."""
    doubled = [growth.gains[arm].estimate if arm in growth.gains else 0.0 for arm in evidence.costs.arms]
    share = growth.soon if growth.soon is not None else np.log2(1 + NEXT_EXAMPLES / growth.examples)
    return np.asarray(share * np.array(doubled)[None])
