"""Decides which answers are good enough to learn from: those that people, other arms or a judge accept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tunepoint.capture.records import CapturedRequest, Feedback
from tunepoint.capture.targets import expected_targets, read_target
from tunepoint.data.examples import HUMAN, Example
from tunepoint.models.chat import Prompt

Accepted = Literal["corrected", "feedback", "agreement", "scorer"]
"""Why an answer was accepted; written to harvested examples, so the words are stable."""
Judge = Callable[[Sequence[str], Sequence[Example]], Sequence[float | None]]
"""(answers, examples without a target) -> score of each answer, 0 to 1; None where it gave none."""
Embed = Callable[[Sequence[str]], NDArray[np.float32]]
"""(texts) -> (n, width) vectors."""
UNACCEPTED = "that nobody accepted"
"""Why a question gives no example where no judge decides."""
Rejections = Counter[str]
"""Reason -> how many questions were left out for it."""


@dataclass(frozen=True)
class Question:
    """A request with the answers of all arms, and people's feedback."""

    request: CapturedRequest
    copies: tuple[CapturedRequest, ...]
    """Answers of shadows."""
    feedback: tuple[Feedback, ...]


@dataclass(frozen=True)
class HarvestedExample:
    """One example, and why it was accepted."""

    example: Example
    accepted: Accepted
    arm: str
    request: str
    """Id of the request."""
    at: float = 0.0
    """When the question came, in seconds since 1970."""


@dataclass(frozen=True)
class Rules:
    """What is good enough."""

    accept: float = 0.9
    """Lowest score, of feedback or the judge, that accepts an answer."""
    most_per_label: int | None = None
    """Examples of one label, at most; all if None."""
    judge: Judge | None = None
    """Grades answers that nothing else accepts or rejects; they are left out if None."""
    embed: Embed | None = None
    """For the audit of labels; no audit if None."""
    licence: str | None = None
    """Written on every example; that of the request if None."""


def accept(question: Question, template: Prompt, rules: Rules) -> HarvestedExample | str | None:
    """Accept or reject a question's answer.

    A person's correction counts before everything else, then feedback, then agreement of two arms.

    Args:
        question: a request with all that is known of it.
        template: of the task's answers: nothing becomes an example that cannot be its target.
        rules: what is good enough.

    Returns:
        An example; or the reason why it is none; or None where only a judge can tell.

    """
    request = question.request
    if not request.input.strip():
        return "without text, or with text that was not kept"
    corrections = [feedback.correction for feedback in question.feedback if feedback.correction]
    if corrections:
        target = read_target(template, corrections[-1])
        if target is None:
            return _correction_fault(template)
        return _example(question, target, "corrected", rules)
    votes = _votes(question.feedback)
    # One rejection outweighs any praise: a doubtful example costs more than it teaches.
    if votes and min(votes) < rules.accept:
        return "rejected by feedback"
    text = answer_of(request)
    if text is None or request.format_ok is False:
        return "with an answer that could not be parsed"
    answer = read_target(template, text)
    if answer is None:
        return _answer_fault(template)
    if votes:
        return _example(question, answer, "feedback", rules)
    others = [answer_of(copy) for copy in question.copies if copy.arm != request.arm]
    targets = [None if other is None else read_target(template, other) for other in others]
    if any(target is not None and _same_text(target, answer) for target in targets):
        return _example(question, answer, "agreement", rules)
    return "with another answer from another arm" if others else None


def accept_by_judge(
    questions: Sequence[Question], template: Prompt, rules: Rules, rejections: Rejections
) -> list[HarvestedExample]:
    """Let the judge grade what nothing else accepts or rejects; there is nothing without one."""
    if rules.judge is None or not questions:
        return []
    answers = [read_target(template, answer_of(question.request) or "") or "" for question in questions]
    examples = [Example(question.request.id, question.request.input, "") for question in questions]
    accepted = []
    for question, answer, score in zip(questions, answers, rules.judge(answers, examples), strict=True):
        if score is None:
            rejections["that the judge could not grade"] += 1
        elif score < rules.accept:
            rejections["rejected by the judge"] += 1
        else:
            accepted.append(_example(question, answer, "scorer", rules))
    return accepted


def answer_of(request: CapturedRequest) -> str | None:
    """The parsed answer; the whole text where nobody parsed it."""
    text = request.answer
    if text is None and request.format_ok is None:
        text = request.output
    return (text or "").strip() or None


def _votes(feedback: Sequence[Feedback]) -> list[float]:
    scores = [entry.score if entry.score is not None else entry.thumbs for entry in feedback]
    return [float(score) for score in scores if score is not None]


def _correction_fault(template: Prompt) -> str:
    if template.kind == "label":
        return "corrected to a label that the task does not have"
    return f"corrected to what is not {expected_targets(template)}"


def _answer_fault(template: Prompt) -> str:
    if template.kind == "label":
        return "with an answer that is not a label of the task"
    return f"with an answer that is not {expected_targets(template)}"


def _same_text(answer: str, other: str) -> bool:
    return " ".join(answer.casefold().split()) == " ".join(other.casefold().split())


def _example(question: Question, target: str, accepted: Accepted, rules: Rules) -> HarvestedExample:
    request = question.request
    example = Example(
        id=request.id,
        input=request.input.strip(),
        target=target,
        group=request.user,  # all questions of a user stay on one side of a split
        slice=request.slice,
        origin=HUMAN if accepted == "corrected" else f"{request.model}, arm {request.arm}",
        licence=rules.licence or request.licence,
    )
    return HarvestedExample(example, accepted, request.arm, request.id, request.at)
