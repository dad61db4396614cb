"""Search for a better instruction, under a budget; and how much more searching could gain.

The search is GEPA's (Agrawal et al. 2025): a model reads failures on a few training examples
and proposes a new instruction; one that does better on the same examples meets dev.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from tunepoint.data.examples import Example
from tunepoint.errors import MissingExtra
from tunepoint.stats.intervals import Interval
from tunepoint.stats.racing import RACE_ERROR_RATE, look_sizes
from tunepoint.stats.sequential import log_e_value

PROBE = 4
"""Training examples on which a proposal meets its parent."""
WORSE = -1.0
"""Score of an item on which a given-up proposal was not asked: below any real one."""


@dataclass(frozen=True)
class SearchAnswer:
    """What an instruction did on one example."""

    score: float
    said: str
    why: str = ""
    """What a judge wrote about it; empty where none did."""


Evaluate = Callable[[str, Sequence[Example]], list[SearchAnswer]]
"""(instruction, examples) -> an answer for each."""
Propose = Callable[[str, int], str]
"""(what to think about, number of the proposal) -> text with a new instruction in it."""
Price = Callable[[str], float]
"""Instruction -> what its tokens cost, in units of the score."""


@dataclass(frozen=True)
class SearchResult:
    """The best instruction, and what the search says about the ceiling of prompting."""

    instruction: str
    trajectory: tuple[tuple[int, float], ...]
    """(answers asked for so far, objective of the best instruction on dev), at each improvement."""
    proposals: int
    asked: int
    """Answers that were asked for."""
    ceiling: Interval
    """What one more proposal would gain on dev; `high` is a 95% bound."""
    kept: bool
    """Whether the best instruction is the one that the search began with."""


def search(
    instruction: str,
    evaluate: Evaluate,
    propose: Propose,
    train: Sequence[Example],
    dev: Sequence[Example],
    *,
    asks: int,
    clusters: Mapping[str, str] | None = None,
    price: Price = lambda instruction: 0.0,
    stop: Callable[[], bool] = lambda: False,
    seed: int = 0,
) -> SearchResult:
    """Look for an instruction with a higher score on dev, the price of its tokens taken off.

    Args:
        instruction: where the search begins.
        train: examples whose failures are thought about.
        dev: items that choose, in an order that says nothing about them.
        asks: answers that may be asked for; about as many are, plus one look at dev.
        clusters: id of a dev item -> its cluster; one that is missing is one of its own.
        stop: true when enough money was spent.
        seed: the same seed and the same answers give the same search.

    Raises:
        MissingExtra: the `gepa` package is not installed.
        ModelError: a model stops answering.

    """
    course = _Course(evaluate, price, list(dev), dict(clusters or {}))
    proposals = _run(course, propose, instruction, train, asks, stop, seed)
    best = course.best
    assert best is not None, "gepa evaluates the first instruction on dev before it proposes"
    return SearchResult(
        best,
        tuple(course.trajectory),
        proposals,
        course.asked,
        ceiling(proposals, course.gains, 1.0 - float(np.mean(course.scores[best]))),
        best == instruction,
    )


def _run(
    course: _Course,
    propose: Propose,
    instruction: str,
    train: Sequence[Example],
    asks: int,
    stop: Callable[[], bool],
    seed: int,
) -> int:
    """Let gepa search; how many proposals were made."""
    try:
        from gepa.api import optimize
    except ImportError:
        raise MissingExtra("prompt search needs gepa", "optimize") from None
    proposals = 0

    def reflect(prompt: str | list[dict[str, Any]]) -> str:
        nonlocal proposals
        proposals += 1
        return propose(str(prompt), proposals)

    optimize(
        {"instruction": instruction},
        trainset=list(train),
        valset=course.dev,
        adapter=cast("Any", course),
        reflection_lm=reflect,
        reflection_minibatch_size=min(PROBE, len(train)),
        max_metric_calls=asks,
        stop_callbacks=[lambda state: stop()],
        logger=_Silent(),
        skip_perfect_score=False,
        seed=seed,
    )
    return proposals


def ceiling(proposals: int, gains: Sequence[NDArray[np.float64]], headroom: float) -> Interval:
    """What one more proposal would gain, if gains do not grow from step to step.

    The gain is the chance of an improvement times its size. The 95% bound is the product of two
    97.5% bounds (Bonferroni): Clopper and Pearson's for the chance; for the size, the t bound of
    the last improvement's paired differences, or the headroom where there was none.

    Args:
        proposals: how many were made.
        gains: for each improvement its differences on the dev items, (items,) each.
        headroom: what the best score lacks to 1; no gain is larger.

    """
    successes = min(len(gains), proposals)
    most = (
        1.0 if proposals == successes else float(stats.beta.ppf(0.975, successes + 1, proposals - successes))
    )
    headroom = max(0.0, headroom)
    if not gains:
        return Interval(0.0, 0.0, most * headroom)
    last = gains[-1]
    mean = float(last.mean())
    if len(last) < 2:
        return Interval(min(mean, headroom), 0.0, most * headroom)
    reach = float(stats.t.ppf(0.975, len(last) - 1) * last.std(ddof=1) / np.sqrt(len(last)))
    size = min(headroom, max(0.0, mean + reach))
    likely = min(size, max(0.0, mean)) * successes / proposals if proposals else size
    return Interval(min(likely, most * size), 0.0, most * size)


@dataclass
class _Batch:
    """What gepa expects of an evaluation (gepa.core.adapter.EvaluationBatch)."""

    outputs: list[str]
    scores: list[float]
    trajectories: list[tuple[Example, SearchAnswer]]
    objective_scores: None = None
    num_metric_calls: int | None = None


@dataclass
class _Course:
    """gepa's view of the task, and the record of the search."""

    evaluator: Evaluate
    price: Price
    dev: list[Example]
    clusters: dict[str, str]
    asked: int = 0
    best: str | None = None
    scores: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    """Instruction -> its scores on all of dev."""
    trajectory: list[tuple[int, float]] = field(default_factory=list)
    gains: list[NDArray[np.float64]] = field(default_factory=list)
    propose_new_texts: None = None

    def evaluate(
        self, batch: list[Example], candidate: dict[str, str], capture_traces: bool = False
    ) -> _Batch:
        """Answer a batch; on dev, a proposal that is clearly worse is given up early."""
        instruction = candidate["instruction"]
        on_dev = batch == self.dev
        answered = self._race(instruction) if on_dev else self._ask(instruction, batch)
        price = self.price(instruction)
        scores = [one.score - price for one in answered]
        lacking = len(batch) - len(answered)
        if on_dev and not lacking:
            self._record(instruction, np.array([one.score for one in answered]))
        return _Batch(
            [one.said for one in answered] + [""] * lacking,
            scores + [WORSE - price] * lacking,
            list(zip(batch, answered, strict=False)),
            num_metric_calls=len(answered),
        )

    def make_reflective_dataset(
        self, candidate: dict[str, str], eval_batch: _Batch, components_to_update: list[str]
    ) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        """What was asked, what came, and what was right."""
        records = [
            {
                "Inputs": example.input,
                "Generated Outputs": one.said,
                "Feedback": _feedback(example, one),
            }
            for example, one in eval_batch.trajectories
        ]
        return dict.fromkeys(components_to_update, records)

    def _ask(self, instruction: str, batch: Sequence[Example]) -> list[SearchAnswer]:
        self.asked += len(batch)
        return self.evaluator(instruction, batch)

    def _race(self, instruction: str) -> list[SearchAnswer]:
        """Answers on dev in growing parts, until all are there or it cannot become the best."""
        answered: list[SearchAnswer] = []
        for size in look_sizes(len(self.dev)):
            answered += self._ask(instruction, self.dev[len(answered) : size])
            if self.best is not None and self._hopeless(instruction, [one.score for one in answered]):
                break
        return answered

    def _hopeless(self, instruction: str, scores: Sequence[float]) -> bool:
        """Whether the claim that it is at least as good as the best, price included, was bet to ruin."""
        assert self.best is not None
        names = [self.clusters.get(one.id, one.id) for one in self.dev]
        count = len(scores)
        while 0 < count < len(names) and names[count - 1] == names[count]:
            count -= 1  # whole clusters only
        dearer = self.price(instruction) - self.price(self.best)
        lead = (np.array(scores[:count]) - self.scores[self.best][:count] - dearer) / (1 + abs(dearer))
        codes, sizes = np.unique(names, return_inverse=True, return_counts=True)[1:]
        return log_e_value(lead, codes[:count], int(sizes.max())) >= -math.log(RACE_ERROR_RATE)

    def _record(self, instruction: str, scores: NDArray[np.float64]) -> None:
        self.scores[instruction] = scores
        objective = float(scores.mean()) - self.price(instruction)
        if self.best is None:
            self.best = instruction
        elif objective > self.trajectory[-1][1]:
            self.gains.append(scores - self.scores[self.best])
            self.best = instruction
        else:
            return
        self.trajectory.append((self.asked, objective))


def _feedback(example: Example, one: SearchAnswer) -> str:
    """What was right, and what the judge wrote where there is one."""
    if one.score >= 1:
        return "This is right."
    right = f"The right answer is: {example.target}"
    return f"{right}\nA judge wrote: {one.why}" if one.why else right


class _Silent:
    """gepa's log goes nowhere: the study keeps its own."""

    def log(self, message: str) -> None:
        """Say nothing."""
