"""Preparation of a task's examples: read, de-duplicate, split, audit."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tunepoint.data.audit import DoubtfulLabel, PersonalDataFinding, personal_data, thin_labels
from tunepoint.data.dedupe import Contradiction, Deduplicated, deduplicate
from tunepoint.data.examples import Dropped, Example, fingerprint, read_source
from tunepoint.data.licences import forbids_training
from tunepoint.data.split import PARTS, SET_NAMES, Certificate, Split, label_counts, split, split_given_parts
from tunepoint.data.targets import (
    UnreadableTarget,
    meaning_of,
    missing_values,
    unify_labels,
    unreadable_targets,
)
from tunepoint.errors import DataError, TaskError, nearest
from tunepoint.stats.streams import Stream, stream
from tunepoint.task.sections import Data
from tunepoint.task.task import Task

_UNSPLIT = "all"
"""The name of one file with all examples, among the names of the parts."""
_NAMES_OTHERS = {
    "contradicts": "contradict a copy of their input, which has another target",
    "copy of": "are copies",
}
"""Beginnings of reasons that name other rows -> the reason in words."""


@dataclass(frozen=True)
class Audit:
    """Findings about the examples. Only the examples in `dropped` were taken out.

    The names of the fields are keys in the files of a study.
    """

    read: int
    """Rows in the files."""
    kept: int
    """Examples in the three parts of the split."""
    dropped: tuple[Dropped, ...]
    """Examples that were left out, each with its reason."""
    contradictions: tuple[Contradiction, ...]
    """Inputs that occur with different targets."""
    near_duplicates: tuple[tuple[str, str], ...]
    """Pairs of ids of near duplicates, which are on one side of the split."""
    thin: dict[str, int]
    """Label with too few examples -> examples."""
    counts: dict[str, int]
    """Target -> examples, most frequent first."""
    personal: tuple[PersonalDataFinding, ...]
    """Inputs with personal data."""
    certificate: Certificate
    """What the test set has in common with the other parts."""
    groups: int
    """Different values of data.group."""
    origins: dict[str, int]
    """Who wrote the targets -> examples."""
    untrainable: dict[str, int]
    """Reason not to train on examples -> examples; prompts and the test set may use them."""
    unreadable: tuple[UnreadableTarget, ...] = ()
    """Targets that are no number or no JSON, though the task says so."""
    notes: tuple[str, ...] = ()
    """What was found in the files and how it was read, a sentence each."""
    doubts: tuple[DoubtfulLabel, ...] | None = None
    """Doubtful labels; None until an encoder has checked them."""


@dataclass(frozen=True)
class Prepared:
    """The examples of a task, split and audited."""

    split: Split
    audit: Audit
    fingerprint: str
    """SHA-256 of all kept examples, and of which of them may be trained on."""

    @property
    def examples(self) -> tuple[Example, ...]:
        """All kept examples: training, validation, test set."""
        return (*self.split.train, *self.split.dev, *self.split.test)

    def with_doubts(self, doubts: Sequence[DoubtfulLabel]) -> Prepared:
        """Return a copy whose audit has the doubtful labels."""
        return replace(self, audit=replace(self.audit, doubts=tuple(doubts)))


def prepare(task: Task, seed: int) -> Prepared:
    """Read the task's examples, drop those that cannot be used, split and audit the rest.

    The same task and seed give the same test set everywhere.

    Args:
        task: with `[data]`.
        seed: of the study whose split this is.

    Raises:
        TaskError: the task has no data.
        DataError: the files cannot be read, hold labels that the task does not declare, or are too few.

    """
    if task.data is None:
        raise TaskError("the task has no [data]; give data.path, or use `decide` on trials")
    # A stream of its own: the test set depends on nothing else that a study draws.
    rng = stream(seed, Stream.SPLIT)
    sources = _read(task)
    meaning = meaning_of(task.answer.kind)
    clean = {name: deduplicate(part, meaning=meaning) for name, part in sources.parts.items()}
    dropped = (*sources.dropped, *(row for file in clean.values() for row in file.dropped))
    empty = [name for name, file in clean.items() if not file.kept]
    if empty:
        of_part = "" if empty[0] == _UNSPLIT else f" for the {SET_NAMES[empty[0]]}"
        raise DataError(f"no example is left{of_part}{_losses(dropped, sources.rows)}")
    try:
        sets = _split(task.data, clean, rng)
    except DataError as error:
        ties = "" if "near duplicates" in str(error) else _ties(clean)
        raise DataError(f"{error}{ties}{_losses(dropped, sources.rows)}") from None
    examples = (*sets.train, *sets.dev, *sets.test)
    _check_labels(task, examples)
    audit = _audit(task, sets, clean, sources)
    return Prepared(sets, audit, _fingerprint(task, examples))


def _split(data: Data, clean: Mapping[str, Deduplicated], rng: np.random.Generator) -> Split:
    """Return the split of the only file, or the parts as their files give them."""
    if data.path is None:
        return split_given_parts({name: part.kept for name, part in clean.items()}, data.split, rng)
    unsplit = clean[_UNSPLIT]
    return split(unsplit.kept, unsplit.near_duplicates, data.split, rng)


def _losses(dropped: Sequence[Dropped], read: int) -> str:
    """Return why rows were left out, as a clause with counts and the first row of each reason."""
    if not dropped:
        return ""
    of_reason: dict[str, list[Dropped]] = defaultdict(list)
    for row in dropped:
        # Without the ids of other rows, which every such row has in its reason.
        of_reason[next((kind for kind in _NAMES_OTHERS if row.reason.startswith(kind)), row.reason)].append(
            row
        )
    reasons = "; ".join(
        f"{len(rows)} {_NAMES_OTHERS[reason]} (the first: {rows[0].id} {rows[0].reason.split(',')[0]})"
        if reason in _NAMES_OTHERS
        else f"{len(rows)} {reason} (the first: {rows[0].id})"
        for reason, rows in sorted(of_reason.items(), key=lambda item: -len(item[1]))
    )
    return f". {len(dropped)} of {read} rows were left out: {reasons}"


def _ties(clean: Mapping[str, Deduplicated]) -> str:
    """Return, as a clause, that near duplicates tie more than half of the examples together."""
    links = sum(len(file.near_duplicates) for file in clean.values())
    kept = sum(len(file.kept) for file in clean.values())
    return f". Near duplicates tie the {kept} examples together ({links} links)" if 2 * links > kept else ""


def _fingerprint(task: Task, examples: Sequence[Example]) -> str:
    """Return the SHA-256 of the examples and of which of them may be trained on.

    Two studies of the same examples differ if one may train on rows that the other may not.
    """
    ordered = sorted(examples, key=lambda example: example.id)
    data = fingerprint(ordered)
    forbidden = [example.id for example in ordered if forbids_training(task, example)]
    return hashlib.sha256(json.dumps([data, forbidden]).encode()).hexdigest() if forbidden else data


@dataclass(frozen=True)
class _Sources:
    """What the files of a task hold."""

    parts: Mapping[str, Sequence[Example]]
    """Examples of each file, by the part that it holds."""
    dropped: tuple[Dropped, ...]
    """Rows that are no examples."""
    notes: tuple[str, ...]

    @property
    def rows(self) -> int:
        """Rows in all files."""
        return len(self.dropped) + sum(len(part) for part in self.parts.values())


def _read(task: Task) -> _Sources:
    """Return what the files hold, with labels that are numbers in one spelling."""
    assert task.data is not None
    data = task.data
    if data.path is not None:
        sources = {_UNSPLIT: data.path}
    else:
        files = zip(PARTS, (data.train, data.dev, data.test), strict=True)
        sources = {name: path for name, path in files if path is not None}
    parts: dict[str, list[Example]] = {}
    dropped: list[Dropped] = []
    notes: list[str] = []
    for name, path in sources.items():
        source = read_source(task.resolve(path), data.columns)
        parts[name] = list(source.examples)
        if name != _UNSPLIT and data.id is None:
            # Two files in different folders may have one name, and then the same `FILE:LINE`.
            parts[name] = [replace(example, id=f"{name}/{example.id}") for example in parts[name]]
        dropped += source.dropped
        notes += source.notes
    _check_ids(parts)
    if task.answer.kind == "label":
        parts, unified = unify_labels(parts, list(task.answer.labels or ()))
        notes += unified
    return _Sources(parts, tuple(dropped), tuple(notes))


def _check_ids(parts: Mapping[str, Sequence[Example]]) -> None:
    """Raise an error if an id is in two files."""
    file_of: dict[str, str] = {}
    for name, part in parts.items():
        for example in part:
            other = file_of.setdefault(example.id, name)
            if other != name:
                raise DataError(
                    f"the id {example.id!r} is in the {other} file and in the {name} file; give every "
                    "example its own id, or leave data.id out"
                )


def _audit(task: Task, sets: Split, clean: Mapping[str, Deduplicated], sources: _Sources) -> Audit:
    """Return the findings about the examples.

    Args:
        task: declares the labels, and what may be trained on.
        sets: the three parts of the split.
        clean: the de-duplicated examples of each file.
        sources: what the files hold.

    """
    examples = (*sets.train, *sets.dev, *sets.test)
    in_files = [example for file in clean.values() for example in file.kept]
    labels = task.answer.labels or ()
    reasons = (forbids_training(task, example) for example in examples)
    return Audit(
        read=sources.rows,
        kept=len(examples),
        dropped=(*sources.dropped, *(dropped for file in clean.values() for dropped in file.dropped)),
        contradictions=tuple(text for file in clean.values() for text in file.contradictions),
        near_duplicates=tuple(
            (file.kept[earlier].id, file.kept[later].id)
            for file in clean.values()
            for earlier, later in file.near_duplicates
        ),
        thin=thin_labels(examples, declared=labels) if task.answer.kind == "label" else {},
        counts=label_counts(examples),
        personal=tuple(personal_data(examples)),
        certificate=sets.certificate,
        groups=len({example.group for example in examples if example.group is not None}),
        origins=dict(Counter(example.origin for example in examples)),
        untrainable=dict(Counter(reason for reason in reasons if reason)),
        unreadable=unreadable_targets(task.answer.kind, in_files),
        notes=(*sources.notes, *missing_values(in_files)),
    )


def _check_labels(task: Task, examples: Sequence[Example]) -> None:
    """Raise an error unless the targets are labels: declared ones, spelled alike, and at least two."""
    if task.answer.kind != "label":
        return
    declared = task.answer.labels
    for example in examples:
        if declared is not None and example.target not in declared:
            raise DataError(
                f"{example.id}: label {example.target!r} is not in [answer.labels]; "
                f"{nearest(example.target, declared)} Add it there, or correct the row"
            )
    labels = {example.target for example in examples}
    spellings: dict[str, str] = {}
    for label in sorted(labels):
        other = spellings.setdefault(label.casefold(), label)
        if other != label:
            raise DataError(
                f"the labels {other!r} and {label!r} differ only in upper and lower case; "
                "write them alike in every row"
            )
    if len(labels) < 2:
        raise DataError(
            f"all {len(examples)} examples have the label {labels.pop()!r}; add examples of other labels"
        )
    if len(labels) > len(examples) / 2 and len(examples) > 4:
        raise DataError(
            f"{len(labels)} different targets in {len(examples)} examples do not look like labels; "
            "check whether data.target is the right column, and whether answer.kind is really 'label'"
        )
