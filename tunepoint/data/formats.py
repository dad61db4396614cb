"""How consistent the format of targets is: the share that one inferred schema or pattern covers."""

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
    """The commonest format of some targets."""

    pattern: str
    """Keys with types, or a pattern in which a stands for words and 9 for digits."""
    covered: float
    """Share of the targets that have it."""


def common_format(targets: Sequence[str], kind: str) -> Format:
    """The format that covers most targets.

    Args:
        targets: at least one.
        kind: of the answers: label, json, number or text.

    Labels are covered by their closed list, JSON by one set of keys with types (a key may be
    null), numbers and texts by one pattern of words, digits and signs.

    Raises:
        DataError: there are no targets.

    """
    if not targets:
        raise DataError("no targets: nothing has a format")
    if kind == "label":
        return Format("one of the labels", 1.0)
    if kind == "json":
        return _schema(targets)
    pattern, count = Counter(_skeleton(target) for target in targets).most_common(1)[0]
    return Format(pattern, count / len(targets))


def _skeleton(text: str) -> str:
    """Words as a, digits as 9; signs and line breaks stay."""
    return DIGITS.sub("9", WORDS.sub("a", text.strip()))


def _schema(targets: Sequence[str]) -> Format:
    """The keys that most objects have, and the share of objects with these and their usual types."""
    objects = [_parsed(target) for target in targets]
    shapes = Counter(tuple(sorted(one)) for one in objects if one is not None)
    if not shapes:
        return Format("no JSON object", 0.0)
    keys = shapes.most_common(1)[0][0]
    alike = [one for one in objects if one is not None and tuple(sorted(one)) == keys]
    types = {key: _usual_type([one[key] for one in alike]) for key in keys}
    fits = sum(all(_type(one[key]) in (types[key], "null") for key in keys) for one in alike)
    return Format(", ".join(f"{key}: {types[key]}" for key in keys) or "{}", fits / len(targets))


def _parsed(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _type(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    return {int: "number", float: "number", str: "string", list: "list", dict: "object"}[type(value)]


def _usual_type(values: Sequence[Any]) -> str:
    known = Counter(_type(value) for value in values if value is not None)
    return known.most_common(1)[0][0] if known else "null"
