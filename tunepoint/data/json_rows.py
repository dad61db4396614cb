"""Rows of JSON files: one object per line, or an array of objects."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tunepoint.data.table import NumberedRow
from tunepoint.errors import DataError


def json_rows(path: Path, text: str) -> Iterator[NumberedRow]:
    """Yield the objects of a file: with their lines, or with their numbers in an array.

    Arrays are named `.jsonl` as well, and lines of objects `.json`, so the content decides. In a `.json` file
    the array may stand in an object that holds no other, as in `{"data": [...]}`.

    Raises:
        DataError: a line is not JSON, or a row is not an object.

    """
    array = _array(path, text)
    if array is None:
        yield from _lines(path, text)
        return
    for number, value in enumerate(array, start=1):
        yield number, _row(f"{path}:{number}", value)


def _array(path: Path, text: str) -> list[Any] | None:
    """Return the array that a file holds; None if it has one object per line."""
    start = text.lstrip()[:1]
    if start != "[" and not (start == "{" and path.suffix.lower() == ".json"):
        return None
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        if start == "{":
            return None
        raise DataError(f"{path}:{error.lineno}: not JSON ({error.msg} at column {error.colno})") from None
    except (ValueError, RecursionError) as error:  # endless numbers, deep nests
        raise DataError(f"{path}:1: cannot be used ({error}); correct or remove that value") from None
    if isinstance(value, list):
        return value
    held = _held_array(path, value)
    if held is None and "\n" in text.strip():
        raise DataError(f"{path}: expected a list of rows or one object per line, found a single object")
    return held


def _held_array(path: Path, value: dict[str, Any]) -> list[Any] | None:
    """Return the only list of rows in an object; None if the object is a row itself."""
    tables = [held for held in value.values() if _is_table(held)]
    if len(tables) == 1:
        return list(tables[0])
    columns = [held for held in value.values() if isinstance(held, (list, dict)) and len(held) > 1]
    if len(columns) == len(value) > 1 and len({len(held) for held in columns}) == 1 and not tables:
        raise DataError(
            f"{path}: expected a list of rows, found columns ({', '.join(map(repr, list(value)[:5]))}); "
            "write a list of objects, as pandas does with orient='records'"
        )
    return None


def _is_table(value: Any) -> bool:
    """Whether a value is a list of rows; a message of a chat is none."""
    if not isinstance(value, list) or not value or not all(isinstance(item, dict) for item in value):
        return False
    return not any("role" in item or "from" in item for item in value)


def _lines(path: Path, text: str) -> Iterator[NumberedRow]:
    for line, content in enumerate(text.split("\n"), start=1):
        if not content.strip():
            continue
        where = f"{path}:{line}"
        try:
            value = json.loads(content)
        except json.JSONDecodeError as error:
            raise DataError(
                f"{where}: not JSON ({error.msg} at column {error.colno}); each line must hold one whole "
                "object"
            ) from None
        except (ValueError, RecursionError) as error:  # endless numbers, deep nests
            raise DataError(f"{where}: cannot be used ({error}); correct or remove the line") from None
        yield line, _row(where, value)


def _row(where: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError(f"{where}: expected one JSON object per row, got {type(value).__name__}")
    try:
        # Escapes can produce lone surrogates, which no file and no model takes.
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: cannot be used ({error}); correct or remove the row") from None
    return value
