"""Examples of a task: one input with its right answer each, read from a file."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunepoint.data.rows import Row, read_rows
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


def labels_of(task: Task, examples: Sequence[Example]) -> tuple[str, ...]:
    """Return the labels of a task: those it declares, else the sorted labels of its examples."""
    if task.answer.labels:
        return tuple(task.answer.labels)
    return tuple(sorted({example.target for example in examples}))


def read_examples(path: Path, columns: Columns) -> tuple[list[Example], list[Dropped]]:
    """Return the examples of a file, and the rows without an input or a target.

    Raises:
        DataError: a column is missing, two rows have the same id, or no example is left.

    """
    examples: list[Example] = []
    dropped: list[Dropped] = []
    line_of: dict[str, int] = {}
    for line, row in read_rows(path):
        _check_columns(path, row, columns)
        identity = _text(row[columns.id]) if columns.id else f"{path.name}:{line}"
        if not identity:
            raise DataError(f"{path}:{line}: the id is empty; give every row one, or leave data.id out")
        if identity in line_of:
            raise DataError(
                f"{path}:{line}: the id {identity!r} is on line {line_of[identity]} as well; "
                "give every row its own"
            )
        line_of[identity] = line
        example = _example(row, columns, identity)
        missing = "input" if not example.input else "target" if not example.target else None
        if missing:
            dropped.append(Dropped(identity, f"empty {missing}"))
        else:
            examples.append(example)
    if not examples:
        raise DataError(f"{path}: no row has both an input and a target ({len(dropped)} rows read)")
    return examples, dropped


def _check_columns(path: Path, row: Row, columns: Columns) -> None:
    for name in columns.needed:
        if name not in row:
            raise DataError(f"{path}: no column {name!r}; {nearest(name, row)}")


def _example(row: Row, columns: Columns, identity: str) -> Example:
    def optional(name: str | None) -> str | None:
        return (_text(row[name]) or None) if name else None

    fields = [(name, _text(row[name])) for name in columns.input]
    if len(fields) == 1:
        text = fields[0][1]
    else:
        text = "\n".join(f"{name}: {value}" for name, value in fields if value)
    return Example(
        id=identity,
        input=text,
        target=_text(row[columns.target]),
        group=optional(columns.group),
        slice=optional(columns.slice),
        date=optional(columns.date),
        origin=optional(columns.origin) or HUMAN,
        licence=optional(columns.licence),
    )


def _text(value: Any) -> str:
    """Return a cell as text; lists and objects as JSON."""
    if value is None:
        return ""
    if isinstance(value, (dict, list)):
        return json.dumps(value, ensure_ascii=False, sort_keys=True)
    return str(value).strip()


def fingerprint(examples: Sequence[Example]) -> str:
    """Return the SHA-256 of ids, inputs, targets and groups: the identity of a data set."""
    digest = hashlib.sha256()
    for example in examples:
        fields = (example.id, example.input, example.target, example.group)
        digest.update(json.dumps(fields, ensure_ascii=False).encode())
    return digest.hexdigest()
