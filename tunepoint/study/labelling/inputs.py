"""The pool: inputs without a right answer, which the finalists answer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tunepoint.data.copies import copy_key
from tunepoint.data.dedupe import match_near_duplicates
from tunepoint.data.examples import Example, input_of
from tunepoint.data.rows import read_table
from tunepoint.data.table import Row, cell_text, column_names
from tunepoint.errors import DataError, StudyError, nearest
from tunepoint.files.text import read_text, write_text
from tunepoint.study.labelling.sampling import Brought, PoolInput, is_large, streamed_rows
from tunepoint.task.sections import Data

Made = TypeVar("Made")
POOL_INPUTS = "pool_inputs.jsonl"
"""The inputs, in the folder of the study."""
POOL_TRIALS = "pool.jsonl"
"""What the finalists answered to them, as trials whose score means nothing."""


@dataclass(frozen=True)
class PoolInputs:
    """The inputs that a study's pool was given, as examples without a target."""

    asked: tuple[Example, ...] = ()
    """Those that the finalists answer."""
    familiar: tuple[Example, ...] = ()
    """Those that are in the study's examples, or nearly so, or whose group is. Nobody answers or labels
    them, but they are part of the traffic, and how much of it looks new depends on them."""


@dataclass(frozen=True)
class Added:
    """What was added to a pool, and what was left out."""

    new: int
    known: int
    """Inputs that are in the study's examples or nearly so, in the pool already, or come twice."""
    known_groups: int
    """Other inputs of groups that are in the study's examples."""
    empty: int
    drawn_from: int | None = None
    """Inputs among which those that were looked at were drawn; None where all were."""


def read_pool(folder: Path) -> PoolInputs:
    """Return the inputs of a study's pool; none if it has no pool.

    Raises:
        StudyError: the file is damaged.

    """

    def example(row: dict[str, Any]) -> tuple[Example, bool]:
        made = Example(row["item"], row["input"], "", group=row.get("group"), slice=row.get("slice"))
        return made, bool(row.get("familiar"))

    fault = "is no input; delete the file and give the pool again"
    inputs = read_lines(folder / POOL_INPUTS, example, fault)
    return PoolInputs(
        tuple(made for made, familiar in inputs if not familiar),
        tuple(made for made, familiar in inputs if familiar),
    )


def read_lines(path: Path, make: Callable[[dict[str, Any]], Made], fault: str) -> list[Made]:
    """Return what the lines of a file of JSON objects make; nothing if there is no file.

    Args:
        path: of the file.
        make: an object -> what it stands for.
        fault: what to say of a line that cannot be read.

    Raises:
        StudyError: a line cannot be read.

    """
    if not path.exists():
        return []
    made = []
    for number, line in enumerate(read_text(path, StudyError).splitlines(), start=1):
        try:
            made.append(make(json.loads(line)))
        except (ValueError, KeyError, TypeError):
            raise StudyError(f"{path}:{number}: {fault}") from None
    return made


def inputs_of_file(data: Data, file: Path, *, unlabelled: bool = False) -> Iterator[PoolInput]:
    """Yield the inputs of a file; a right answer in it is not looked at.

    Args:
        data: which columns hold the parts of an input.
        file: with one input in each row; a large one is streamed.
        unlabelled: take only rows with an input whose right answer is empty.

    Raises:
        DataError: the file cannot be read, or lacks a column.

    """
    columns = data.columns
    named = (*columns.input, *([columns.group] if columns.group else []))
    others = (*([columns.slice] if columns.slice else []), columns.target)
    rows: Iterable[Row] = streamed_rows(file, named, others) if is_large(file) else _rows_of(file, named)

    def optional(row: Row, column: str | None) -> str | None:
        return cell_text(row.get(column)) or None if column else None

    for row in rows:
        text = input_of(row, columns.input)
        if not unlabelled or (text and not cell_text(row.get(columns.target))):
            yield PoolInput(text, optional(row, columns.group), optional(row, columns.slice))


def _rows_of(file: Path, named: Sequence[str]) -> list[Row]:
    rows = read_table(file).rows
    existing = set(column_names(rows))
    for name in named:
        if existing and name not in existing:
            raise DataError(f"{file}: no column {name!r}; {nearest(name, existing)}")
    return [row for _, row in rows]


def extended(
    pool: PoolInputs, brought: Brought, known: Sequence[Example], source: str
) -> tuple[PoolInputs, Added]:
    """Return a pool with more inputs, those left out that are no evidence of their own.

    Args:
        pool: its inputs so far.
        brought: inputs that somebody brings, or a sample of them.
        known: examples of the study: their inputs, near duplicates of them, and inputs of their groups would
            be counted twice, or were trained on.
        source: where the inputs come from, for the message of an error.

    Raises:
        DataError: none of them adds to the pool, and it is empty.

    """
    seen = {copy_key(example.input) for example in (*pool.asked, *pool.familiar)}
    known_keys = {copy_key(example.input) for example in known}
    groups = {example.group for example in known} - {None}
    fresh: list[PoolInput] = []
    familiar: list[PoolInput] = []
    for new in brought.inputs:
        key = copy_key(new.text)
        if new.text and key not in seen:
            seen.add(key)
            (familiar if key in known_keys or new.group in groups else fresh).append(new)
    inputs = [example.input for example in known]
    similar = match_near_duplicates([new.text for new in fresh], inputs, signs_count=True)
    familiar += [fresh[place] for place in sorted(similar)]
    fresh = [new for place, new in enumerate(fresh) if place not in similar]
    inputs_brought = brought.inputs
    empty = sum(not new.text for new in inputs_brought)
    of_groups = sum(bool(new.text) and new.group in groups for new in inputs_brought)
    read = len(inputs_brought)
    drawn_from = brought.seen if brought.seen > read else None
    added = Added(len(fresh), read - len(fresh) - empty - of_groups, of_groups, empty, drawn_from)
    if not pool.asked and not fresh:
        raise DataError(
            f"{source}: no row adds to the pool ({read} rows read: {added.known} inputs are in the "
            f"study's examples or come twice, {of_groups} are of groups in them, {empty} are empty); give "
            "inputs that the study has not seen"
        )
    return PoolInputs((*pool.asked, *map(_example, fresh)), (*pool.familiar, *map(_example, familiar))), added


def write_pool(folder: Path, pool: PoolInputs) -> None:
    """Write the inputs of a study's pool."""
    lines = [_line(example) for example in pool.asked]
    lines += [{**_line(example), "familiar": True} for example in pool.familiar]
    write_text(folder / POOL_INPUTS, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def _line(example: Example) -> dict[str, Any]:
    parts = {"group": example.group, "slice": example.slice}
    return {"item": example.id, "input": example.input} | {key: part for key, part in parts.items() if part}


def _example(new: PoolInput) -> Example:
    """Return an input as an example, by a name that is the same in every file."""
    name = f"pool:{hashlib.sha256(new.text.encode()).hexdigest()[:16]}"
    return Example(name, new.text, "", group=new.group, slice=new.slice)
