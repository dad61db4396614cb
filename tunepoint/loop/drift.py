"""Whether what is asked, what is said of the answers, or their form is another now than before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tunepoint.data.dedupe import normalize
from tunepoint.errors import EvidenceError
from tunepoint.stats.exact import exact_score
from tunepoint.stats.intervals import Interval
from tunepoint.stats.novelty import MAX_COMPARED_INPUTS, USUAL_NOVELTY, nearest_similarity
from tunepoint.stats.sequential import betting_interval

Embed = Callable[[Sequence[str]], NDArray[np.float32]]
DRIFTED = 0.15
"""Share of novel inputs from which, for sure, something else is asked."""
LEVEL = 0.99
"""Of each interval: several measures are looked at every week."""


@dataclass(frozen=True)
class Drift:
    """One measure, before and now."""

    what: str
    now: Interval
    before: float
    drifted: bool

    def __str__(self) -> str:
        band = f"{self.now.estimate:.3f} ({self.now.low:.3f} to {self.now.high:.3f})"
        return f"{self.what}: {band}, before {self.before:.3f}"


def input_drift(embed: Embed, known: Sequence[str], recent: Sequence[str], rng: np.random.Generator) -> Drift:
    """Share of novel inputs: less like their nearest known one than 95% of those are like theirs.

    The interval is that of a binomial share (Clopper and Pearson 1934); it is drift once all of it lies
    above 15%.

    Args:
        embed: (texts) -> (n, width) unit vectors.
        known: inputs that the arm has learnt from, at least 20 different ones.
        recent: inputs of the time that is looked at, at least 20 different ones.

    Raises:
        EvidenceError: too few of either.

    """
    known, recent = _distinct(known), _distinct(recent)
    if min(len(known), len(recent)) < 20:
        raise EvidenceError(
            f"drift needs 20 different known and recent inputs, got {len(known)} and {len(recent)}"
        )
    learnt, asked = (embed(_some(texts, rng)) for texts in (known, recent))
    near, threshold = nearest_similarity(learnt, asked)
    novel = (near < threshold).astype(np.float64)
    now = exact_score(novel, np.arange(len(novel)), level=LEVEL)
    return Drift("share of novel inputs", now, USUAL_NOVELTY, now.low > DRIFTED)


def _distinct(texts: Sequence[str]) -> list[str]:
    """Each text once, up to case and punctuation: a copy would be its own nearest neighbour."""
    return list({normalize(text) or text: text for text in texts}.values())


def _some(texts: Sequence[str], rng: np.random.Generator) -> list[str]:
    if len(texts) <= MAX_COMPARED_INPUTS:
        return list(texts)
    return [texts[i] for i in sorted(rng.permutation(len(texts))[:MAX_COMPARED_INPUTS].tolist())]


def mean_drift(what: str, before: Sequence[float], recent: Sequence[float], margin: float) -> Drift:
    """Whether the mean of values in 0..1 has fallen by more than the margin, however often one looks.

    Raises:
        EvidenceError: no values on one side.

    """
    was = betting_interval(np.array(before), level=LEVEL, low=0.0, high=1.0)
    now = betting_interval(np.array(recent), level=LEVEL, low=0.0, high=1.0)
    return Drift(what, now, was.estimate, now.high < was.low - margin)
