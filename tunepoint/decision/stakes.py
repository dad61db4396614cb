"""What is at stake in an undecided study: the most that a better choice would save."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tunepoint.decision.numbers import about_usd
from tunepoint.decision.rule import CONFIDENT, Evidence

AT_MOST = 0.975
"""Share of the draws in which no more than this is lost."""


@dataclass(frozen=True)
class Stakes:
    """Dollars that the best option so far loses against the truly best one, at most."""

    usd: float
    """Over the horizon."""
    months: float
    simplest: int
    """Position of the simplest option that is not clearly worse and not materially dearer."""

    def too_close(self, evidence_usd: float, titles: Sequence[str]) -> str:
        """Return what to do where the cheapest evidence costs more than this."""
        return (
            "Too close to matter at your volume: another option would save you at most "
            f"{about_usd(self.usd)} over {self.months:g} months, and the evidence that settles it costs "
            f"about {about_usd(evidence_usd)}. The simplest option will do: {titles[self.simplest]}."
        )


def stakes_of(evidence: Evidence, winner: int) -> Stakes | None:
    """Return what is at stake with the best option so far, given by position.

    Where an error has no price, money is all that is at stake only if the score is not in doubt: the
    option is then compared with the cheapest one that is acceptable. None where the score is in doubt.
    """
    total, rivals = evidence.total(), np.broadcast_to(evidence.candidates_mask(), evidence.scores.shape)
    if evidence.error_usd is None:
        if evidence.risks_of(winner).unacceptable > CONFIDENT:
            return None
        rivals = rivals & evidence.acceptable()
    least = np.where(rivals, total, np.inf).min(axis=1)
    lost = np.maximum(0.0, total[:, winner] - least)
    equals = evidence.equals(gated=False)
    simplest = equals[0] if evidence.simplicity is None else min(equals, key=evidence.simplicity.__getitem__)
    return Stakes(float(np.quantile(lost, AT_MOST)), evidence.costs.months, simplest)
