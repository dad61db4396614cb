"""Sequential elimination: arms on common items, the hopeless ones stopped early."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tunepoint.stats.arrays import Floats
from tunepoint.stats.sequential import log_e_value

FIRST = 16
"""Dev items that every arm answers before the first look."""
GROWTH = 1.25
"""Items of a look over those of the look before."""
ERROR = 0.1
"""Probability that the best arm is stopped, at most, over all looks and rivals of a race."""


def looks(items: int) -> list[int]:
    """Numbers of items after which a race is looked at, the last one all of them."""
    found, size = [], float(FIRST)
    while size < items:
        found.append(round(size))
        size *= GROWTH
    return [*found, items]


class Race:
    """Scores of several arms on common items, and which of them are hopeless.

    The claim that an arm is the best of all is bet against on its paired differences to every
    rival, with an equal part of the capital on each (an average of e-processes is one); the arm
    is stopped when the capital reaches 1 / error. The best arm's claim is true, and it is the only
    one whose refutation would be a mistake, so the probability of losing it is `error` however
    many arms run. What was bet against a rival that stopped stays as it is.
    """

    def __init__(self, arms: Sequence[str], largest: int = 1, error: float = ERROR) -> None:
        self.running = list(arms)
        self.largest = largest
        self.goal = -np.log(error)
        self.rivals = len(arms) - 1
        self._evidence: dict[tuple[str, str], float] = {}
        self.stopped: dict[str, str] = {}

    def look(self, scores: Mapping[str, Floats], clusters: NDArray[np.intp] | None = None) -> None:
        """Stop the arms that are hopeless by now.

        Args:
            scores: (n,) of each running arm on the same items, every cluster whole.
            clusters: (n,) cluster of each item; None when items are independent.

        """
        for arm in self.running:
            for rival in self.running:
                if arm != rival:
                    lead = scores[arm] - scores[rival]
                    self._evidence[arm, rival] = log_e_value(lead, clusters, self.largest)
        means = {arm: float(scores[arm].mean()) for arm in self.running}
        leader = max(self.running, key=lambda arm: means[arm])
        for arm in list(self.running):
            if arm != leader and self._against(arm) >= self.goal:
                self.running.remove(arm)
                self.stopped[arm] = leader

    def _against(self, arm: str) -> float:
        """Log of the capital won against the claim that an arm is the best."""
        found = [value for (one, _), value in self._evidence.items() if one == arm]
        return float(np.logaddexp.reduce(found) - np.log(self.rivals)) if found else 0.0
