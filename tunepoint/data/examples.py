"""Examples from CSV, JSONL, Parquet and OpenAI chat JSONL."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunepoint.errors import DataError, MissingExtra, nearest
from tunepoint.files.text import reading, text_of
from tunepoint.task.columns import Columns
from tunepoint.task.task import Task


def labels_of(task: Task, examples: Sequence[Example]) -> tuple[str, ...]:
    """The labels of a task: those it declares, else those of its examples, sorted."""
    if task.answer.labels:
        return tuple(task.answer.labels)
    return tuple(sorted({example.target for example in examples}))


Row = Mapping[str, Any]
READABLE = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")


HUMAN = "human"


@dataclass(frozen=True)
class Example:
    """One input with the answer that is right for it."""

    id: str
    """Names the place it came from, as `messages.csv:17`, or the user's own id."""
    input: str
    target: str
    group: str | None = None
    """Examples of one group never stand on both sides of a split."""
    slice: str | None = None
    date: str | None = None
    origin: str = HUMAN
    """Who wrote the target: human, captured, or a model's name, with the version of its prompt if known."""
    licence: str | None = None
    """Under what it may be used, as its source says."""


@dataclass(frozen=True)
class Dropped:
    """An example that was left out, and why."""

    id: str
    reason: str


def read_rows(path: Path) -> Iterator[tuple[int, Row]]:
    """Rows of a table with the line (or, in Parquet, the row) each stands on.

    Chat JSONL, one `{"messages": [...]}` a line, comes out with the columns `input` (the
    last user message), `target` (the assistant's last) and `system`.

    Raises:
        MissingExtra: pyarrow, which reads Parquet, is not installed.
        DataError: no such file, an unknown ending, a line that is not JSON, no rows.

    """
    if path.is_dir():
        raise DataError(f"{path}: is a folder, a file is expected; name the file in it")
    if not path.exists():
        near = sorted(entry.name for entry in path.parent.glob("*")) if path.parent.exists() else []
        hint = nearest(path.name, near) if near else f"the folder {path.parent} is empty or missing."
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
    text = text_of(path, DataError)
    delimiter = _delimiter(text)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    csv.field_size_limit(10_000_000)
    try:
        _check_header(path, list(reader.fieldnames or []))
        line = reader.line_num + 1
        for row in reader:
            if None in row or None in row.values():
                found = sum(value is not None for key, value in row.items() if key is not None)
                found += len(row.get(None, []))
                raise DataError(
                    f"{path}:{line}: {found} fields where the header has "
                    f"{len(reader.fieldnames or [])}; quote fields that contain {delimiter!r}"
                )
            yield line, row
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{path}:{reader.reader.line_num}: {error}; is a quote left open?") from None


def _delimiter(text: str) -> str:
    """The most frequent of comma, semicolon, tab and bar in the header, outside quotes."""
    header = re.sub(r'"[^"]*"', "", text.split("\n", 1)[0])
    return max(",;\t|", key=header.count)


def _check_header(path: Path, names: list[str]) -> None:
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        places = [i + 1 for i, name in enumerate(names) if name == twice[0]]
        raise DataError(
            f"{path}:1: the columns {' and '.join(map(str, places))} of {len(names)} are both named "
            f"{twice[0]!r}; rename one of them"
        )


def _jsonl_rows(path: Path) -> Iterator[tuple[int, Row]]:
    for line, text in enumerate(text_of(path, DataError).split("\n"), start=1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
            text.encode()
            json.dumps(row, ensure_ascii=False).encode()
        except json.JSONDecodeError as error:
            raise DataError(f"{path}:{line}: not JSON ({error.msg} at column {error.colno})") from None
        except (ValueError, RecursionError) as error:  # lone surrogates, endless numbers, deep nests
            raise DataError(f"{path}:{line}: cannot be used ({error}); mend or remove the line") from None
        if not isinstance(row, dict):
            raise DataError(f"{path}:{line}: expected one JSON object a line, got {type(row).__name__}")
        yield line, _from_chat(row, f"{path}:{line}") if "messages" in row else row


def _from_chat(row: Row, where: str) -> Row:
    """The last exchange of a chat as input and target; other keys stay."""
    last: dict[str, str] = {}
    if not isinstance(row["messages"], list):
        raise DataError(f"{where}: messages is {row['messages']!r}, a list of role and content is expected")
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
        raise DataError(f"{path}: not a Parquet file that can be read ({fault}); write it again") from None
    yield from enumerate(rows, start=1)


def read_examples(path: Path, columns: Columns) -> tuple[list[Example], list[Dropped]]:
    """The examples of a file, and the rows that hold no input or no target.

    Raises:
        DataError: a column is missing, an id is given twice, or nothing is left.

    """
    examples: list[Example] = []
    dropped: list[Dropped] = []
    seen: dict[str, int] = {}
    for line, row in read_rows(path):
        _check_columns(path, row, columns)
        identity = _text(row[columns.id]) if columns.id else f"{path.name}:{line}"
        if not identity:
            raise DataError(f"{path}:{line}: the id is empty; give every row one, or leave data.id out")
        if identity in seen:
            raise DataError(f"{path}:{line}: id {identity!r} stands already on line {seen[identity]}")
        seen[identity] = line
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
    """A cell as text; structures as compact JSON."""
    if value is None:
        return ""
    if isinstance(value, (dict, list)):
        return json.dumps(value, ensure_ascii=False, sort_keys=True)
    return str(value).strip()


def fingerprint(examples: Sequence[Example]) -> str:
    """SHA-256 over ids, inputs, targets and groups: the identity of a data set."""
    digest = hashlib.sha256()
    for example in examples:
        fields = (example.id, example.input, example.target, example.group)
        digest.update(json.dumps(fields, ensure_ascii=False).encode())
    return digest.hexdigest()
