"""What would change the verdict."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from tunepoint.decision import numbers
from tunepoint.decision.rule import Evidence
from tunepoint.stats.arrays import Floats

MAX_REVERSAL_DRAWS = 100_000
"""Draws times arms that the search for reversals looks at."""
MIN_REVERSAL_DRAWS = 500
BISECTION_STEPS = 10
"""Leave a thousandth of the bracket."""
MAX_SCORE_GAIN = 0.08
"""A rival that would have to score higher by more than this is not worth mentioning."""


def reversals(evidence: Evidence, winner: int, titles: Sequence[str]) -> tuple[str, ...]:
    """Return the volumes at which another arm becomes the best bet, and the scores that would do it."""
    draws = MAX_REVERSAL_DRAWS // len(evidence.estimates)
    evidence = evidence.thinned(max(MIN_REVERSAL_DRAWS, draws))
    expected = float(np.median(evidence.costs.volume))
    steps = np.geomspace(1.0, 1e5, 41)[1:]
    sentences = []
    for factors, word in ((1 / steps, "Below"), (steps, "Above")):
        volume, other = _first_flip(evidence, winner, expected, expected * factors)
        if other is not None:
            flip = f"{word} about {numbers.volume(volume)} queries a month"
            sentences.append(f"{flip}, {titles[other]} is the better choice.")
    return (*sentences, *_score_flips(evidence, winner, titles))


def _first_flip(
    evidence: Evidence, winner: int, expected: float, volumes: Floats
) -> tuple[float, int | None]:
    """The volume nearest to the expected one at which another arm is the best bet, and that arm."""

    def other_at(volume: float) -> int | None:
        other = evidence.best_bet(volume)
        if winner in evidence.equals(volume, gated=False):
            return None  # less sure there, and no worse
        return other if other != winner and evidence.eligible(volume)[other] else None

    previous = expected
    for volume in volumes.tolist():
        if volume < 1:
            break
        if other_at(volume) is not None:
            # By logarithms: volumes span orders of magnitude.
            log_volume = bisect(
                lambda log: other_at(float(np.exp(log))) is not None, np.log(previous), np.log(volume)
            )
            flip = float(np.exp(log_volume))
            return flip, other_at(flip)
        previous = volume
    return 0.0, None


def bisect(holds: Callable[[float], bool], without: float, within: float) -> float:
    """Return where a condition begins to hold, between a value where it does not and one where it does."""
    for _ in range(BISECTION_STEPS):
        middle = (without + within) / 2
        without, within = (without, middle) if holds(middle) else (middle, within)
    return within


def _score_flips(evidence: Evidence, winner: int, titles: Sequence[str]) -> list[str]:
    """How much better a rival's score would have to be; rivals of equal gain in one line."""
    by_gain: dict[float, list[str]] = {}
    for rival, title in enumerate(titles):
        gain = None if rival == winner else _gain_to_win(evidence, rival)
        if gain is not None:
            by_gain.setdefault(gain, []).append(title)
    return [
        f"With a score {100 * gain:.1f} points higher, {' or '.join(rivals)} would be the choice."
        for gain, rivals in sorted(by_gain.items())
    ]


def _gain_to_win(evidence: Evidence, rival: int) -> float | None:
    """The least gain in score that makes a rival the best bet, to thousandths; None if none does."""

    def wins(gain: float) -> bool:
        shift = np.zeros(len(evidence.estimates))
        shift[rival] = gain
        shifted = replace(evidence, scores=evidence.scores + shift, estimates=evidence.estimates + shift)
        return shifted.best_bet() == rival and bool(shifted.eligible()[rival])

    if not wins(MAX_SCORE_GAIN):
        return None
    return max(0.001, round(bisect(wins, 0.0, MAX_SCORE_GAIN), 3))
