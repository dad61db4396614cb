"""The sheet of `tunepoint label` as a queue: one input at a time, one key a label, the last one undone."""

from __future__ import annotations

import csv
import io
import threading
from pathlib import Path
from typing import Any

from tunepoint.errors import StudyError
from tunepoint.files.cells import escape_cell, unescape_cell
from tunepoint.files.text import read_text, write_text
from tunepoint.study.labelling.sheet import CHOICE, SHEET

_WRITING = threading.Lock()
"""Labels that come at once are written one after the other."""
OWN_COLUMNS = ("item", "input", "right", "by")


def queue(study: Path) -> dict[str, Any] | None:
    """Return the rows of a study's sheet; None if there is none to fill in.

    Raises:
        StudyError: the sheet is damaged.

    """
    path = study / SHEET
    if not path.exists():
        return None
    return {
        "rows": [
            {
                "item": row["item"],
                "input": unescape_cell(row["input"]),
                "choices": _choices(row),
                "right": row["right"],
                "by": row["by"],
            }
            for row in _rows(path)
        ]
    }


def _choices(row: dict[str, str]) -> dict[str, str]:
    return {name: unescape_cell(cell) for name, cell in row.items() if name.startswith(CHOICE) and cell}


def fill_in(study: Path, item: str, right: str, by: str) -> None:
    """Write what is right for one input into the sheet; an empty answer takes a label back.

    Raises:
        StudyError: there is no sheet, or no such input on it.

    """
    path = study / SHEET
    with _WRITING:
        rows = _rows(path)
        row = next((row for row in rows if row["item"] == item), None)
        if row is None:
            raise StudyError(f"{path}: no input {item!r}; the sheet has been read, open the page again")
        row["right"], row["by"] = escape_cell(right.strip()), escape_cell(by.strip())
        text = io.StringIO(newline="")
        sheet = csv.DictWriter(text, list(rows[0]), extrasaction="ignore")
        sheet.writeheader()
        sheet.writerows(rows)
        write_text(path, text.getvalue())


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        raise StudyError(f"{path}: no sheet to fill in; get the next one first")
    rows = list(csv.DictReader(io.StringIO(read_text(path, StudyError), newline="")))
    if not rows or not set(OWN_COLUMNS) <= rows[0].keys():
        raise StudyError(f"{path}: lacks a column of {', '.join(OWN_COLUMNS)}; delete it and label again")
    return [{name: cell or "" for name, cell in row.items() if isinstance(name, str)} for row in rows]
