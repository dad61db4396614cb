"""From a task to examples that can be trusted: read, de-duplicated, split, audited."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tunepoint.data.audit import DoubtfulLabel, PersonalDataFinding, personal_data, thin_labels
from tunepoint.data.dedupe import Contradiction, Deduplicated, deduplicate
from tunepoint.data.examples import Dropped, Example, fingerprint, read_examples
from tunepoint.data.licences import forbids_training
from tunepoint.data.split import PARTS, Certificate, Split, label_counts, split, split_as_given
from tunepoint.errors import DataError, TaskError, nearest
from tunepoint.stats.streams import Stream, stream
from tunepoint.task.task import Task


@dataclass(frozen=True)
class Audit:
    """What was found in the examples; nothing was changed but what `dropped` lists."""

    read: int
    kept: int
    dropped: tuple[Dropped, ...]
    contradictions: tuple[Contradiction, ...]
    near_duplicates: tuple[tuple[str, str], ...]
    thin: dict[str, int]
    counts: dict[str, int]
    personal: tuple[PersonalDataFinding, ...]
    certificate: Certificate
    groups: int
    origins: dict[str, int]
    """Who wrote the targets -> how many."""
    untrainable: dict[str, int]
    """Why examples are not trained on -> how many; prompts and the test may use them."""
    doubts: tuple[DoubtfulLabel, ...] | None = None
    """Doubtful labels; None until an encoder has looked."""


@dataclass(frozen=True)
class Prepared:
    """The split examples of a task and their audit."""

    split: Split
    audit: Audit
    fingerprint: str
    """SHA-256 of all examples that were kept, and of which of them may be trained on."""

    @property
    def examples(self) -> tuple[Example, ...]:
        """All examples, train first."""
        return (*self.split.train, *self.split.dev, *self.split.test)

    def with_doubts(self, doubts: Sequence[DoubtfulLabel]) -> Prepared:
        """The same, with the doubtful labels filled in."""
        return replace(self, audit=replace(self.audit, doubts=tuple(doubts)))


def prepare(task: Task, seed: int) -> Prepared:
    """Read the task's examples, drop what cannot be used, split and audit them.

    The one owner of the seal: the same task and seed give the same test set everywhere.

    Args:
        task: with `[data]`.
        seed: of the study whose split this is.

    Raises:
        TaskError: the task has no data.
        DataError: the files cannot be read, or hold labels that the task does not know.

    """
    if task.data is None:
        raise TaskError("the task has no [data]; give data.path, or use `decide` on trials")
    rng = stream(seed, Stream.SPLIT)
    parts, empty = _read(task)
    clean = {name: deduplicate(examples) for name, examples in parts.items()}
    if task.data.path is not None:
        whole = clean["all"]
        dealt = split(whole.kept, whole.twins, task.data.split, rng)
    else:
        kept = {name: part.kept for name, part in clean.items()}
        dealt = split_as_given(kept, task.data.split, rng)
    every = (*dealt.train, *dealt.dev, *dealt.test)
    _check_labels(task, every)
    read = len(empty) + sum(len(examples) for examples in parts.values())
    audit = _audit(read, empty, clean, every, dealt, task)
    return Prepared(dealt, audit, _identity(task, sorted(every, key=lambda example: example.id)))


def _identity(task: Task, examples: Sequence[Example]) -> str:
    """The examples, and which of them may be trained on: a study of the one is not that of the other."""
    whole = fingerprint(examples)
    closed = [example.id for example in examples if forbids_training(task, example)]
    return hashlib.sha256(json.dumps([whole, closed]).encode()).hexdigest() if closed else whole


def _read(task: Task) -> tuple[dict[str, list[Example]], list[Dropped]]:
    assert task.data is not None
    sources = (
        {"all": task.data.path}
        if task.data.path
        else {name: getattr(task.data, name) for name in PARTS if getattr(task.data, name)}
    )
    parts: dict[str, list[Example]] = {}
    empty: list[Dropped] = []
    for name, path in sources.items():
        parts[name], dropped = read_examples(task.resolve(path), task.data.columns)
        if name != "all" and task.data.id is None:
            parts[name] = [replace(e, id=f"{name}/{e.id}") for e in parts[name]]
        empty += dropped
    _check_ids(parts)
    return parts, empty


def _check_ids(parts: Mapping[str, Sequence[Example]]) -> None:
    """An id names one example, also where several files were read."""
    seen: dict[str, str] = {}
    for name, part in parts.items():
        for example in part:
            other = seen.setdefault(example.id, name)
            if other != name:
                raise DataError(
                    f"id {example.id!r} stands in the {other} file and in the {name} file; give every "
                    "example an id of its own, or leave data.id out"
                )


def _audit(
    read: int,
    empty: Sequence[Dropped],
    clean: dict[str, Deduplicated],
    every: Sequence[Example],
    dealt: Split,
    task: Task,
) -> Audit:
    twins = [(part.kept[one].id, part.kept[other].id) for part in clean.values() for one, other in part.twins]
    return Audit(
        read=read,
        kept=len(every),
        dropped=(*empty, *(drop for part in clean.values() for drop in part.dropped)),
        contradictions=tuple(c for part in clean.values() for c in part.contradictions),
        near_duplicates=tuple(twins),
        thin=thin_labels(every, declared=task.answer.labels or ()) if task.answer.kind == "label" else {},
        counts=label_counts(every),
        personal=tuple(personal_data(every)),
        certificate=dealt.certificate,
        groups=len({e.group for e in every if e.group is not None}),
        origins=dict(Counter(example.origin for example in every)),
        untrainable=dict(Counter(filter(None, (forbids_training(task, example) for example in every)))),
    )


def _check_labels(task: Task, examples: Sequence[Example]) -> None:
    """Every target is a label that the task declares, and there are two at least."""
    if task.answer.kind != "label":
        return
    declared = task.answer.labels
    for example in examples:
        if declared is not None and example.target not in declared:
            raise DataError(
                f"{example.id}: label {example.target!r} is not in [answer.labels]; "
                f"{nearest(example.target, declared)} Add it there, or mend the row"
            )
    found = {example.target for example in examples}
    spelled: dict[str, str] = {}
    for label in sorted(found):
        other = spelled.setdefault(label.casefold(), label)
        if other != label:
            raise DataError(
                f"the labels {other!r} and {label!r} differ only in upper and lower case; "
                "write them alike in every row"
            )
    if len(found) < 2:
        raise DataError(f"all {len(examples)} examples have the label {found.pop()!r}: nothing to tell apart")
    if len(found) > len(examples) / 2 and len(examples) > 4:
        raise DataError(
            f"{len(found)} different targets in {len(examples)} examples: these are no labels; "
            "is data.target the right column, or answer.kind really 'label'?"
        )
