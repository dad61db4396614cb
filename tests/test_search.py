"""The search for a better instruction, and its statement about the ceiling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tunepoint import Example
from tunepoint.arms.prompting.search import SearchAnswer, SearchProblem, ceiling, search
from tunepoint.errors import BudgetReached

WORDS = ("alpha", "beta", "gamma", "delta")
TRAIN = [Example(f"t{i}", f"question {i}", WORDS[i % 4]) for i in range(40)]
DEV = [Example(f"d{i}", f"other {i}", WORDS[i % 4]) for i in range(60)]


class World:
    """An instruction is as good as the share of words that it names."""

    def __init__(self) -> None:
        self.evaluations: list[tuple[str, int]] = []
        """(instruction, number of examples)"""

    def problem(self, **changes: Any) -> SearchProblem:
        return replace(SearchProblem(self.evaluate, self.propose, TRAIN, DEV), **changes)

    def evaluate(self, instruction: str, examples: Sequence[Example]) -> list[SearchAnswer]:
        self.evaluations.append((instruction, len(examples)))
        return [SearchAnswer(float(e.target in instruction), "said") for e in examples]

    def propose(self, prompt: str, number: int) -> str:
        """Add the word that the feedback asks for."""
        current = prompt.split("```")[1].strip()
        missing = [word for word in WORDS if f"right answer is: {word}" in prompt and word not in current]
        return f"```\n{current} {missing[0] if missing else ''}\n```"


def test_the_search_finds_what_feedback_says() -> None:
    world = World()
    result = search(world.problem(), "name alpha", max_answers=600)
    assert set(WORDS) <= set(result.instruction.split()) and not result.kept
    assert [round(value, 2) for _, value in result.trajectory] == [0.25, 0.5, 0.75, 1.0]
    assert result.answers == sum(count for _, count in world.evaluations)
    assert result.ceiling.high == 0.0  # nothing is left to gain
    assert search(World().problem(), "name alpha", max_answers=600) == result


def test_hopeless_proposals_are_given_up_early() -> None:
    world = World()

    def evaluate(instruction: str, examples: Sequence[Example]) -> list[SearchAnswer]:
        if "worse" in instruction and examples[0].id.startswith("d"):
            world.evaluations.append((instruction, len(examples)))
            return [SearchAnswer(0.0, "") for _ in examples]
        return world.evaluate(instruction.replace("worse", "beta gamma delta"), examples)

    problem = world.problem(evaluate=evaluate, propose=lambda *_: "```\nworse alpha\n```")
    result = search(problem, "name alpha beta", max_answers=200)
    assert result.kept and result.proposals >= 2
    assert sum(n for instruction, n in world.evaluations if instruction == "worse alpha" and n > 4) % 16 == 0


def test_the_price_of_tokens_counts() -> None:
    world = World()

    def price(instruction: str) -> float:
        return 0.3 * (len(instruction.split()) - 2)

    result = search(world.problem(price=price), "name alpha", max_answers=300)
    assert result.kept  # every word gains .25 and costs .3


def test_a_cap_ends_the_search_and_stop_ends_it_quietly() -> None:
    world = World()

    def broke(instruction: str, examples: Sequence[Example]) -> list[SearchAnswer]:
        if len(world.evaluations) > 3:
            raise BudgetReached("spending cap")
        return world.evaluate(instruction, examples)

    with pytest.raises(BudgetReached):
        search(world.problem(evaluate=broke), "name alpha", max_answers=600)
    quiet = search(World().problem(), "x", max_answers=600, stop=lambda: True)
    assert quiet.kept and quiet.proposals == 0 and quiet.ceiling.high == 1.0


def test_the_ceiling_is_a_bound() -> None:
    none = ceiling(30, [], 0.2)
    assert none.estimate == 0.0 and 0.02 < none.high < 0.03  # .2 x (1 - .025 ** (1 / 30))
    assert none.high == pytest.approx(0.2 * (1 - 0.025 ** (1 / 30)))
    gain = np.array([1.0, 0, 0, 0, 0, 0, 0, 0, -1.0, 1.0])
    some = ceiling(10, [gain], 0.5)
    assert some.estimate == pytest.approx(0.01) and some.estimate < some.high <= 0.5
    assert ceiling(10, [gain], 0.0).high == 0.0
    assert ceiling(0, [], 0.4).high == 0.4


def test_the_bound_holds_where_the_truth_is_known() -> None:
    """Proposals that improve with a known chance, by a known amount on average."""
    rng = np.random.default_rng(0)
    chance, held = 0.15, 0
    for _ in range(400):
        successes = int(rng.binomial(20, chance))
        gains = [rng.choice([1.0, 0.0, -1.0], 200, p=[0.08, 0.9, 0.02]) for _ in range(successes)]
        held += ceiling(20, gains, 0.3).high >= chance * 0.06
    assert held / 400 >= 0.95
