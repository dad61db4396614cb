"""What a study will ask of chat models, before it asks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np

from tunepoint.arms.catalog import MOST_FINALISTS, SHARES, CandidateArms
from tunepoint.arms.contract import Arm
from tunepoint.arms.prompting.chains import Chain
from tunepoint.arms.prompting.chat_prompts import ChatPrompt
from tunepoint.data.examples import Example
from tunepoint.models.chat import Usage
from tunepoint.models.endpoints import request_of
from tunepoint.models.prices import CallPrice
from tunepoint.stats.ranges import Range
from tunepoint.study.racing import answers
from tunepoint.task.task import Task
from tunepoint.trials.judge import ORDERS, REPEATED

CHARACTERS = (5.0, 4.0, 2.5)
"""Of a token: low, likely and high price."""
SECONDS = (0.4, 1.5, 5.0)
"""Of a call: low, likely and high."""
THOUGHTS = (80.0, 250.0, 700.0)
"""Output tokens of a call that reasons first."""
ABOUT_GRADING = 700
"""Characters of a judge's question apart from the task's own."""
ALIKE = 0.2
"""Share of answers to grade, at least, where arms answer alike: an answer is graded once."""
TESTED = 3
"""Chat arms among the finalists, at most, that the sealed test asks."""


@dataclass(frozen=True)
class Quote:
    """Calls, tokens, dollars and minutes of a study; recorded calls cost nothing again."""

    calls: Range
    input_tokens: Range
    output_tokens: Range
    usd: Range
    minutes: Range

    def line(self) -> str:
        """The quote in one line, likely and at most."""
        return (
            f"about {self.calls.likely:,.0f} calls (at most {self.calls.high:,.0f}), "
            f"{self.input_tokens.likely:,.0f} input and {self.output_tokens.likely:,.0f} output tokens, "
            f"${self.usd.likely:,.2f} (${self.usd.low:,.2f} to ${self.usd.high:,.2f}), "
            f"{self.minutes.likely:,.0f} minutes ({self.minutes.low:,.0f} to {self.minutes.high:,.0f})"
        )


Three = tuple[float, float, float]
"""Low, likely and high."""


@dataclass(frozen=True)
class _Part:
    """Calls of one arm, and what a call is like."""

    model: str
    calls: Three
    input_tokens: Three
    output_tokens: Three
    answers: Three = (0.0, 0.0, 0.0)
    """What the calls amount to; a chain or a vote makes several calls for one."""


def quote(
    task: Task,
    candidates: CandidateArms,
    train: Sequence[Example],
    dev: Sequence[Example],
    test: Sequence[Example],
    prices: Mapping[str, CallPrice],
    concurrency: int,
) -> Quote | None:
    """What the races on dev, the sealed test and the judge will take; None if no model is asked."""
    parts = _asked(task, candidates, train, dev, test) if candidates.raced else []
    if task.score.judge is not None:
        parts.append(_grading(task, task.score.judge.name, candidates, parts, dev, test))
    return _sum(parts, prices, concurrency) if parts else None


def _asked(
    task: Task,
    candidates: CandidateArms,
    train: Sequence[Example],
    dev: Sequence[Example],
    test: Sequence[Example],
) -> list[_Part]:
    """Calls of the chat models under test."""
    parts = []
    families = groupby(sorted(candidates.raced, key=lambda arm: arm.family), key=lambda arm: arm.family)
    for _, members in families:
        arms = list(members)
        parts.append(_part(task, arms[0], train, dev[:5], answers(len(arms), len(dev))))
    dearest = max(parts, key=lambda part: part.calls[1])
    decodes = {model.name: model.decodes for model in task.models}.get(dearest.model, 1)
    tested = TESTED * len(test) * decodes
    parts.append(_calls(dearest, (decodes * len(test), tested, tested)))
    if candidates.pupils:  # the teacher answers the inputs of train
        most = float(decodes * len(train))
        parts.append(_calls(dearest, (float(len(train)), float(len(train)), most)))
    if task.search.calls:
        parts.append(_searching(task, dearest, len(dev)))
    return parts


def _calls(like: _Part, asked: Three) -> _Part:
    """So many answers of an arm, some of them asked for once more."""
    return replace(like, calls=(asked[0], asked[1], 1.5 * asked[2]), answers=asked)


def _grading(
    task: Task,
    judge: str,
    candidates: CandidateArms,
    parts: Sequence[_Part],
    dev: Sequence[Example],
    test: Sequence[Example],
) -> _Part:
    """What the judge will be asked: every answer in both orders; equal answers once."""
    local = sum(arm.seeds for arm in candidates.local) * len(dev)
    if candidates.growing is not None:
        local += len(SHARES) * len(dev)
    if candidates.local:
        local += MOST_FINALISTS * len(test)
    local += len(candidates.incumbents) * (len(dev) + len(test))
    answers = [local + sum(part.answers[i] for part in parts) for i in range(3)]
    each = ORDERS + 1 / REPEATED
    shown = (*dev[:20], *test[:20])
    letters = float(np.mean([len(e.input) + 2 * len(e.target) for e in shown]))
    letters += len(task.instruction) + len(task.score.rubric) + ABOUT_GRADING
    return _Part(
        judge,
        (ALIKE * each * answers[0], each * answers[1], 1.5 * each * answers[2]),
        (letters / CHARACTERS[0], letters / CHARACTERS[1], 1.5 * letters / CHARACTERS[2]),
        THOUGHTS,
    )


def _searching(task: Task, like: _Part, dev: int) -> _Part:
    """The search for a better prompt: it looks at dev once at least, and one look past its budget at most."""
    most = float(task.search.calls)
    asked = (min(most, dev), most, most + 3.0 * dev)
    return _calls(like, asked)


def _part(task: Task, arm: Arm, train: Sequence[Example], shown: Sequence[Example], asked: Three) -> _Part:
    """Calls of one family, by the prompts that its first arm would send."""
    assert isinstance(arm, (ChatPrompt, Chain))
    rng, inputs = np.random.default_rng(0), [example.input for example in shown]
    if isinstance(arm, ChatPrompt):
        steps, samples, thinking = 1, arm.rung.samples, arm.rung.reasoning
        prompts = arm.fit(task, train, rng).prompts(inputs)
    else:
        steps, samples, thinking = len(arm.steps) + 1, 1, True
        prompts = [replace(arm.fit(task, train, rng).template, input=text) for text in inputs]
    letters = float(np.mean([sum(len(t.content) for t in request_of(p).messages) for p in prompts]))
    target = float(np.mean([len(example.target) for example in shown]))
    plain = [3.0 + target / characters for characters in CHARACTERS]
    out = THOUGHTS if thinking else (plain[0], plain[1], 3 * plain[2])
    calls = [answered * samples * steps for answered in asked]
    return _Part(
        arm.model.name,
        (calls[0], calls[1], calls[2] * 1.5),  # at most half of the replies need a repair
        (letters / CHARACTERS[0], letters / CHARACTERS[1], letters / CHARACTERS[2]),
        out,
        asked,
    )


def _sum(parts: Sequence[_Part], prices: Mapping[str, CallPrice], concurrency: int) -> Quote:
    def total(of: Callable[[_Part, int], float]) -> Range:
        return Range(*(sum(of(part, i) for part in parts) for i in range(3)))

    def dollars(part: _Part, i: int) -> float:
        price = prices.get(part.model)
        usage = Usage(part.model, round(part.input_tokens[i]), 0, round(part.output_tokens[i]))
        return 0.0 if price is None else part.calls[i] * price.dollars(usage)

    return Quote(
        total(lambda part, i: part.calls[i]),
        total(lambda part, i: part.calls[i] * part.input_tokens[i]),
        total(lambda part, i: part.calls[i] * part.output_tokens[i]),
        total(dollars),
        total(lambda part, i: part.calls[i] * SECONDS[i] / concurrency / 60),
    )


def serving(
    task: Task,
    candidates: CandidateArms,
    train: Sequence[Example],
    dev: Sequence[Example],
    prices: Mapping[str, CallPrice],
) -> list[tuple[str, Range]]:
    """Dollars a month at the task's traffic, for the first arm of each way of prompting a chat model."""
    found = []
    volume = task.traffic.queries_per_month
    families = groupby(sorted(candidates.raced, key=lambda arm: arm.family), key=lambda arm: arm.family)
    for family, members in families:
        part = _part(task, next(members), train, dev[:5], (1.0, 1.0, 1.0))
        one = _sum([part], prices, 1).usd
        month = zip((one.low, one.likely, one.high), (volume.low, volume.likely, volume.high), strict=True)
        found.append((family, Range(*(dollars * queries for dollars, queries in month))))
    return found
