"""Races: arms answer common items, and hopeless ones are stopped early (sequential elimination)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tunepoint.stats.arrays import Floats
from tunepoint.stats.sequential import log_e_value

FIRST_LOOK_ITEMS = 16
"""Validation items that every arm answers before the first look."""
LOOK_GROWTH = 1.25
"""Items at a look over those at the look before."""
BATCH_LOOK_GROWTH = 4.0
"""The same where a look waits for a batch, minutes or hours."""
RACE_ERROR_RATE = 0.1
"""Highest probability that a race stops its best arm, over all looks and rivals."""
FAR_BEHIND = 0.1
"""In mean score: the least distance to an arm outside the race from which an arm may stop."""


def look_sizes(items: int, growth: float = LOOK_GROWTH) -> list[int]:
    """Return the numbers of items at which a race takes a look; the last is all of them.

    Args:
        items: of the validation set.
        growth: items at a look over those at the look before.

    """
    sizes, size = [], float(FIRST_LOOK_ITEMS)
    while size < items:
        sizes.append(round(size))
        size *= growth
    return [*sizes, items]


class Race:
    """Which of several arms on common items are still running, and which are stopped as hopeless.

    For each arm, a gambler bets against the claim that it is the best: on its paired differences to every
    rival, with an equal share of the capital on each. An average of e-values is an e-value (Vovk and Wang
    2021, "E-values: calibration, combination and applications", section 3), so the arm can be stopped
    when the capital reaches 1 / error. For the best arm the claim is true, and it is the only arm whose
    stopping would be a mistake: the probability of that is at most `error`, for any number of arms.
    The capital won against a rival that was stopped stays as it is.

    Args:
        arms: names of the arms, all different.
        max_cluster: the most items that a cluster can have.
        error: highest probability of stopping the best arm.

    Attributes:
        running: names of the arms that still run, in their order.
        stopped: name of a stopped arm -> the arm that led when it was stopped, or that it is far behind.

    """

    def __init__(self, arms: Sequence[str], max_cluster: int = 1, error: float = RACE_ERROR_RATE) -> None:
        self.running = list(arms)
        self.stopped: dict[str, str] = {}
        self._max_cluster = max_cluster
        self._threshold = -np.log(error)
        self._rivals = len(arms) - 1
        self._log_e_values: dict[tuple[str, str], float] = {}

    def eliminate(self, scores: Mapping[str, Floats], clusters: NDArray[np.intp] | None = None) -> None:
        """Stop the arms that are hopeless by now.

        Args:
            scores: (n,) of each running arm on the same items, every cluster whole.
            clusters: (n,) cluster of each item; None if items are independent.

        """
        for arm in self.running:
            for rival in self.running:
                if arm != rival:
                    lead = scores[arm] - scores[rival]
                    self._log_e_values[arm, rival] = log_e_value(lead, clusters, self._max_cluster)
        means = {arm: float(scores[arm].mean()) for arm in self.running}
        leader = max(self.running, key=lambda arm: means[arm])
        for arm in list(self.running):
            if arm != leader and self._log_capital_against(arm) >= self._threshold:
                self.running.remove(arm)
                self.stopped[arm] = leader

    def stop_far_behind(
        self,
        name: str,
        best: Floats,
        scores: Mapping[str, Floats],
        clusters: NDArray[np.intp] | None = None,
        distance: float = FAR_BEHIND,
        error: float = RACE_ERROR_RATE,
    ) -> None:
        """Stop the arms that are further than this behind an arm that does not race with them.

        The claim against which the gambler bets is "its mean score is at most `distance` behind", so an arm
        for which that is true is stopped with a probability of `error` at most. An arm that was chosen as the
        best of several on these items needs the error divided by their number.

        Args:
            name: of that arm.
            best: (n,) its scores.
            scores: (n,) of each running arm on the same items, every cluster whole.
            clusters: (n,) cluster of each item; None if items are independent.
            distance: in mean score.
            error: highest probability of stopping an arm for which the claim is true.

        """
        for arm in list(self.running):
            lead = (scores[arm] - best + distance) / (1 + distance)  # in [-1, 1] again
            if log_e_value(lead, clusters, self._max_cluster) >= -np.log(error):
                self.running.remove(arm)
                self.stopped[arm] = name

    def _log_capital_against(self, arm: str) -> float:
        """Return the log of the capital won against the claim that an arm is the best."""
        values = [value for (claimant, _), value in self._log_e_values.items() if claimant == arm]
        return float(np.logaddexp.reduce(values) - np.log(self._rivals)) if values else 0.0
