"""JSON targets as paths and values, and values as a text has them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from tunepoint.data.examples import Example
from tunepoint.errors import DataError
from tunepoint.models.numbers import plain_number

Path = tuple[str, ...]
"""The keys that lead to a field through nested objects."""
ABSENT = "absent"
"""Stands for a key that is left out, among values in JSON, which would write this word with quotes."""


def target_of(example: Example) -> dict[str, Any]:
    """Return the target as an object.

    Raises:
        DataError: it is not a JSON object.

    """
    try:
        value = json.loads(example.target)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{example.id}: its target is not JSON ({error}); correct or remove it") from None
    if not isinstance(value, dict):
        raise DataError(f"{example.id}: its target is {example.target[:60]!r}, a JSON object is expected")
    return value


def leaves(content: Mapping[str, Any], path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield the scalars and lists of an object with their paths."""
    for key, value in content.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key), value


def values_of(value: Any) -> list[Any]:
    """Return the values of a field: those of a list, none of an empty field."""
    values = value if isinstance(value, list) else [value]
    return [item for item in values if item is not None and item not in ("", {})]


def choice_key(value: Any) -> str:
    """Return the first value of a field as JSON, or `ABSENT`."""
    values = values_of(value)
    return json.dumps(values[0], ensure_ascii=False) if values else ABSENT


def as_text(value: Any) -> str:
    """Write a value as an input would have it: 5 rather than 5.0."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def parse_number(text: str) -> int | float | str:
    """Read a number as people write it: `1,500`, `1,5` and `1.5`. Anything else stays text."""
    number = plain_number(text)
    if number is None or number.endswith("%"):
        return text
    return int(number) if number.lstrip("-").isdigit() else float(number)
