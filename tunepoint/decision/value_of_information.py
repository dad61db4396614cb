"""What one more piece of evidence is worth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tunepoint.decision.futures import FutureStudy, Kind, LearningGain, UnitPrices, _centres
from tunepoint.decision.rule import Evidence
from tunepoint.stats.arrays import Floats
from tunepoint.stats.paired import JointScores


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


ITEMS, EXAMPLES = 100, 100
"""Sizes of the next step."""
LOOKAHEAD = 4_000


def values_of_information(
    joint: JointScores,
    evidence: Evidence,
    prices: UnitPrices,
    rng: np.random.Generator,
    growth: LearningGain | None = None,
) -> tuple[ValueOfInformation, ...]:
    """What 100 more test items, one more seed and 100 more training examples are worth in dollars.

    The expected value of sample information (Raiffa and Schlaifer 1961, chapter 4): the mean of
    the best arm's net value once the future estimates are known, less that of the best bet now.
    Only `error_usd` turns scores into dollars, so without it there is none.
    """
    if evidence.error_usd is None:
        return ()
    now, allowed = -evidence.total().mean(axis=0), evidence.field()
    point = float(evidence.error_usd * evidence.costs.schedule.queries * evidence.costs.volume.mean())

    def worth(kind: Kind, more: int, shift: Floats, price: float) -> ValueOfInformation:
        later = (now + point * shift)[:, allowed].max(axis=1).mean()
        return ValueOfInformation(kind, more, max(0.0, float(later - now[allowed].max())), price)

    def learnt(future: FutureStudy) -> Floats:
        centres = _centres(joint, evidence, future, LOOKAHEAD, rng, None)
        return np.asarray(
            centres - centres.mean(axis=0)
        )  # what is learnt is not expected to raise or lower a score

    more_items = learnt(FutureStudy(items=1 + ITEMS / joint.items))
    found = [worth("test_items", ITEMS, more_items, ITEMS * prices.item)]
    most = joint.most_seeds
    if most:
        found.append(worth("training_seeds", 1, learnt(FutureStudy(seeds=1 + 1 / most)), prices.seed))
    if growth is not None:
        arms = evidence.costs.arms
        gains = np.array([growth.gains[arm].estimate if arm in growth.gains else 0.0 for arm in arms])
        share = growth.soon if growth.soon is not None else np.log2(1 + EXAMPLES / growth.examples)
        shift = share * gains[None]
        price = EXAMPLES * prices.example + prices.retraining
        found.append(worth("training_examples", EXAMPLES, shift, price))
    return tuple(found)
