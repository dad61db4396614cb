"""The sheet for people: inputs on which answers differ, without the names of those who gave them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tunepoint.data.rows import read_rows
from tunepoint.errors import DataError, nearest
from tunepoint.files.cells import escape_cell, unescape_cell
from tunepoint.files.text import write_text

SHEET = "to_label.csv"
"""In the folder of the study."""
NONE_RIGHT = "none"
"""What people write where no answer shown is right, and the right one is not worth writing."""
CHOICE = "#"
"""Begins the name of a column with an answer, and what people write to choose it."""


@dataclass(frozen=True)
class Filled:
    """A row that somebody has filled in."""

    place: str
    """File and line."""
    item: str
    right: str
    """What stands in the cell: the name of a column, an answer, or `NONE_RIGHT`."""
    shown: int
    """Answers beside it."""
    by: str


def write_sheet(path: Path, rows: Sequence[tuple[str, str, Sequence[str]]], by: str = "") -> None:
    """Write the inputs with their different answers.

    Args:
        path: of the sheet.
        rows: (item, input, different answers in the order of the columns).
        by: who will fill it in.

    """
    columns = max((len(answers) for _, _, answers in rows), default=2)
    text = io.StringIO(newline="")
    sheet = csv.writer(text)
    sheet.writerow(("item", "input", *(f"{CHOICE}{k + 1}" for k in range(columns)), "right", "by"))
    for item, text_of, answers in rows:
        cells = [*answers, *[""] * (columns - len(answers))]
        sheet.writerow((item, escape_cell(text_of), *map(escape_cell, cells), "", by))
    write_text(path, text.getvalue())


def read_sheet(path: Path) -> Iterator[Filled]:
    """Yield the rows that somebody has filled in.

    Raises:
        DataError: a column is missing.

    """
    for line, row in read_rows(path):
        for column in ("item", "right"):
            if column not in row:
                raise DataError(f"{path}:{line}: no column {column!r}; {nearest(column, map(str, row))}")
        right = unescape_cell(_cell(row.get("right"))).strip()
        if right:
            shown = sum(bool(_cell(row[name]).strip()) for name in row if str(name).startswith(CHOICE))
            by = _cell(row.get("by")).strip()
            yield Filled(f"{path}:{line}", _cell(row["item"]).strip(), right, shown, by)


def _cell(value: object) -> str:
    return "" if value is None else str(value)
