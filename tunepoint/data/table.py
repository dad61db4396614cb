"""A table as it was read from a file: its rows, what was left out of it, and what a reader should know."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]
"""Name of a column -> its value; a row may lack a column."""
NumberedRow = tuple[int, Row]
"""A row with its line number, or its row number where the file has no lines."""

MAX_LITERAL_CHARACTERS = 50_000
"""Length up to which a text is tried as Python's notation."""


@dataclass(frozen=True)
class Table:
    """The rows of a file."""

    rows: tuple[NumberedRow, ...]
    notes: tuple[str, ...] = ()
    """What was found in the file and how it was read, a sentence each; none for a plain table."""
    left_out: tuple[tuple[int, str], ...] = ()
    """Rows that hold no example, with the reason."""
    roles: tuple[tuple[str, ...], str] | None = None
    """Columns of the input and of the target, where the form of the file says which they are."""
    header: tuple[str, ...] | None = None
    """Names in the line of names; None where every row names its own columns."""


def column_names(rows: Iterable[NumberedRow]) -> tuple[str, ...]:
    """Return the columns that occur in any row, in the order of their first appearance."""
    return tuple(dict.fromkeys(str(name) for _, row in rows for name in row))


def cell_text(value: Any) -> str:
    """Return a cell as text: lists and objects as JSON, nothing for null and NaN."""
    if value is None or (isinstance(value, float) and value != value):
        return ""
    if isinstance(value, (dict, list)):
        # Parquet also nests what JSON has no form for, such as dates.
        return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
    return str(value).strip()


def python_literal(text: str) -> Any:
    """Return the value that Python prints like this, with `None` or single quotes; None if it is no value."""
    if len(text) > MAX_LITERAL_CHARACTERS:
        return None
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return None


def counted(count: int, what: str) -> str:
    """Return a count with its noun, as in '1 row' and '3 rows'."""
    return f"{count} {what}{'' if count == 1 else 's'}"
