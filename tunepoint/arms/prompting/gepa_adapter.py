"""Tunepoint's side of the `gepa` package: it evaluates instructions and keeps the record of the search.

gepa calls `evaluate` and `make_reflective_dataset` of the adapter (gepa.core.adapter.GEPAAdapter).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from tunepoint.data.examples import Example
from tunepoint.errors import MissingExtra
from tunepoint.stats.arrays import Floats
from tunepoint.stats.racing import RACE_ERROR_RATE, look_sizes
from tunepoint.stats.sequential import log_e_value

if TYPE_CHECKING:
    from tunepoint.arms.prompting.search import SearchAnswer, SearchProblem

MINIBATCH_SIZE = 4
"""Training examples on which a proposal is compared with its parent."""
UNASKED_SCORE = -1.0
"""Score of the items that a stopped proposal did not answer: below any real score."""


def run_gepa(
    adapter: GepaAdapter, instruction: str, max_answers: int, stop: Callable[[], bool], seed: int
) -> int:
    """Let gepa search from an instruction; return how many proposals it made.

    Raises:
        MissingExtra: the `gepa` package is not installed.

    """
    try:
        from gepa.api import optimize
    except ImportError:
        raise MissingExtra("prompt search needs gepa", "optimize") from None
    problem = adapter.problem
    proposals = 0

    def reflect(prompt: str | list[dict[str, Any]]) -> str:
        nonlocal proposals
        proposals += 1
        return problem.propose(str(prompt), proposals)

    optimize(
        {"instruction": instruction},
        trainset=list(problem.train),
        valset=adapter.dev,
        adapter=cast("Any", adapter),
        reflection_lm=reflect,
        reflection_minibatch_size=min(MINIBATCH_SIZE, len(problem.train)),
        max_metric_calls=max_answers,
        stop_callbacks=[lambda state: stop()],
        logger=_Silent(),
        # A minibatch without failures still leads to a proposal: the ceiling counts every one of them.
        skip_perfect_score=False,
        seed=seed,
    )
    return proposals


def new_instruction(
    problem: SearchProblem, instruction: str, shown: Sequence[tuple[Example, SearchAnswer]], number: int
) -> str:
    """Return an instruction that the proposer writes when it sees failures, by gepa's own request.

    Args:
        problem: how instructions are proposed.
        instruction: the one that failed.
        shown: failures.
        number: of the proposal.

    Raises:
        MissingExtra: the `gepa` package is not installed.

    """
    try:
        from gepa.strategies.instruction_proposal import InstructionProposalSignature as Request
    except ImportError:
        raise MissingExtra("prompt search needs gepa", "optimize") from None
    request = Request.prompt_renderer(
        {
            "current_instruction_doc": instruction,
            "dataset_with_feedback": [_record(example, answer) for example, answer in shown],
        }
    )
    return Request.output_extractor(problem.propose(str(request), number))["new_instruction"]


class _Silent:
    """Drops gepa's log: the study keeps its own."""

    def log(self, message: str) -> None:
        """Drop a message."""


@dataclass
class _Batch:
    """What gepa expects of an evaluation (gepa.core.adapter.EvaluationBatch)."""

    outputs: list[str]
    scores: list[float]
    trajectories: list[tuple[Example, SearchAnswer]]
    objective_scores: None = None
    num_metric_calls: int | None = None


class GepaAdapter:
    """gepa's view of the problem, and the record of the search.

    Attributes:
        best: the instruction with the highest objective on the validation set so far.
        scores: instruction -> its (items,) scores on the whole validation set.
        trajectory: (answers so far, objective of the best instruction), at each improvement.
        gains: for each improvement its (items,) differences to the instruction that was best before.
        answers: how many were evaluated.

    """

    propose_new_texts = None
    """gepa then writes the request for a new instruction itself."""

    def __init__(self, problem: SearchProblem) -> None:
        self.problem = problem
        self.dev = list(problem.dev)
        self.best: str | None = None
        self.scores: dict[str, Floats] = {}
        self.trajectory: list[tuple[int, float]] = []
        self.gains: list[Floats] = []
        self.answers = 0

    def evaluate(
        self, batch: list[Example], candidate: dict[str, str], capture_traces: bool = False
    ) -> _Batch:
        """Answer a batch; on the validation set, a proposal that is clearly worse is stopped early."""
        instruction = candidate["instruction"]
        on_dev = batch == self.dev  # gepa does not say which set a batch is from
        answers = self._race(instruction) if on_dev else self._answer(instruction, batch)
        missing = len(batch) - len(answers)
        if on_dev and not missing:
            self._record(instruction, np.array([answer.score for answer in answers]))
        price = self.problem.price(instruction)
        return _Batch(
            [answer.text for answer in answers] + [""] * missing,
            [answer.score - price for answer in answers] + [UNASKED_SCORE - price] * missing,
            list(zip(batch, answers, strict=False)),
            num_metric_calls=len(answers),
        )

    def make_reflective_dataset(
        self, candidate: dict[str, str], eval_batch: _Batch, components_to_update: list[str]
    ) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        """Return inputs, outputs and feedback, in the words that gepa's request uses."""
        records = [_record(example, answer) for example, answer in eval_batch.trajectories]
        return dict.fromkeys(components_to_update, records)

    def _answer(self, instruction: str, batch: Sequence[Example]) -> list[SearchAnswer]:
        self.answers += len(batch)
        return self.problem.evaluate(instruction, batch)

    def _race(self, instruction: str) -> list[SearchAnswer]:
        """Return answers on the validation set; fewer than all if the instruction cannot become the best."""
        answers: list[SearchAnswer] = []
        for size in look_sizes(len(self.dev)):
            answers += self._answer(instruction, self.dev[len(answers) : size])
            if self.best is not None and self._is_hopeless(instruction, [a.score for a in answers]):
                break
        return answers

    def _is_hopeless(self, instruction: str, scores: Sequence[float]) -> bool:
        """Return whether it is refuted that the instruction is at least as good as the best, price included.

        The bet on the paired differences is that of a race, with its probability of error.
        """
        assert self.best is not None
        clusters = [self.problem.clusters.get(example.id, example.id) for example in self.dev]
        count = len(scores)
        while 0 < count < len(clusters) and clusters[count - 1] == clusters[count]:
            count -= 1  # the bet needs clusters whole
        extra_price = self.problem.price(instruction) - self.problem.price(self.best)
        # Scaled so that the differences stay in [-1, 1], as the bet requires.
        lead = (np.array(scores[:count]) - self.scores[self.best][:count] - extra_price) / (
            1 + abs(extra_price)
        )
        codes, sizes = np.unique(clusters, return_inverse=True, return_counts=True)[1:]
        return log_e_value(lead, codes[:count], int(sizes.max())) >= -math.log(RACE_ERROR_RATE)

    def _record(self, instruction: str, scores: Floats) -> None:
        self.scores[instruction] = scores
        objective = float(scores.mean()) - self.problem.price(instruction)
        if self.best is None:
            self.best = instruction
        elif objective > self.trajectory[-1][1]:
            self.gains.append(scores - self.scores[self.best])
            self.best = instruction
        else:
            return
        self.trajectory.append((self.answers, objective))


def _record(example: Example, answer: SearchAnswer) -> dict[str, str]:
    """Return what gepa's request shows of an answer, in its words."""
    return {
        "Inputs": example.input,
        "Generated Outputs": answer.text,
        "Feedback": _feedback(example, answer),
    }


def _feedback(example: Example, answer: SearchAnswer) -> str:
    """Return the right answer, and what the judge wrote if there is one."""
    if answer.score >= 1:
        return "This is right."
    right = f"The right answer is: {example.target}"
    return f"{right}\nA judge wrote: {answer.why}" if answer.why else right
