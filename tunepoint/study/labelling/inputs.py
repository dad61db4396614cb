"""The pool: inputs without a right answer, which the finalists answer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from tunepoint.data.examples import Example, input_of
from tunepoint.data.rows import read_table
from tunepoint.data.table import cell_text, column_names
from tunepoint.errors import DataError, StudyError, nearest
from tunepoint.files.text import read_text, write_text
from tunepoint.task.sections import Data

POOL_INPUTS = "pool_inputs.jsonl"
"""The inputs, in the folder of the study."""
POOL_TRIALS = "pool.jsonl"
"""What the finalists answered to them, as trials whose score means nothing."""


@dataclass(frozen=True)
class Added:
    """What a file added to a pool."""

    new: int
    known: int
    """Inputs that are in the study's examples, in the pool already, or twice in the file."""
    empty: int


def read_pool(folder: Path) -> list[Example]:
    """Return the inputs of a study's pool as examples without a target; none if it has no pool.

    Raises:
        StudyError: the file is damaged.

    """
    path = folder / POOL_INPUTS
    if not path.exists():
        return []
    inputs = []
    for number, line in enumerate(read_text(path, StudyError).splitlines(), start=1):
        try:
            row = json.loads(line)
            inputs.append(Example(row["item"], row["input"], "", group=row.get("group")))
        except (ValueError, KeyError, TypeError):
            raise StudyError(
                f"{path}:{number}: is no input; delete the file and give the pool again"
            ) from None
    return inputs


def add_to_pool(folder: Path, data: Data, file: Path, known: Collection[str]) -> Added:
    """Add the inputs of a file to a study's pool; a target in it is not looked at.

    Args:
        folder: of the study.
        data: which columns hold the parts of an input.
        file: with one input in each row.
        known: inputs that the study has seen: they would be counted twice.

    Raises:
        DataError: the file cannot be read, or lacks a column.

    """
    table = read_table(file)
    columns, existing = data.columns, set(column_names(table.rows))
    for name in (*columns.input, *([columns.group] if columns.group else [])):
        if existing and name not in existing:
            raise DataError(f"{file}: no column {name!r}; {nearest(name, existing)}")
    pool = read_pool(folder)
    seen = {*known, *(example.input for example in pool)}
    fresh: list[Example] = []
    repeated = empty = 0
    for _, row in table.rows:
        text = input_of(row, columns.input)
        if not text:
            empty += 1
        elif text in seen:
            repeated += 1
        else:
            seen.add(text)
            group = cell_text(row.get(columns.group)) or None if columns.group else None
            fresh.append(Example(_name_of(text), text, "", group=group))
    if not pool and not fresh:
        raise DataError(
            f"{file}: no row adds to the pool ({len(table.rows)} rows read: {repeated} inputs are in the "
            f"study's examples or come twice, {empty} are empty); give inputs that the study has not seen"
        )
    lines = (
        {"item": e.id, "input": e.input, **({"group": e.group} if e.group else {})} for e in (*pool, *fresh)
    )
    write_text(folder / POOL_INPUTS, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    return Added(len(fresh), repeated, empty)


def _name_of(text: str) -> str:
    """Return the name of an input, the same in every file."""
    return f"pool:{hashlib.sha256(text.encode()).hexdigest()[:16]}"
