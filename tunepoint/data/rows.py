"""Rows of CSV, JSON, JSONL and Parquet files, and of chats in any of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from tunepoint.data.chats import unfold_chats
from tunepoint.data.csv_rows import csv_table
from tunepoint.data.json_rows import json_rows
from tunepoint.data.table import NumberedRow, Table
from tunepoint.errors import DataError, MissingExtra, nearest
from tunepoint.files.text import read_text, reading

READABLE = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet")
"""Endings of the files that `read_table` reads."""


def read_rows(path: Path) -> Iterator[NumberedRow]:
    """Yield the rows of a table, each with its number, as `read_table` does."""
    yield from read_table(path).rows


def read_table(path: Path) -> Table:
    """Return the rows of a file, each with its line number (in Parquet and JSON arrays, its row number).

    Files of chats, one list of messages per row, get the columns `input` (the last user message), `target`
    (the answer to it), `system`, and `conversation` if a chat has several turns.

    Raises:
        MissingExtra: pyarrow, which reads Parquet, is not installed.
        DataError: no such file, an unknown ending, or a line that cannot be read.

    """
    if path.is_dir():
        raise DataError(f"{path}: expected a file, found a folder; name a file in it")
    if not path.exists():
        siblings = sorted(entry.name for entry in path.parent.glob("*")) if path.parent.exists() else []
        hint = nearest(path.name, siblings) if siblings else f"the folder {path.parent} is empty or missing."
        raise DataError(f"{path}: no such file; {hint}")
    ending = path.suffix.lower()
    if ending not in READABLE:
        raise DataError(
            f"{path}: cannot read files that end in {ending or 'nothing'!r}; "
            f"save it as one of {', '.join(READABLE)}"
        )
    if ending in (".csv", ".tsv"):
        table = csv_table(path, _text(path))
    elif ending == ".parquet":
        table = Table(tuple(_parquet_rows(path)))
    else:
        table = Table(tuple(json_rows(path, _text(path))))
    chats = unfold_chats(path, table.rows)
    return replace(chats, notes=(*table.notes, *chats.notes), header=table.header)


def _text(path: Path) -> str:
    text = read_text(path, DataError)
    if 4 * text.count("\0") > len(text):  # every second character, if it is English
        raise DataError(
            f"{path}:1: holds NUL characters, as UTF-16 does where UTF-8 is expected; save the file as "
            "UTF-8 (in a spreadsheet: 'CSV UTF-8')"
        )
    return text


def _parquet_rows(path: Path) -> Iterator[NumberedRow]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise MissingExtra(f"{path}: reading Parquet needs pyarrow", "parquet") from None
    try:
        with reading(path, DataError):
            rows = parquet.read_table(path).to_pylist()
    except (ArrowException, ValueError) as error:
        fault = str(error).split("\n")[0]
        raise DataError(f"{path}: not a Parquet file that can be read ({fault}); export it again") from None
    yield from enumerate(rows, start=1)
