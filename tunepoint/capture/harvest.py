"""Turns captured traffic into examples: accepted answers, each once, and never one of the test set."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from numpy.random import Generator

from tunepoint.capture.acceptance import (
    UNACCEPTED,
    Accepted,
    HarvestedExample,
    Question,
    Rejections,
    Rules,
    accept,
    accept_by_judge,
)
from tunepoint.capture.filters import (
    balance_labels,
    drop_doubtful,
    drop_repeated,
    drop_similar,
    drop_unlicensed,
)
from tunepoint.capture.store import PAGE_ROWS, Store
from tunepoint.data.examples import Example, labels_of
from tunepoint.errors import DataError
from tunepoint.files.text import write_text
from tunepoint.models.chat import Prompt
from tunepoint.task.task import Task

ACCEPTED_WORDS: Mapping[Accepted, str] = {
    "corrected": "corrected by people",
    "feedback": "accepted by feedback",
    "agreement": "with the same answer from two arms",
    "scorer": "accepted by the judge",
}


@dataclass(frozen=True)
class Harvest:
    """The examples from a store, and why the other questions gave none."""

    examples: tuple[HarvestedExample, ...]
    questions: int
    """Requests that were answered, copies for shadows not counted."""
    rejections: Mapping[str, int]
    """Reason -> how many questions, the most frequent first."""

    @property
    def by_target(self) -> dict[str, int]:
        """Target -> how many examples, the most frequent first."""
        return dict(Counter(item.example.target for item in self.examples).most_common())

    def __str__(self) -> str:
        counts = Counter(item.accepted for item in self.examples).most_common()
        ways = ", ".join(f"{count} {ACCEPTED_WORDS[way]}" for way, count in counts) or "none"
        lines = [f"{len(self.examples)} examples from {self.questions} questions: {ways}"]
        lines += [f"  left out: {count} {reason}" for reason, count in self.rejections.items()]
        return "\n".join(lines)


def harvest(
    store: Store,
    task: Task,
    known: Sequence[Example],
    sealed: Sequence[Example],
    rng: Generator,
    rules: Rules | None = None,
) -> Harvest:
    """Harvest examples from captured traffic.

    An answer is accepted if a person corrected it (the correction is the target), if feedback scores it
    high enough, if another arm gave the same one, or if the judge accepts it. What people reject is never
    taken, and a model's answers only if its terms allow training.

    Args:
        known: existing examples; near duplicates of them are left out.
        sealed: the test set; nothing similar to it is ever taken.
        rng: draws which examples of a too frequent label are kept.
        rules: those of the task's `score.accept` if None.

    Raises:
        DataError: nobody knows the labels: the task declares none, and there are no examples.

    """
    rules = rules or Rules(task.score.accept)
    template = _template(task, known)
    rejections: Rejections = Counter()
    harvested, questions = _accepted(_questions(store, task.name), template, rules, rejections)
    harvested = drop_unlicensed(harvested, task, rejections)
    harvested = drop_similar(harvested, sealed, "similar to the test set", rejections)
    harvested = drop_similar(harvested, known, "similar to an existing example", rejections)
    harvested = drop_repeated(harvested, rejections)
    if task.answer.kind == "label":
        harvested = drop_doubtful(harvested, rules.embed, rejections)
    harvested = balance_labels(harvested, rules.most_per_label, rng, rejections)
    by_count = {reason: count for reason, count in rejections.most_common() if count}
    return Harvest(tuple(harvested), questions, by_count)


def _template(task: Task, known: Sequence[Example]) -> Prompt:
    """What all answers of the task have in common.

    Raises:
        DataError: it is a task with labels, and nobody knows them.

    """
    labels = labels_of(task, known) if task.answer.kind == "label" else ()
    if task.answer.kind == "label" and not labels:
        raise DataError(
            f"{task.name}: which labels to harvest is not known: the task declares none and has no examples; "
            "list them in answer.labels"
        )
    return Prompt(input="", labels=labels, kind=task.answer.kind, schema=task.answer.json_schema)


def _questions(store: Store, task: str) -> Iterator[Question]:
    """Answered requests with their copies and feedback, in the order in which they came.

    They are read page by page: a store may hold more than the memory.
    """
    answered = (request for request in store.requests(task) if request.status < 400)
    originals = (request for request in answered if request.copy_of is None)
    while page := list(islice(originals, PAGE_ROWS)):
        ids = [request.id for request in page]
        copies, feedback = store.copies(ids), store.feedback(ids)
        for request in page:
            others = tuple(copy for copy in copies.get(request.id, ()) if copy.status < 400)
            yield Question(request, others, tuple(feedback.get(request.id, ())))


def _accepted(
    questions: Iterable[Question], template: Prompt, rules: Rules, rejections: Rejections
) -> tuple[list[HarvestedExample], int]:
    """Accepted examples, corrections first, so that of two similar ones the person's is kept.

    Returns:
        The examples, and how many questions there were.

    """
    harvested: list[HarvestedExample] = []
    undecided: list[Question] = []
    count = 0
    for question in questions:
        count += 1
        result = accept(question, template, rules)
        if isinstance(result, HarvestedExample):
            harvested.append(result)
        elif result is not None:
            rejections[result] += 1
        elif rules.judge is not None:
            undecided.append(question)
        else:
            rejections[UNACCEPTED] += 1
    harvested += accept_by_judge(undecided, template, rules, rejections)
    harvested.sort(key=lambda item: (item.accepted != "corrected", item.at, item.request))
    return harvested, count


def write_examples(harvest: Harvest, task: Task, path: Path) -> None:
    """Write the examples as JSONL with the task's columns, so that the file can be its data.

    Raises:
        DataError: the path does not end in .jsonl.

    """
    if path.suffix != ".jsonl":
        raise DataError(f"{path}: harvested examples are written as .jsonl; choose such a name")
    data = task.data
    inputs = data.columns.input if data is not None and len(data.columns.input) == 1 else ("input",)
    columns = {
        "id": data.id if data and data.id else "id",
        "group": data.group if data and data.group else "group",
        "slice": data.slice if data and data.slice else "slice",
        "origin": data.origin if data and data.origin else "origin",
        "licence": data.licence if data and data.licence else "licence",
    }
    target = data.target if data is not None else "target"
    lines = []
    for item in harvest.examples:
        # Without a user each question is a group of its own, or all of them would stay together.
        example = replace(item.example, group=item.example.group or item.example.id)
        row = {inputs[0]: example.input, target: example.target}
        row |= {column: getattr(example, name) for name, column in columns.items()}
        lines.append(json.dumps({**row, "accepted": item.accepted}, ensure_ascii=False))
    write_text(path, "".join(f"{line}\n" for line in lines))
