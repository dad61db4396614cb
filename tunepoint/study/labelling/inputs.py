"""The pool: inputs without a right answer, which the finalists answer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
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
class PoolInput:
    """One input that may be added to a pool."""

    text: str
    group: str | None = None
    """Inputs of one group are no independent evidence."""


@dataclass(frozen=True)
class Added:
    """What was added to a pool."""

    new: int
    known: int
    """Inputs that are in the study's examples, in the pool already, or come twice."""
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


def inputs_of_file(data: Data, file: Path, *, unlabelled: bool = False) -> list[PoolInput]:
    """Return the inputs of a file; a right answer in it is not looked at.

    Args:
        data: which columns hold the parts of an input.
        file: with one input in each row.
        unlabelled: take only rows whose right answer is empty.

    Raises:
        DataError: the file cannot be read, or lacks a column.

    """
    rows, columns = read_table(file).rows, data.columns
    existing = set(column_names(rows))
    for name in (*columns.input, *([columns.group] if columns.group else [])):
        if existing and name not in existing:
            raise DataError(f"{file}: no column {name!r}; {nearest(name, existing)}")
    return [
        PoolInput(
            input_of(row, columns.input),
            cell_text(row.get(columns.group)) or None if columns.group else None,
        )
        for _, row in rows
        if not (unlabelled and cell_text(row.get(columns.target)))
    ]


def add_to_pool(folder: Path, found: Sequence[PoolInput], known: Collection[str], source: str) -> Added:
    """Add inputs to a study's pool.

    Args:
        folder: of the study.
        found: inputs that somebody brings.
        known: inputs that the study has seen: they would be counted twice.
        source: where they come from, for the message of an error.

    Raises:
        DataError: none of them adds to the pool, and it is empty.

    """
    pool = read_pool(folder)
    seen = {*known, *(example.input for example in pool)}
    fresh: list[Example] = []
    for new in found:
        if new.text and new.text not in seen:
            seen.add(new.text)
            fresh.append(Example(_name_of(new.text), new.text, "", group=new.group))
    empty = sum(not new.text for new in found)
    added = Added(len(fresh), len(found) - len(fresh) - empty, empty)
    if not pool and not fresh:
        raise DataError(
            f"{source}: no row adds to the pool ({len(found)} rows read: {added.known} inputs are in the "
            f"study's examples or come twice, {empty} are empty); give inputs that the study has not seen"
        )
    lines = (
        {"item": e.id, "input": e.input, **({"group": e.group} if e.group else {})} for e in (*pool, *fresh)
    )
    write_text(folder / POOL_INPUTS, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    return added


def _name_of(text: str) -> str:
    """Return the name of an input, the same in every file."""
    return f"pool:{hashlib.sha256(text.encode()).hexdigest()[:16]}"
