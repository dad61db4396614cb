"""What a better instruction could gain: a test of a few dozen answers, before a search is paid for.

Published searches often end no higher than they began. A search can gain only where the prompt fails, and
only if other words cure those failures. So a few new instructions are tried on a few failures first. A
failure counts as cured if any of them cures it, and what they break does not count: the estimate favors the
search.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy

from tunepoint.arms.prompting.gepa_adapter import MINIBATCH_SIZE, new_instruction
from tunepoint.arms.prompting.search import SearchAnswer, SearchProblem
from tunepoint.data.examples import Example
from tunepoint.stats.arrays import Floats

FAILURES = 16
"""Failures that the new instructions are tried on, at most."""
REWORDINGS = 3
"""New instructions."""
MIN_FAILURES = 4
"""Failures from which such a test tells something."""
HEADROOM_ANSWERS = FAILURES * REWORDINGS


@dataclass(frozen=True)
class Headroom:
    """What other words could gain."""

    failing: float
    """Share of the validation items that the prompt does not get wholly right."""
    tried: int
    """Failures that the new instructions were tried on."""
    cured: int
    """Those on which one of them did better."""
    gain: float
    """Expected gain in score, by the Jeffreys prior for the mean gain on a failure."""
    most: float
    """Upper bound, 95%: of the share cured (Clopper and Pearson 1934), times the mean loss of a failure."""
    answers: int


def headroom(
    problem: SearchProblem, instruction: str, answers: Sequence[tuple[Example, SearchAnswer]]
) -> Headroom | None:
    """Try new instructions on failures; None where there are too few to tell.

    Args:
        problem: how instructions are evaluated and proposed.
        instruction: the one that failed.
        answers: validation items, in an order that says nothing about them, with what it answered.

    Raises:
        MissingExtra: the `gepa` package is not installed.
        ModelError: a model cannot be called.

    """
    failures = [(example, answer) for example, answer in answers if answer.score < 1]
    if len(failures) < MIN_FAILURES:
        return None
    tried, others = failures[:FAILURES], failures[FAILURES:]
    # what a new instruction is made from should not be what it is tried on, if there are failures enough
    shown = others if len(others) >= MINIBATCH_SIZE else tried
    before = np.array([answer.score for _, answer in tried])
    best = before.copy()
    for number in range(REWORDINGS):
        batch = [shown[(number * MINIBATCH_SIZE + i) % len(shown)] for i in range(MINIBATCH_SIZE)]
        words = new_instruction(problem, instruction, batch, number + 1)
        scores = [answer.score for answer in problem.evaluate(words, [example for example, _ in tried])]
        best = np.maximum(best, scores)
    return _estimate(best - before, 1 - before, len(failures) / len(answers))


def _estimate(gains: Floats, losses: Floats, failing: float) -> Headroom:
    count, cured = len(gains), int((gains > 0).sum())
    loss = float(losses.mean())
    # one more failure, half cured
    mean = (float(gains.sum()) + 0.5 * loss) / (count + 1)
    most = 1.0 if cured == count else float(scipy.stats.beta.ppf(0.95, cured + 1, count - cured))
    return Headroom(failing, count, cured, failing * mean, failing * most * loss, REWORDINGS * count)
