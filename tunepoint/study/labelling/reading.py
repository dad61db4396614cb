"""From a filled sheet to labels: what stands in a cell, and how the options score by it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

from tunepoint.data.examples import Example, labels_of
from tunepoint.data.prepare import prepare
from tunepoint.data.targets import unreadable_targets
from tunepoint.errors import DataError, nearest
from tunepoint.models.chat import Reply, Usage
from tunepoint.models.label_matching import exact_key
from tunepoint.study.labelling.labels import PoolLabel, person, read_labels, write_labels
from tunepoint.study.labelling.pool import Pool
from tunepoint.study.labelling.sheet import CHOICE, NONE_RIGHT, SHEET, Filled, read_sheet
from tunepoint.study.manifest import read_manifest
from tunepoint.task.sections import JUDGE
from tunepoint.task.task import Task
from tunepoint.trials.grading import grade_replies, task_scorer
from tunepoint.trials.trial import UNREADABLE

GRADES = re.compile(r"[;\s]+")
"""Between grades in a cell."""
GRADE = re.compile(r"#(?P<number>\d+)(?:=(?P<grade>\d+(?:[.,]\d+)?))?")
RIGHT_OR_WRONG = ("label", "number")
"""Kinds of answers of which "none of these" says enough."""


def take_labels(folder: Path, task: Task, pool: Pool) -> tuple[list[PoolLabel], int]:
    """Read the sheet of a study, and score all answers by all labels.

    Args:
        folder: of the study.
        task: its scorer and labels.
        pool: the answers.

    Returns:
        All labels, and how many of them are new.

    Raises:
        DataError: a row of the sheet cannot be read; nothing is changed.

    """
    before = read_labels(folder)
    labels = {(label.item, person(label.by)): label for label in before}
    known = set(labels)
    if (folder / SHEET).exists():
        seed = read_manifest(folder).seed
        names = labels_of(task, prepare(task, seed).examples) if task.answer.kind == "label" else ()
        of_item = {example.id: i for i, example in enumerate(pool.inputs)}
        for filled in read_sheet(folder / SHEET):
            if filled.item not in of_item:
                raise DataError(
                    f"{filled.place}: {filled.item!r} is no input of the pool; leave the column as it is"
                )
            answers = shown(pool, of_item[filled.item], seed)
            if task.score.metric == JUDGE:
                label = _graded(filled, answers, task.score.scale)
            else:
                label = PoolLabel(filled.item, _right(filled, answers, task, names), filled.by, {})
            labels[filled.item, person(filled.by)] = label
    scored = list(labels.values())
    if task.score.metric != JUDGE:  # people's grades are scores already
        scored = _scored(scored, task, pool)
    if scored != before:
        write_labels(folder, scored)
    return scored, len(labels.keys() - known)


def shown(pool: Pool, position: int, seed: int) -> list[str]:
    """Return the different readable answers to an input, in an order that tells nothing, always the same."""
    item = pool.inputs[position].id
    answers = {answer for runs in pool.answers[position] for answer in runs if answer != UNREADABLE}
    return sorted(answers, key=lambda a: hashlib.sha256(f"{seed}\n{item}\n{a}".encode()).digest())


def _graded(filled: Filled, answers: Sequence[str], scale: int) -> PoolLabel:
    """Return people's grades of the answers shown, 0..1: `#1=4 #2=5`, or `#2` for the best grade.

    What a cell does not name has the worst grade, as an unreadable answer has.

    Raises:
        DataError: the cell holds something else, or a grade that is not on the scale.

    """
    advice = f"write #1=GRADE #2=GRADE with grades from 1 to {scale}, #1 alone for {scale}, or {NONE_RIGHT}"
    scores = dict.fromkeys([*answers, UNREADABLE], 0.0)
    if filled.shown != len(answers):
        raise DataError(f"{filled.place}: the pool has other answers to this input by now; clear the cell")
    words = [] if filled.right.casefold() == NONE_RIGHT else GRADES.split(filled.right.strip())
    for word in words:
        match = GRADE.fullmatch(word)
        number = 0 if match is None else int(match["number"])
        grade = 0.0 if match is None else float((match["grade"] or str(scale)).replace(",", "."))
        if not 1 <= number <= len(answers) or not 1 <= grade <= scale:
            raise DataError(f"{filled.place}: right is {filled.right!r}; {advice}")
        scores[answers[number - 1]] = (grade - 1) / (scale - 1)
    best = [answer for answer in answers if scores[answer] == max(scores.values()) > 0]
    return PoolLabel(filled.item, "\n".join(sorted(best)) or None, filled.by, scores)


def _scored(labels: Sequence[PoolLabel], task: Task, pool: Pool) -> list[PoolLabel]:
    """Score every answer by every label, answers that came after the label too."""
    scoring = task_scorer(task)
    answers_to = {}
    for example, own in zip(pool.inputs, pool.answers, strict=True):
        of_parts = (part.get(example.id, UNREADABLE) for part in pool.of_parts.values())
        answers_to[example.id] = sorted({*chain(*own), *of_parts})
    scored = []
    for label in labels:
        answers = answers_to.get(label.item, [])
        if label.right is None:
            # none of those shown then: an answer that came later may be right
            scores = label.scores or dict.fromkeys(answers, 0.0)
        else:
            replies = [_reply(answer) for answer in answers]
            graded = grade_replies(scoring, replies, [Example(label.item, "", label.right)] * len(answers))
            scores = {a: grading.score or 0.0 for a, grading in zip(answers, graded, strict=True)}
        scored.append(replace(label, scores=scores))
    return scored


def _reply(answer: str) -> Reply:
    if answer == UNREADABLE:
        return Reply("", None, Usage("pool"), format_ok=False)
    return Reply(answer, answer, Usage("pool"))


def _right(filled: Filled, answers: Sequence[str], task: Task, labels: Sequence[str]) -> str | None:
    """Return the right answer that a cell gives; None for none of those shown.

    Raises:
        DataError: the cell names no column, and is no answer of the task.

    """
    text, kind = filled.right, task.answer.kind
    number = text.removeprefix(CHOICE)
    if text.startswith(CHOICE) and number.isdecimal():
        return _column(filled, answers, int(number), kind)
    if kind == "label":
        match = next((label for label in labels if exact_key(label) == exact_key(text)), None)
        if match is not None:
            return match
        if text.isdecimal() and not any(c.isdecimal() for label in labels for c in label):
            return _column(filled, answers, int(text), kind)
    if text.casefold() == NONE_RIGHT and kind in RIGHT_OR_WRONG:
        return None
    if kind == "label":
        raise DataError(f"{filled.place}: {text!r} is no label of the task; {nearest(text, labels)}")
    for fault in unreadable_targets(kind, [Example(filled.item, "", text)]):
        raise DataError(f"{filled.place}: right is {text!r}: {fault.reason}; {_choices(answers, kind)}")
    return text


def _column(filled: Filled, answers: Sequence[str], number: int, kind: str) -> str:
    """Return the answer in a column of the sheet.

    Raises:
        DataError: there is no such column, or the row does not show what the pool holds by now.

    """
    if filled.shown != len(answers):
        raise DataError(
            f"{filled.place}: {filled.shown} answers are shown, and the pool has {len(answers)} to this "
            "input; clear the cell, and run `tunepoint label` for a new sheet"
        )
    if not 1 <= number <= len(answers):
        raise DataError(
            f"{filled.place}: right is {filled.right!r}, and {len(answers)} answers are shown: "
            f"{_choices(answers, kind)}"
        )
    return answers[number - 1]


def _choices(answers: Sequence[str], kind: str) -> str:
    """Return what may stand in the cell."""
    none = f", or {NONE_RIGHT}" if kind in RIGHT_OR_WRONG else ""
    return f"write {CHOICE}1 to {CHOICE}{len(answers)}{',' if none else ' or'} the right answer itself{none}"
