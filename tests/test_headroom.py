"""A few dozen answers say whether a search for a better prompt is worth its calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from tunepoint import Example
from tunepoint.arms.prompting.headroom import FAILURES, HEADROOM_ANSWERS, REWORDINGS, headroom
from tunepoint.arms.prompting.search import SearchAnswer, SearchProblem

Asked = list[tuple[str, tuple[str, ...]]]


def problem(cures: Callable[[str, Example], bool]) -> tuple[SearchProblem, Asked, list[str]]:
    """A problem whose proposer numbers its instructions, with what was asked and what it was shown."""
    asked: Asked = []
    requests: list[str] = []

    def evaluate(instruction: str, examples: Sequence[Example]) -> list[SearchAnswer]:
        asked.append((instruction, tuple(example.id for example in examples)))
        return [SearchAnswer(float(cures(instruction, example)), "b") for example in examples]

    def propose(prompt: str, number: int) -> str:
        requests.append(prompt)
        return f"Think:\n```\nInstruction {number}\n```"

    return SearchProblem(evaluate, propose, [], []), asked, requests


def answered(failures: int, right: int) -> list[tuple[Example, SearchAnswer]]:
    wrong = [(Example(f"w{i}", f"input w{i}", "a"), SearchAnswer(0.0, "b")) for i in range(failures)]
    return [*wrong, *((Example(f"r{i}", f"input r{i}", "a"), SearchAnswer(1.0, "a")) for i in range(right))]


def test_words_that_cure_nothing_leave_a_bound() -> None:
    hopeless, asked, requests = problem(lambda instruction, example: False)
    tested = headroom(hopeless, "Answer.", answered(40, 60))
    assert tested is not None
    assert (tested.failing, tested.tried, tested.cured) == (0.4, FAILURES, 0)
    assert tested.gain == pytest.approx(0.4 * 0.5 / 17)
    assert tested.most == pytest.approx(0.4 * 0.1707, abs=1e-4)
    assert tested.answers == HEADROOM_ANSWERS == sum(len(items) for _, items in asked)
    assert [words for words, _ in asked] == [f"Instruction {k}" for k in range(1, REWORDINGS + 1)]
    tried = {item for _, items in asked for item in items}
    assert all(f"input {item}\n" not in request for request in requests for item in tried)
    assert len(set(requests)) == REWORDINGS and "The right answer is: a" in requests[0]


def test_any_of_the_instructions_may_cure_a_failure() -> None:
    def cures(instruction: str, example: Example) -> bool:
        return example.id in ("w0", "w1") if instruction == "Instruction 2" else example.id == "w5"

    tested = headroom(problem(cures)[0], "Answer.", answered(10, 90))
    assert tested is not None
    assert (tested.tried, tested.cured) == (10, 3)
    assert tested.gain == pytest.approx(0.1 * 3.5 / 11) and tested.gain < tested.most < 0.1
    every = headroom(problem(lambda *_: True)[0], "Answer.", answered(10, 90))
    assert every is not None and every.most == pytest.approx(0.1)


def test_few_failures_tell_nothing() -> None:
    assert headroom(problem(lambda *_: True)[0], "Answer.", answered(3, 97)) is None


def test_partly_right_answers_can_gain_the_rest_only() -> None:
    half = [(Example(f"w{i}", f"i{i}", "a"), SearchAnswer(0.5, "b")) for i in range(20)]
    tested = headroom(problem(lambda *_: True)[0], "Answer.", half)
    assert tested is not None and tested.gain == pytest.approx(0.5 * (16 + 0.5) / 17)
    worse = headroom(problem(lambda *_: False)[0], "Answer.", half)  # what gets worse is no loss here
    assert worse is not None and worse.cured == 0 and worse.gain == pytest.approx(0.5 * 0.5 / 17)


def test_a_worthwhile_search_is_seldom_taken_for_hopeless() -> None:
    """With 20% failures, 15% of which other words cure: 3 points to gain, and it takes 1."""
    stopped = {0.15: 0, 0.0: 0}
    for rate in stopped:
        for seed in range(200):
            curable = np.random.default_rng(seed).random(40) < rate
            tested = headroom(
                problem(lambda _, e, c=curable: bool(c[int(e.id[1:])]))[0], "Answer.", answered(40, 160)
            )
            assert tested is not None
            stopped[rate] += tested.gain <= 0.01
    assert stopped[0.0] == 200 and stopped[0.15] <= 24  # .85^16 = .074
