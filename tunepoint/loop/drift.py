"""Detects drift in inputs, feedback and the format of answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tunepoint.data.copies import copy_key
from tunepoint.errors import EvidenceError
from tunepoint.stats.exact import exact_score
from tunepoint.stats.intervals import Interval
from tunepoint.stats.novelty import MAX_COMPARED_INPUTS, USUAL_NOVELTY, nearest_similarity
from tunepoint.stats.sequential import betting_interval

Embed = Callable[[Sequence[str]], NDArray[np.float32]]
DRIFT_SHARE = 0.15
"""Share of novel inputs above which it is drift, with the whole interval; 5% are novel by definition."""
CONFIDENCE = 0.99
"""Of each interval: several measures are compared every week, so 95% would give false alarms."""
MIN_INPUTS = 20
"""Different ones, on either side."""


@dataclass(frozen=True)
class Drift:
    """One measure, then and now."""

    what: str
    now: Interval
    before: float
    drifted: bool

    def __str__(self) -> str:
        band = f"{self.now.estimate:.3f} ({self.now.low:.3f} to {self.now.high:.3f})"
        return f"{self.what}: {band}, before {self.before:.3f}"


def input_drift(embed: Embed, known: Sequence[str], recent: Sequence[str], rng: np.random.Generator) -> Drift:
    """Measure the share of novel inputs, those unlike everything known.

    Novel is an input that is less similar to its nearest known one than 95% of the known ones are to
    theirs. The interval is that of a binomial share (Clopper and Pearson 1934); it is drift once all of it
    lies above 15%.

    Args:
        embed: (texts) -> (n, width) unit vectors.
        known: inputs that the arm has learned from, at least 20 different ones.
        recent: inputs to compare, at least 20 different ones.
        rng: draws the inputs that are compared, where there are many.

    Raises:
        EvidenceError: too few of either.

    """
    known, recent = _distinct(known), _distinct(recent)
    if min(len(known), len(recent)) < MIN_INPUTS:
        raise EvidenceError(
            f"drift needs {MIN_INPUTS} different known and recent inputs, got {len(known)} and {len(recent)}"
        )
    known_vectors, recent_vectors = (embed(_sample(texts, rng)) for texts in (known, recent))
    similarity, threshold = nearest_similarity(known_vectors, recent_vectors)
    novel = (similarity < threshold).astype(np.float64)
    now = exact_score(novel, np.arange(len(novel)), level=CONFIDENCE)
    return Drift("share of novel inputs", now, USUAL_NOVELTY, now.low > DRIFT_SHARE)


def _distinct(texts: Sequence[str]) -> list[str]:
    """Each text once, up to case and punctuation: a copy would be its own nearest neighbor."""
    return list({copy_key(text): text for text in texts}.values())


def _sample(texts: Sequence[str], rng: np.random.Generator) -> list[str]:
    """At most `MAX_COMPARED_INPUTS` of the texts, by lot, in their order."""
    if len(texts) <= MAX_COMPARED_INPUTS:
        return list(texts)
    return [texts[i] for i in sorted(rng.permutation(len(texts))[:MAX_COMPARED_INPUTS].tolist())]


def mean_drift(what: str, before: Sequence[float], recent: Sequence[float], margin: float) -> Drift:
    """Whether the mean of values in 0..1 has fallen by more than the margin.

    By confidence sequences, which stay valid however often one looks.

    Raises:
        EvidenceError: no values on one side.

    """
    then = betting_interval(np.array(before), level=CONFIDENCE, low=0.0, high=1.0)
    now = betting_interval(np.array(recent), level=CONFIDENCE, low=0.0, high=1.0)
    return Drift(what, now, then.estimate, now.high < then.low - margin)
