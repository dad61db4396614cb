"""The verdict in dollars: what every option costs in all, and what the winner saves."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tunepoint.decision.rule import Evidence
from tunepoint.stats.ranges import Quantiles, quantiles

if TYPE_CHECKING:
    from tunepoint.decision.verdict import Decision


@dataclass(frozen=True)
class ExpectedCost:
    """Expected dollars of an option over the horizon: means of the draws, so the parts add up."""

    build: float
    run: float
    """Answers, machines, review, retraining, and following a base model that retires."""
    errors: float | None
    """What its wrong answers cost; None where they have no price."""
    priced: bool
    """Whether anybody knows what its answers cost: a log without tokens or price says nothing of it."""

    @property
    def total(self) -> float:
        """All of it."""
        return self.build + self.run + (self.errors or 0.0)


@dataclass(frozen=True)
class Saving:
    """What the winner saves against another option."""

    against: str
    today: bool
    """Whether that option is what runs today."""
    usd: float | None
    """Expected dollars over the horizon, errors included where they have a price; negative: it costs more.

    None where nobody knows what one of the two costs.
    """
    band: Quantiles | None
    """Of the same: 5%, 50% and 95% of the draws."""
    errors_a_month: float
    """Wrong answers avoided in the first month, as expected; negative if there are more."""


def expected_costs(evidence: Evidence, incumbents: Collection[str] = ()) -> dict[str, ExpectedCost]:
    """Return the expected cost of every arm.

    Args:
        evidence: the draws.
        incumbents: names of the arms that are logs, of which a cost of 0 means that it is not known.

    """
    costs = evidence.costs
    build, horizon = costs.upfront.mean(axis=0), costs.horizon().mean(axis=0)
    errors = evidence.total().mean(axis=0) - horizon
    priced = evidence.error_usd is not None
    return {
        arm: ExpectedCost(
            float(build[i]),
            float(horizon[i] - build[i]),
            max(0.0, float(errors[i])) if priced else None,
            arm not in incumbents or bool(horizon[i] > 0),
        )
        for i, arm in enumerate(costs.arms)
    }


def saving(decision: Decision) -> Saving | None:
    """Return what the winner saves against what runs today; against the rival where nothing does.

    The rival is what has to be replaced, else the best option on the other side of 'prompt or tune', or of
    all others. None where there is no other option.
    """
    evidence, arms = decision.evidence, decision.evidence.costs.arms
    logs = [finalist.arm for finalist in decision.finalists if finalist.kind == "incumbent"]
    others = [arm for arm in logs if arm != decision.winner]
    # of several logs nobody said which is served, unless one has to go
    against = others[0] if len(others) == 1 and evidence.replaced is None else decision.rival
    if against is None:
        return None
    winner, other = arms.index(decision.winner), arms.index(against)
    fewer = evidence.costs.volume * (evidence.scores[:, winner] - evidence.scores[:, other])
    avoided = float(np.mean(fewer))
    costs = expected_costs(evidence, logs)
    if not (costs[decision.winner].priced and costs[against].priced):
        return Saving(against, against in logs, None, None, avoided)
    total = evidence.total()
    saved = total[:, other] - total[:, winner]
    return Saving(against, against in logs, float(saved.mean()), quantiles(saved), avoided)
