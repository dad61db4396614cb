"""Examples of a task: one input with its right answer each, read from a file."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tunepoint.data.rows import read_rows as read_rows  # also for those who import it from here
from tunepoint.data.rows import read_table
from tunepoint.data.table import Row, Table, cell_text, column_names
from tunepoint.errors import DataError, nearest
from tunepoint.task.columns import Columns
from tunepoint.task.task import Task

HUMAN = "human"
"""Origin of an example without a declared one."""
_BEHIND_THE_WRITERS = re.compile(", (?:arm|prompt) ")
"""In an origin, what follows the models: the arm that asked them, or the version of their prompt."""


@dataclass(frozen=True)
class Example:
    """One input with its right answer."""

    id: str
    """The user's own id, or file and line, as in `messages.csv:17`."""
    input: str
    target: str
    """The right answer."""
    group: str | None = None
    """Examples of one group stay on one side of the split."""
    slice: str | None = None
    """A named part of the traffic, such as a language."""
    date: str | None = None
    origin: str = HUMAN
    """Who wrote the target: human, captured, or `MODEL[, MODEL...][, arm ARM | , prompt VERSION]`."""
    licence: str | None = None
    """The license of the example, as its source names it."""

    @property
    def writers(self) -> tuple[str, ...]:
        """The models that took part in writing the target; `("human",)` if a person wrote it."""
        return tuple(name.strip() for name in _BEHIND_THE_WRITERS.split(self.origin)[0].split(","))

    @property
    def writer(self) -> str:
        """The first of `writers`, which is the only one unless the models of a cascade wrote the target."""
        return self.writers[0]


@dataclass(frozen=True)
class Dropped:
    """An example that was left out, and why."""

    id: str
    reason: str


@dataclass(frozen=True)
class Source:
    """What a file holds."""

    examples: tuple[Example, ...]
    dropped: tuple[Dropped, ...]
    """Rows that are no examples."""
    notes: tuple[str, ...]
    """What was found in the file and how it was read, a sentence each."""


def labels_of(task: Task, examples: Sequence[Example]) -> tuple[str, ...]:
    """Return the labels of a task: those it declares, else the sorted labels of its examples."""
    if task.answer.labels:
        return tuple(task.answer.labels)
    return tuple(sorted({example.target for example in examples}))


def read_examples(path: Path, columns: Columns) -> tuple[list[Example], list[Dropped]]:
    """Return the examples of a file, and the rows without an input or a target.

    Raises:
        DataError: as `read_source`.

    """
    source = read_source(path, columns)
    return list(source.examples), list(source.dropped)


def read_source(path: Path, columns: Columns) -> Source:
    """Return the examples of a file, the rows that are none, and what was found in the file.

    A key that a row leaves out is an empty cell, as long as another row has it.

    Raises:
        DataError: a column is missing, two rows have the same id, or no example is left.

    """
    table = read_table(path)
    names = _existing(path, table, columns)
    examples: list[Example] = []
    dropped = [Dropped(f"{path.name}:{line}", reason) for line, reason in table.left_out]
    line_of: dict[str, int] = {}
    for line, row in table.rows:
        identity = _identity(path, line, row, names)
        if identity in line_of:
            raise DataError(
                f"{path}:{line}: the id {identity!r} is on line {line_of[identity]} as well; "
                "give every row its own"
            )
        line_of[identity] = line
        example = _example(row, names, identity)
        missing = "input" if not example.input else "target" if not example.target else None
        if missing:
            dropped.append(Dropped(identity, f"empty {missing}"))
        else:
            examples.append(example)
    if not examples:
        raise DataError(f"{path}: no row has both an input and a target ({len(table.rows)} rows read)")
    return Source(tuple(examples), tuple(dropped), (*table.notes, *_blank_groups(path, examples, names)))


def _identity(path: Path, line: int, row: Row, columns: Columns) -> str:
    """Return the id of a row: the user's own, or file and line."""
    identity = cell_text(row.get(columns.id)) if columns.id else f"{path.name}:{line}"
    if not identity:
        raise DataError(f"{path}:{line}: the id is empty; give every row one, or leave data.id out")
    return identity


def _existing(path: Path, table: Table, columns: Columns) -> Columns:
    """Return the columns by the names that they have in the file, which holds no spaces around them.

    Raises:
        DataError: no row has one of them.

    """
    known = set(column_names(table.rows))

    def existing(name: str) -> str:
        column = name if name in known else name.strip()
        if known and column not in known:
            raise DataError(f"{path}: no column {name!r}; {nearest(name, known)}")
        return column

    optional = {
        field: existing(name)
        for field in ("group", "slice", "date", "id", "origin", "licence")
        if (name := getattr(columns, field))
    }
    return replace(
        columns, input=tuple(map(existing, columns.input)), target=existing(columns.target), **optional
    )


def _blank_groups(path: Path, examples: Sequence[Example], columns: Columns) -> list[str]:
    """Return a note of the examples without a group, if others have one."""
    blank = sum(example.group is None for example in examples)
    if columns.group is None or not blank:
        return []
    return [
        f"{path.name}: {blank} of {len(examples)} examples have no {columns.group!r}; each counts as a group "
        "of its own"
    ]


def _example(row: Row, columns: Columns, identity: str) -> Example:
    def optional(name: str | None) -> str | None:
        return (cell_text(row.get(name)) or None) if name else None

    return Example(
        id=identity,
        input=input_of(row, columns.input),
        target=cell_text(row.get(columns.target)),
        group=optional(columns.group),
        slice=optional(columns.slice),
        date=optional(columns.date),
        origin=optional(columns.origin) or HUMAN,
        licence=optional(columns.licence),
    )


def input_of(row: Row, columns: Sequence[str]) -> str:
    """Return the input of a row; each of several columns stands in it under its name."""
    fields = [(name, cell_text(row.get(name))) for name in columns]
    if len(fields) == 1:
        return fields[0][1]
    return "\n".join(f"{name}: {value}" for name, value in fields if value)


def fingerprint(examples: Sequence[Example]) -> str:
    """Return the SHA-256 of ids, inputs, targets and groups: the identity of a data set."""
    digest = hashlib.sha256()
    for example in examples:
        fields = (example.id, example.input, example.target, example.group)
        digest.update(json.dumps(fields, ensure_ascii=False).encode())
    return digest.hexdigest()
