"""The calls of chat models that a study will make, as low, likely and high guesses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from types import MappingProxyType

import numpy as np

from tunepoint.arms.catalog import CURVE_SHARES, MAX_FINALISTS, CandidateArms
from tunepoint.arms.contract import Arm
from tunepoint.arms.prompting.chains import Chain
from tunepoint.arms.prompting.chat_prompts import ChatPrompt
from tunepoint.arms.prompting.written import WrittenPromptArm
from tunepoint.data.examples import Example
from tunepoint.data.split import Split
from tunepoint.models.endpoints import request_of
from tunepoint.stats.racing import BATCH_LOOK_GROWTH, FIRST_LOOK_ITEMS, look_sizes
from tunepoint.study.racing import MIN_OPTIONS, answers, stops_far_behind
from tunepoint.task.task import Task
from tunepoint.trials.judge import GRADES_PER_ANSWER, REPEAT_ONE_IN

CHARACTERS_PER_TOKEN = (5.0, 4.0, 2.5)
"""For a low, likely and high price."""
REASONING_TOKENS = (80.0, 250.0, 700.0)
"""Output of a call that reasons first: low, likely and high."""
GRADING_CHARACTERS = 700
"""Of a judge's question, apart from the task's own."""
MIN_GRADED_SHARE = 0.2
"""Of all answers, where arms answer alike: equal answers are graded once."""
TESTED_CHAT_ARMS = 3
"""Chat arms among the finalists, at most."""
ITEMS_ASKED_AT_ONCE = 32
"""Test items that each chat arm answers at once, to be timed, where the others go by batch."""
HIGH_REPAIRS = 1.5
"""Calls per answer in the high guess: half of the replies are repaired with a second call."""
SAMPLED_EXAMPLES = 5
"""Examples whose prompts stand for all."""

Guess = tuple[float, float, float]
"""Low, likely and high."""


@dataclass(frozen=True)
class ExpectedCalls:
    """Calls of one arm, and the size of a call."""

    model: str
    calls: Guess
    input_tokens: Guess
    """Of a call."""
    output_tokens: Guess
    """Of a call."""
    answers: Guess = (0.0, 0.0, 0.0)
    """What the calls amount to; a chain or a vote makes several calls for one answer."""
    answer_seconds: Guess | None = None
    """Of an answer, where some were timed."""
    at_once: float = 0.0
    """Calls that are asked at once where the others go by batch."""

    def share_by_batch(self, guess: int) -> float:
        """Return the share of the calls that go by batch, in the low, likely or high guess: 0, 1 or 2."""
        return max(0.0, 1 - self.at_once / self.calls[guess]) if self.calls[guess] else 0.0


def batch_waits(task: Task, candidates: CandidateArms, split: Split) -> int:
    """Return about how often a study whose calls go by batch waits for one: at looks, and in the test."""
    # the answers of the first look are asked at once
    looks = len(look_sizes(len(split.dev), BATCH_LOOK_GROWTH)) - 1
    waves = 2 if task.score.judge is not None else 1  # a judge grades after every look
    return waves * (looks * len(families(candidates)) + 1) + bool(candidates.distillers)


def families(candidates: CandidateArms) -> list[list[Arm]]:
    """Return the arms that race, family by family."""
    ordered = sorted(candidates.raced, key=lambda arm: arm.family)
    return [list(arms) for _, arms in groupby(ordered, key=lambda arm: arm.family)]


def study_calls(
    task: Task, candidates: CandidateArms, split: Split, timed: Mapping[str, float] = MappingProxyType({})
) -> list[ExpectedCalls]:
    """Return the calls of the races, the sealed test, the prompt search, a teacher and a judge.

    Args:
        task: of the study.
        candidates: its arms.
        split: its examples.
        timed: family -> seconds of an answer, where some were timed.

    """
    calls = _arm_calls(task, candidates, split, timed) if candidates.raced else []
    if task.score.judge is not None:
        calls.append(_grading_calls(task, task.score.judge.name, candidates, calls, split))
    return calls


def _arm_calls(
    task: Task, candidates: CandidateArms, split: Split, timed: Mapping[str, float]
) -> list[ExpectedCalls]:
    train, dev, test = map(len, (split.train, split.dev, split.test))
    calls = []
    for number, arms in enumerate(families(candidates)):
        one_goes_on = number < MIN_OPTIONS or not stops_far_behind(task)
        race = calls_of(task, arms[0], split, answers(len(arms), dev, one_goes_on=one_goes_on))
        seconds = timed.get(arms[0].family)
        answer_seconds = None if seconds is None else (seconds,) * 3
        first_look = len(arms) * min(FIRST_LOOK_ITEMS, dev) * race.calls[1] / race.answers[1]
        calls.append(replace(race, answer_seconds=answer_seconds, at_once=first_look))
    # any arm may win, so the one with the most calls stands for the winner in all that follows
    largest = replace(max(calls, key=lambda family: family.calls[1]), answer_seconds=_any_seconds(calls))
    decodes = {model.name: model.decodes for model in task.models}.get(largest.model, 1)
    tested = TESTED_CHAT_ARMS * test * decodes
    timed_calls = float(TESTED_CHAT_ARMS * decodes * min(ITEMS_ASKED_AT_ONCE, test))
    calls.append(replace(_with_answers(largest, (decodes * test, tested, tested)), at_once=timed_calls))
    if candidates.distillers:
        calls.append(_with_answers(largest, (float(train), float(train), float(decodes * train))))
    if task.search.calls:
        # a search looks at dev once at least, and one look past its limit at most
        limit = float(task.search.calls)
        searched = _with_answers(largest, (min(limit, dev), limit, limit + 3.0 * dev))
        calls.append(replace(searched, at_once=searched.calls[2]))  # each prompt depends on the last score
    return calls


def _any_seconds(calls: Sequence[ExpectedCalls]) -> Guess | None:
    """Seconds of an answer of any family: the fastest, the mean and the slowest."""
    seconds = [family.answer_seconds[1] for family in calls if family.answer_seconds is not None]
    return (min(seconds), float(np.mean(seconds)), max(seconds)) if seconds else None


def _with_answers(calls: ExpectedCalls, answered: Guess) -> ExpectedCalls:
    """Another number of answers by the same arm."""
    repeated = (answered[0], answered[1], HIGH_REPAIRS * answered[2])
    return replace(calls, calls=repeated, answers=answered, at_once=0.0)


def calls_of(task: Task, arm: Arm, split: Split, answered: Guess) -> ExpectedCalls:
    """Return the calls of an arm that gives so many answers, by the prompts that it would send.

    Args:
        task: of the study.
        arm: a chat prompt, a chain or a prompt that somebody wrote.
        split: training set for demonstrations, validation set for inputs.
        answered: number of answers.

    """
    assert isinstance(arm, (ChatPrompt, Chain, WrittenPromptArm))
    rng, sample = np.random.default_rng(0), split.dev[:SAMPLED_EXAMPLES]
    inputs = [example.input for example in sample]
    if isinstance(arm, ChatPrompt):
        calls_per_answer, reasoning = arm.style.samples, arm.style.reasoning
        prompts = arm.fit(task, split.train, rng).prompts(inputs)
    elif isinstance(arm, WrittenPromptArm):
        calls_per_answer, reasoning = 1, True  # nobody knows whether it lets the model think first
        prompts = arm.fit(task, split.train, rng).prompts(inputs)
    else:
        calls_per_answer, reasoning = len(arm.steps) + 1, True
        template = arm.fit(task, split.train, rng).template
        prompts = [replace(template, input=text) for text in inputs]
    lengths = [sum(len(message.content) for message in request_of(p).messages) for p in prompts]
    characters = float(np.mean(lengths))
    target = float(np.mean([len(example.target) for example in sample]))
    low, likely, high = (3.0 + target / size for size in CHARACTERS_PER_TOKEN)
    calls = [number * calls_per_answer for number in answered]
    return ExpectedCalls(
        arm.model.name,
        (calls[0], calls[1], calls[2] * HIGH_REPAIRS),
        _tokens(characters),
        REASONING_TOKENS if reasoning else (low, likely, 3 * high),
        answered,
    )


def _grading_calls(
    task: Task, judge: str, candidates: CandidateArms, calls: Sequence[ExpectedCalls], split: Split
) -> ExpectedCalls:
    """The calls of a judge: every answer in both orders; equal answers once."""
    dev, test = len(split.dev), len(split.test)
    local = sum(arm.seeds for arm in candidates.local) * dev
    if candidates.curve_arm is not None:
        local += len(CURVE_SHARES) * dev
    if candidates.local:
        local += MAX_FINALISTS * test
    local += len(candidates.incumbents) * (dev + test)
    graded = [local + sum(part.answers[i] for part in calls) for i in range(3)]
    calls_per_answer = GRADES_PER_ANSWER + 1 / REPEAT_ONE_IN
    shown: tuple[Example, ...] = (*split.dev[:20], *split.test[:20])
    characters = float(np.mean([len(example.input) + 2 * len(example.target) for example in shown]))
    characters += len(task.instruction) + len(task.score.rubric) + GRADING_CHARACTERS
    low, likely, high = _tokens(characters)
    return ExpectedCalls(
        judge,
        (
            MIN_GRADED_SHARE * calls_per_answer * graded[0],
            calls_per_answer * graded[1],
            HIGH_REPAIRS * calls_per_answer * graded[2],
        ),
        (low, likely, 1.5 * high),  # answers may be longer than targets
        REASONING_TOKENS,
    )


def _tokens(characters: float) -> Guess:
    low, likely, high = (characters / size for size in CHARACTERS_PER_TOKEN)
    return low, likely, high
