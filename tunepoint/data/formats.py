"""How consistent the format of the targets is: the share that one schema or pattern covers."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tunepoint.errors import DataError

WORDS = re.compile(r"[^\W\d_]+(?:[ '’-][^\W\d_]+)*")
DIGITS = re.compile(r"\d+")


@dataclass(frozen=True)
class Format:
    """The most common format of the targets."""

    pattern: str
    """Keys with types, or a pattern in which `a` stands for words and `9` for digits."""
    covered: float
    """Share of the targets in this format."""


def common_format(targets: Sequence[str], kind: str) -> Format:
    """Return the format that covers most targets.

    Labels are covered by their closed list, JSON by one set of keys with types (a key may be
    null), numbers and texts by one pattern of words, digits and signs.

    Args:
        targets: at least one.
        kind: of the answers: label, json, number or text.

    Raises:
        DataError: there are no targets.

    """
    if not targets:
        raise DataError("no targets, so there is no format to find; add examples")
    if kind == "label":
        return Format("one of the labels", 1.0)
    if kind == "json":
        return _schema(targets)
    pattern, count = Counter(_skeleton(target) for target in targets).most_common(1)[0]
    return Format(pattern, count / len(targets))


def _skeleton(text: str) -> str:
    """Return the text with words as `a` and digits as `9`; signs and line breaks stay."""
    return DIGITS.sub("9", WORDS.sub("a", text.strip()))


def _schema(targets: Sequence[str]) -> Format:
    """Return the most common set of keys, and the share of targets with these keys and their usual types."""
    objects = [parsed for target in targets if (parsed := _object_in(target)) is not None]
    key_sets = Counter(tuple(sorted(parsed)) for parsed in objects)
    if not key_sets:
        return Format("no JSON object", 0.0)
    keys = key_sets.most_common(1)[0][0]
    alike = [parsed for parsed in objects if tuple(sorted(parsed)) == keys]
    types = {key: _usual_type([parsed[key] for parsed in alike]) for key in keys}
    fits = sum(all(_type(parsed[key]) in (types[key], "null") for key in keys) for parsed in alike)
    return Format(", ".join(f"{key}: {types[key]}" for key in keys) or "{}", fits / len(targets))


def _object_in(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _type(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    return {int: "number", float: "number", str: "string", list: "list", dict: "object"}[type(value)]


def _usual_type(values: Sequence[Any]) -> str:
    types = Counter(_type(value) for value in values if value is not None)
    return types.most_common(1)[0][0] if types else "null"
