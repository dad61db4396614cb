"""Rows of CSV, JSONL and Parquet files, and of OpenAI chat JSONL."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tunepoint.errors import DataError, MissingExtra, nearest
from tunepoint.files.text import read_text, reading

Row = Mapping[str, Any]
READABLE = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
"""Endings of the files that `read_rows` reads."""
MAX_FIELD_CHARACTERS = 10_000_000
"""Characters in a CSV field; the csv module stops at 131,072, which a long document exceeds."""


def read_rows(path: Path) -> Iterator[tuple[int, Row]]:
    """Yield the rows of a table, each with its line number (in Parquet, its row number).

    Chat JSONL, one `{"messages": [...]}` per line, has the columns `input` (the last user
    message), `target` (the assistant's last message) and `system`.

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
    if ending in (".csv", ".tsv"):
        rows = _csv_rows(path)
    elif ending in (".jsonl", ".ndjson"):
        rows = _jsonl_rows(path)
    elif ending == ".parquet":
        rows = _parquet_rows(path)
    else:
        raise DataError(
            f"{path}: cannot read files that end in {ending or 'nothing'!r}; "
            f"save it as one of {', '.join(READABLE)}"
        )
    yield from rows


def _csv_rows(path: Path) -> Iterator[tuple[int, Row]]:
    text = read_text(path, DataError)
    delimiter = _delimiter(text)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    csv.field_size_limit(MAX_FIELD_CHARACTERS)
    try:
        _check_header(path, list(reader.fieldnames or []))
        line = reader.line_num + 1
        for row in reader:
            # DictReader files surplus fields under None, and fills missing ones with None.
            if None in row or None in row.values():
                count = sum(value is not None for key, value in row.items() if key is not None)
                count += len(row.get(None, []))
                raise DataError(
                    f"{path}:{line}: {count} fields where the header has "
                    f"{len(reader.fieldnames or [])}; quote fields that contain {delimiter!r}"
                )
            yield line, row
            line = reader.line_num + 1  # a quoted field may span several lines
    except csv.Error as error:
        raise DataError(f"{path}:{reader.reader.line_num}: {error}; is a quote left open?") from None


def _delimiter(text: str) -> str:
    """Return the most frequent of comma, semicolon, tab and bar in the header, outside quotes."""
    header = re.sub(r'"[^"]*"', "", text.split("\n", 1)[0])
    return max(",;\t|", key=header.count)


def _check_header(path: Path, names: list[str]) -> None:
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        numbers = [number for number, name in enumerate(names, start=1) if name == repeated[0]]
        raise DataError(
            f"{path}:1: the columns {' and '.join(map(str, numbers))} of {len(names)} are both named "
            f"{repeated[0]!r}; rename one of them"
        )


def _jsonl_rows(path: Path) -> Iterator[tuple[int, Row]]:
    for line, text in enumerate(read_text(path, DataError).split("\n"), start=1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
            # Escapes can produce lone surrogates, which no file and no model takes.
            text.encode()
            json.dumps(row, ensure_ascii=False).encode()
        except json.JSONDecodeError as error:
            raise DataError(f"{path}:{line}: not JSON ({error.msg} at column {error.colno})") from None
        except (ValueError, RecursionError) as error:  # lone surrogates, endless numbers, deep nests
            raise DataError(f"{path}:{line}: cannot be used ({error}); correct or remove the line") from None
        if not isinstance(row, dict):
            raise DataError(f"{path}:{line}: expected one JSON object per line, got {type(row).__name__}")
        yield line, _from_chat(row, f"{path}:{line}") if "messages" in row else row


def _from_chat(row: Row, where: str) -> Row:
    """Return the last exchange of a chat as input and target; other keys stay."""
    last: dict[str, str] = {}
    if not isinstance(row["messages"], list):
        raise DataError(f"{where}: messages is {row['messages']!r}; expected a list of role and content")
    for message in row["messages"]:
        if not isinstance(message, dict) or not isinstance(message.get("content"), str):
            raise DataError(f"{where}: every message needs a role and a text as its content")
        last[str(message.get("role"))] = message["content"]
    missing = {"user", "assistant"} - last.keys()
    if missing:
        raise DataError(f"{where}: the chat has no {' and no '.join(sorted(missing))} message")
    rest = {key: value for key, value in row.items() if key != "messages"}
    return {**rest, "input": last["user"], "target": last["assistant"], "system": last.get("system", "")}


def _parquet_rows(path: Path) -> Iterator[tuple[int, Row]]:
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
