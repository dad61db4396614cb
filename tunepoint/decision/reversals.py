"""What would change the verdict."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from tunepoint.decision.rule import Evidence
from tunepoint.stats.arrays import Floats

FLIP_VALUES = 100_000
"""Draws times arms that the search for reversals looks at."""


def reversals(evidence: Evidence, winner: int) -> tuple[str, ...]:
    """Volumes at which another arm becomes the best bet, and the scores that would do it."""
    found = []
    evidence = evidence.thinned(max(500, FLIP_VALUES // len(evidence.estimates)))
    usual = float(np.median(evidence.costs.volume))
    steps = np.geomspace(1.0, 1e5, 41)[1:]
    for factors, words in ((1 / steps, "below"), (steps, "above")):
        volume, other = _first_flip(evidence, winner, usual, usual * factors)
        if other is not None:
            name = evidence.costs.arms[other]
            found.append(f"{words} about {_round(volume):,} queries a month {name} is the better choice")
    found += _score_flips(evidence, winner)
    return tuple(found)


def _first_flip(evidence: Evidence, winner: int, usual: float, volumes: Floats) -> tuple[float, int | None]:
    """Where the best bet becomes another arm first on the way through the volumes; found by bisection."""

    def other_at(volume: float) -> int | None:
        other = evidence.best(volume)
        return other if other != winner and evidence.eligible(volume)[other] else None

    before = usual
    for volume in volumes.tolist():
        if volume < 1:
            break
        if other_at(volume) is not None:
            found = root(lambda log: other_at(float(np.exp(log))) is not None, np.log(before), np.log(volume))
            return float(np.exp(found)), other_at(float(np.exp(found)))
        before = volume
    return 0.0, None


def root(flipped: Callable[[float], bool], kept: float, turned: float) -> float:
    """Where a condition turns between a place where it does not hold and one where it does (bisection)."""
    for _ in range(HALVINGS):
        middle = (kept + turned) / 2
        kept, turned = (kept, middle) if flipped(middle) else (middle, turned)
    return turned


HALVINGS = 10
"""Of a bisection: a thousandth of the stretch is left."""
MOST_GAIN = 0.08
"""A rival that would have to score higher by more is not worth saying."""


def _score_flips(evidence: Evidence, winner: int) -> list[str]:
    """How much better a rival's score would have to be; rivals of equal gain in one line."""
    flips: dict[float, list[str]] = {}
    for rival in range(len(evidence.estimates)):
        gain = None if rival == winner else _gain_to_win(evidence, rival)
        if gain is not None:
            flips.setdefault(gain, []).append(evidence.costs.arms[rival])
    return [
        f"if {' or '.join(names)} scored {gain:.3f} higher it would be chosen"
        for gain, names in sorted(flips.items())
    ]


def _gain_to_win(evidence: Evidence, rival: int) -> float | None:
    """The least gain in score that makes a rival the best bet, to thousandths; None if none does."""

    def wins(gain: float) -> bool:
        shift = np.zeros(len(evidence.estimates))
        shift[rival] = gain
        other = replace(evidence, scores=evidence.scores + shift, estimates=evidence.estimates + shift)
        return other.best() == rival and bool(other.eligible()[rival])

    return max(0.001, round(root(wins, 0.0, MOST_GAIN), 3)) if wins(MOST_GAIN) else None


def _round(value: float) -> int:
    """Two significant digits, as a volume is said aloud."""
    digits = 10 ** max(0, int(np.floor(np.log10(max(value, 1)))) - 1)
    return int(round(value / digits) * digits)
