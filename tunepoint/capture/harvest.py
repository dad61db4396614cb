"""Captured traffic becomes examples: what somebody accepted or corrected, once, and never the sealed test."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.random import Generator

from tunepoint.capture.records import CapturedRequest, Feedback
from tunepoint.capture.store import Store
from tunepoint.data.audit import doubtful_labels
from tunepoint.data.dedupe import first_twins, near_twins, normalize
from tunepoint.data.examples import HUMAN, Example
from tunepoint.errors import DataError
from tunepoint.files.text import write_text
from tunepoint.task.task import Task

Accepted = Literal["corrected", "feedback", "agreement", "scorer"]
HERE = "this machine"
"""The model of arms that run in the gateway: what they write is ours."""
Judge = Callable[[Sequence[str], Sequence[Example]], Sequence[float | None]]
"""(answers, examples whose target is not known) -> score of each, 0..1; None where it gave none."""
Embed = Callable[[Sequence[str]], np.ndarray]


@dataclass(frozen=True)
class Harvested:
    """One example, and why it was taken."""

    example: Example
    accepted: Accepted
    arm: str
    request: str
    at: float = 0.0
    """When it was asked, in seconds since 1970."""


@dataclass(frozen=True)
class Harvest:
    """What was taken, and why the rest was left."""

    taken: tuple[Harvested, ...]
    looked_at: int
    """Questions that were answered; copies for shadows belong to theirs."""
    left: Mapping[str, int]
    """Reason -> how many questions, the commonest first."""

    @property
    def counts(self) -> dict[str, int]:
        """Target -> how many examples."""
        return dict(Counter(one.example.target for one in self.taken).most_common())

    @property
    def by_way(self) -> dict[str, int]:
        """How accepted -> how many examples."""
        return dict(Counter(one.accepted for one in self.taken).most_common())

    def __str__(self) -> str:
        ways = ", ".join(f"{count} by {way}" for way, count in self.by_way.items()) or "none"
        lines = [f"{len(self.taken)} examples from {self.looked_at} questions: {ways}"]
        return "\n".join([*lines, *(f"  left: {count} {why}" for why, count in self.left.items())])


@dataclass(frozen=True)
class _Question:
    """A request with what all arms answered to it and what people said."""

    request: CapturedRequest
    copies: tuple[CapturedRequest, ...]
    said: tuple[Feedback, ...]


@dataclass(frozen=True)
class Rules:
    """What is good enough."""

    accept: float = 0.9
    """Score from which feedback or the judge accepts."""
    most_per_label: int | None = None
    """Examples of one label at most; all if None."""
    judge: Judge | None = None
    """Grades answers that nobody else has accepted."""
    embed: Embed | None = None
    """(texts) -> (n, width) vectors, for the audit of labels; no audit if None."""
    licence: str | None = None
    """Written on every example; that of the request if None."""


def harvest(
    store: Store,
    task: Task,
    known: Sequence[Example],
    sealed: Sequence[Example],
    rng: Generator,
    rules: Rules | None = None,
) -> Harvest:
    """Take examples from captured traffic.

    A question is accepted if a person corrected its answer (the correction is the target), if feedback
    scores it high enough, if another arm gave the same answer, or if the judge does. What people
    rejected is never taken. Answers of a model are taken only where its terms allow training.

    Args:
        known: examples that are there already; near duplicates of them are left.
        sealed: the sealed test; what resembles it is never taken.
        rng: which of too many examples of a label are kept.
        rules: `score.accept` of the task and nothing else if None.

    """
    rules = rules or Rules(task.score.accept)
    questions = _questions(store, task.name)
    left: Counter[str] = Counter()
    found: list[Harvested] = []
    waiting: list[_Question] = []
    for question in questions:
        taken, why = _looked_at(question, task, rules)
        if taken is not None:
            found.append(taken)
        elif why is None:
            waiting.append(question)
        else:
            left[why] += 1
    found += _judged(waiting, rules, left)
    order = {question.request.id: place for place, question in enumerate(questions)}
    found.sort(key=lambda one: (one.accepted != "corrected", order[one.request]))  # people's word goes first
    found = _apart(_allowed(found, task, left), known, sealed, left)
    if task.answer.kind == "label":
        found = _audited(found, rules.embed, left)
    found = _balanced(found, rules.most_per_label, rng, left)
    return Harvest(tuple(found), len(questions), {why: n for why, n in left.most_common() if n})


def _questions(store: Store, task: str) -> list[_Question]:
    """Answered requests with their copies and feedback, in the order in which they came."""
    requests: list[CapturedRequest] = []
    copies: dict[str, list[CapturedRequest]] = defaultdict(list)
    for one in store.requests(task):
        if one.status >= 400:
            continue
        if one.copy_of is not None:
            copies[one.copy_of].append(one)
        else:
            requests.append(one)
    said = store.feedback([one.id for one in requests])
    return [_Question(one, tuple(copies[one.id]), tuple(said.get(one.id, ()))) for one in requests]


def _looked_at(question: _Question, task: Task, rules: Rules) -> tuple[Harvested | None, str | None]:
    """An example, or why the question is none; neither where only a judge could tell."""
    one = question.request
    if not one.input.strip():
        return None, "have no text, or it was not kept"
    corrections = [said.correction for said in question.said if said.correction]
    if corrections:
        target = corrections[-1].strip()
        if not _fits(target, task):
            return None, "were corrected to a label that the task does not have"
        return _example(question, target, "corrected", HUMAN, rules), None
    scores = [said.score if said.score is not None else said.thumbs for said in question.said]
    votes = [float(score) for score in scores if score is not None]
    if votes and min(votes) < rules.accept:
        return None, "were rejected by feedback"
    answer = _answer(one)
    if answer is None or one.format_ok is False:
        return None, "have an answer that could not be read"
    if not _fits(answer, task):
        return None, "have an answer that is no label of the task"
    writer = _writer(one)
    if votes:
        return _example(question, answer, "feedback", writer, rules), None
    others = [_answer(copy) for copy in question.copies if copy.arm != one.arm]
    if any(other is not None and _same(other, answer) for other in others):
        return _example(question, answer, "agreement", writer, rules), None
    if others:
        return None, "were answered in another way by another arm"
    return None, None


def _answer(request: CapturedRequest) -> str | None:
    """The parsed answer; the text where nobody parsed it."""
    text = (
        request.answer
        if request.answer is not None
        else request.output
        if request.format_ok is None
        else None
    )
    return (text or "").strip() or None


def _writer(request: CapturedRequest) -> str:
    """Who wrote the answer, in the form that a task's origin column has."""
    return f"{request.model}, arm {request.arm}"


def _fits(target: str, task: Task) -> bool:
    """Whether it can be a target of the task."""
    return task.answer.kind != "label" or not task.answer.labels or target in task.answer.labels


def _same(one: str, other: str) -> bool:
    return " ".join(one.casefold().split()) == " ".join(other.casefold().split())


def _example(question: _Question, target: str, way: Accepted, origin: str, rules: Rules) -> Harvested:
    one = question.request
    # A user's questions stay on one side of a split.
    made = Example(
        one.id, one.input.strip(), target, one.user, one.slice, None, origin, rules.licence or one.licence
    )
    return Harvested(made, way, one.arm, one.id, one.at)


def _judged(waiting: Sequence[_Question], rules: Rules, left: Counter[str]) -> list[Harvested]:
    """What nobody has said anything about: the judge's word counts, if there is one."""
    if rules.judge is None:
        left["were accepted by nobody"] += len(waiting)
        return []
    answers = [_answer(question.request) or "" for question in waiting]
    examples = [Example(question.request.id, question.request.input, "") for question in waiting]
    found = []
    for question, answer, score in zip(waiting, answers, rules.judge(answers, examples), strict=True):
        if score is None:
            left["were given no grade by the judge"] += 1
        elif score < rules.accept:
            left["were rejected by the judge"] += 1
        else:
            found.append(_example(question, answer, "scorer", _writer(question.request), rules))
    return found


def _allowed(found: Sequence[Harvested], task: Task, left: Counter[str]) -> list[Harvested]:
    """Without what a model wrote whose terms nobody said allow training on it."""
    allowed = {model.name for model in task.models if model.train_on_outputs}
    kept = []
    for one in found:
        writer = one.example.origin.partition(", arm ")[0]
        if one.accepted == "corrected" or writer == HERE or set(writer.split(", ")) <= {*allowed, HERE}:
            kept.append(one)
        else:
            left[
                f"were written by {writer}: say [[models]] train_on_outputs = true if its terms allow it"
            ] += 1
    return kept


def _apart(
    found: Sequence[Harvested], known: Sequence[Example], sealed: Sequence[Example], left: Counter[str]
) -> list[Harvested]:
    """Without what resembles the sealed test, what is there already, and near duplicates of each other."""
    found = _unlike(found, sealed, "resemble the sealed test", left)
    found = _unlike(found, known, "resemble an example that is there already", left)
    texts = [one.example.input for one in found]
    later = {position for _, position in near_twins(texts)}
    seen: set[str] = set()
    kept = []
    for position, one in enumerate(found):
        plain = normalize(one.example.input) or one.example.input
        if position in later or plain in seen:
            left["resemble another question"] += 1
        else:
            kept.append(one)
        seen.add(plain)
    return kept


def _unlike(
    found: Sequence[Harvested], others: Sequence[Example], why: str, left: Counter[str]
) -> list[Harvested]:
    texts, theirs = [one.example.input for one in found], [other.input for other in others]
    same = {normalize(text) or text for text in theirs}
    twins = first_twins(texts, theirs) if theirs else {}
    kept = []
    for position, one in enumerate(found):
        if position in twins or (normalize(one.example.input) or one.example.input) in same:
            left[why] += 1
        else:
            kept.append(one)
    return kept


def _audited(found: Sequence[Harvested], embed: Embed | None, left: Counter[str]) -> list[Harvested]:
    """Without answers that the other examples contradict; what a person wrote stays."""
    examples = [one.example for one in found]
    if embed is None or len(examples) < 10:
        return list(found)
    doubts = {
        doubt.id
        for doubt in doubtful_labels(examples, embed([e.input for e in examples]), limit=len(examples))
    }
    kept = [one for one in found if one.example.id not in doubts or one.accepted == "corrected"]
    if len(kept) < len(found):
        left["have a label that the other examples contradict"] += len(found) - len(kept)
    return kept


def _balanced(
    found: Sequence[Harvested], most: int | None, rng: Generator, left: Counter[str]
) -> list[Harvested]:
    """At most so many of a label, corrections first, the others by lot."""
    if most is None:
        return list(found)
    order = rng.permutation(len(found)).tolist()
    order.sort(key=lambda position: found[position].accepted != "corrected")
    taken: Counter[str] = Counter()
    kept = []
    for position in order:
        target = found[position].example.target
        if taken[target] < most:
            taken[target] += 1
            kept.append(position)
    if len(kept) < len(found):
        left[f"are more than {most} of their label"] += len(found) - len(kept)
    return [found[position] for position in sorted(kept)]


def write_examples(found: Harvest, task: Task, path: Path) -> None:
    """Write the examples as JSONL with the columns of the task, so that it can be given as its data.

    Raises:
        DataError: the path does not end in .jsonl.

    """
    if path.suffix != ".jsonl":
        raise DataError(f"{path}: harvested examples are written as .jsonl; choose such a name")
    data = task.data
    inputs = data.columns.input if data is not None and len(data.columns.input) == 1 else ("input",)
    names = {
        "id": data.id if data and data.id else "id",
        "group": data.group if data and data.group else "group",
        "slice": data.slice if data and data.slice else "slice",
        "origin": data.origin if data and data.origin else "origin",
        "licence": data.licence if data and data.licence else "licence",
    }
    target = data.target if data is not None else "target"
    lines = []
    for one in found.taken:
        example = replace(one.example, group=one.example.group or one.example.id)
        row = {inputs[0]: example.input, target: example.target}
        row |= {column: getattr(example, name) for name, column in names.items()}
        lines.append(json.dumps({**row, "accepted": one.accepted}, ensure_ascii=False))
    write_text(path, "".join(f"{line}\n" for line in lines))
