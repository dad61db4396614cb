"""Grade replies by a task's scorer, or by a judge."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tunepoint.data.examples import Example
from tunepoint.models.chat import Reply, Usage
from tunepoint.models.label_matching import exact_key
from tunepoint.stats.arrays import Floats
from tunepoint.task.task import Task
from tunepoint.trials.scorers import Scorer, scorer


@dataclass(frozen=True)
class Grading:
    """The score of one answer, and where it comes from."""

    score: float | None
    """0..1; None if a judge gave no grade."""
    grades: tuple[float, ...] = ()
    """A judge's single grades, 0..1: answer last, answer first, and perhaps answer last again."""
    why: str = ""
    """The judge's explanation, or why it gave no grade."""
    usage: Usage | None = None
    """Tokens and seconds of a judge's calls."""


BatchScorer = Callable[[Sequence[str], Sequence[Example]], list[Grading]]
"""(answers, examples) -> a grading of each; a judge grades many answers at once."""


def batch_scorer(score: Scorer) -> BatchScorer:
    """Return a batch scorer that scores answer by answer."""

    def score_all(answers: Sequence[str], examples: Sequence[Example]) -> list[Grading]:
        return [Grading(score(answer, example)) for answer, example in zip(answers, examples, strict=True)]

    return score_all


def task_scorer(task: Task) -> BatchScorer:
    """Return the scorer of a task that names one; a judge is opened with the models instead.

    Raises:
        TaskError: the task's metric is not a scorer, or cannot be imported.

    """
    return batch_scorer(scorer(task.score.metric, task.folder, tolerance=task.score.tolerance))


def grade_replies(
    scoring: BatchScorer, replies: Sequence[Reply], examples: Sequence[Example]
) -> list[Grading]:
    """Grade each reply; an unreadable one is worth 0, and the scorer never sees it.

    The target itself, repeated, is an answer of every kind, also where the target is no number
    or no JSON though the task says so.
    """
    answers = [_answer_to_score(reply, example) for reply, example in zip(replies, examples, strict=True)]
    readable = [i for i, answer in enumerate(answers) if answer is not None]
    gradings = [Grading(0.0)] * len(replies)
    graded = scoring([answers[i] or "" for i in readable], [examples[i] for i in readable])
    for i, grading in zip(readable, graded, strict=True):
        gradings[i] = grading
    return gradings


def _answer_to_score(reply: Reply, example: Example) -> str | None:
    if reply.text and exact_key(reply.text) == exact_key(example.target):
        return reply.text  # what was read in it may be less: 5 in 'about 5'
    return reply.answer if reply.format_ok else None


def score_replies(scoring: BatchScorer, replies: Sequence[Reply], examples: Sequence[Example]) -> Floats:
    """Return the (n,) scores of replies; 0 for an unreadable reply, and where a judge gave no grade."""
    return np.array([grading.score or 0.0 for grading in grade_replies(scoring, replies, examples)])
