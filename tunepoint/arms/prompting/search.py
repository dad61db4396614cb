"""Search for a better instruction, under a budget; and how much more searching could gain.

The search is GEPA's (Agrawal et al. 2025): a model reads failures on a few training examples
and proposes a new instruction; one that does better on the same examples meets the validation set.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import scipy

from tunepoint.arms.prompting.gepa_adapter import GepaAdapter, run_gepa
from tunepoint.data.examples import Example
from tunepoint.stats.arrays import Floats
from tunepoint.stats.intervals import Interval


@dataclass(frozen=True)
class SearchAnswer:
    """What an instruction did on one example."""

    score: float
    text: str
    why: str = ""
    """What a judge wrote about it; empty where none did."""


Evaluate = Callable[[str, Sequence[Example]], list[SearchAnswer]]
"""(instruction, examples) -> an answer for each."""
Propose = Callable[[str, int], str]
"""(what to think about, number of the proposal) -> text with a new instruction in it."""
Price = Callable[[str], float]
"""Instruction -> what its tokens cost, in units of the score."""


@dataclass(frozen=True)
class SearchProblem:
    """What a search works on."""

    evaluate: Evaluate
    propose: Propose
    train: Sequence[Example]
    """Examples whose failures the proposals are made from."""
    dev: Sequence[Example]
    """Validation items that choose, in an order that says nothing about them."""
    clusters: Mapping[str, str] = field(default_factory=dict)
    """Id of a validation item -> its cluster; an item that is missing is a cluster of its own."""
    price: Price = lambda instruction: 0.0


@dataclass(frozen=True)
class SearchResult:
    """The best instruction, and what the search says about the ceiling of prompting."""

    instruction: str
    trajectory: tuple[tuple[int, float], ...]
    """(answers so far, objective of the best instruction on the validation set), at each improvement."""
    proposals: int
    answers: int
    """Answers that the search evaluated."""
    ceiling: Interval
    """What one more proposal would gain on the validation set; `high` is a 95% bound."""
    kept: bool
    """Whether the best instruction is the one that the search began with."""

    @property
    def objective(self) -> float:
        """Score of the best instruction on the validation set, less the price of its tokens."""
        return self.trajectory[-1][1]


def search(
    problem: SearchProblem,
    instruction: str,
    *,
    max_answers: int,
    stop: Callable[[], bool] = lambda: False,
    seed: int = 0,
) -> SearchResult:
    """Search for an instruction with a higher score on the validation set, less the price of its tokens.

    Args:
        problem: how instructions are evaluated and proposed, and on which examples.
        instruction: where the search begins.
        max_answers: budget of answers; one evaluation on the validation set may go beyond it.
        stop: returns true when enough money was spent.
        seed: the same seed and the same answers give the same search.

    Raises:
        MissingExtra: the `gepa` package is not installed.
        ModelError: a model cannot be called any more.

    """
    adapter = GepaAdapter(problem)
    proposals = run_gepa(adapter, instruction, max_answers, stop, seed)
    best = adapter.best
    assert best is not None, "gepa evaluates the first instruction on dev before it proposes"
    headroom = 1.0 - float(np.mean(adapter.scores[best]))
    return SearchResult(
        best,
        tuple(adapter.trajectory),
        proposals,
        adapter.answers,
        ceiling(proposals, adapter.gains, headroom),
        best == instruction,
    )


def ceiling(proposals: int, gains: Sequence[Floats], headroom: float) -> Interval:
    """Return what one more proposal would gain, if gains do not grow from step to step.

    The gain is the chance of an improvement times its size. The 95% bound is the product of two
    97.5% bounds (Bonferroni): Clopper and Pearson's for the chance; for the size, the t bound of
    the last improvement's paired differences, or the headroom where there was none.

    Args:
        proposals: how many were made.
        gains: for each improvement its differences on the validation items, (items,) each.
        headroom: 1 less the best score; no gain is larger.

    """
    headroom = max(0.0, headroom)
    successes = min(len(gains), proposals)
    max_chance = _highest_chance(successes, proposals)
    if not gains:
        return Interval(0.0, 0.0, max_chance * headroom)
    last = gains[-1]
    mean = float(last.mean())
    if len(last) < 2:
        return Interval(min(mean, headroom), 0.0, max_chance * headroom)
    reach = float(scipy.stats.t.ppf(0.975, len(last) - 1) * last.std(ddof=1) / np.sqrt(len(last)))
    max_size = min(headroom, max(0.0, mean + reach))
    likely = min(max_size, max(0.0, mean)) * successes / proposals if proposals else max_size
    return Interval(min(likely, max_chance * max_size), 0.0, max_chance * max_size)


def _highest_chance(successes: int, proposals: int) -> float:
    """Return the 97.5% upper bound of Clopper and Pearson (1934) for the chance of an improvement."""
    if successes == proposals:
        return 1.0
    return float(scipy.stats.beta.ppf(0.975, successes + 1, proposals - successes))
