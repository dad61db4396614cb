"""Scores that forgive how an answer is written: case, articles, signs, numbers in words, the form of dates.

A model that was tuned on a person's answers learns their conventions along with the task. A prompt that knows
the task as well, and writes it otherwise, loses by the strict score alone.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable
from datetime import date

from tunepoint.data.examples import Example
from tunepoint.models.numbers import plain_number
from tunepoint.task.task import Task
from tunepoint.trials.scorers import f1_of_sets, json_leaves

_UNITS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven"),
    *("twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_IN_WORDS = {word: number for number, word in enumerate(_UNITS)} | {
    word: 10 * number for number, word in enumerate(_TENS, start=2)
}
_COMPOUND = re.compile(rf"\b({'|'.join(_TENS)})[\s-]({'|'.join(_UNITS[1:10])})\b")
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_MONTHS = {
    name: number
    for number, names in enumerate(
        (
            ("january", "jan"),
            ("february", "feb"),
            ("march", "mar"),
            ("april", "apr"),
            ("may",),
            ("june", "jun"),
            ("july", "jul"),
            ("august", "aug"),
            ("september", "sep", "sept"),
            ("october", "oct"),
            ("november", "nov"),
            ("december", "dec"),
        ),
        start=1,
    )
    for name in names
}
_MONTH = "|".join(sorted(_MONTHS, key=len, reverse=True))
_ISO = re.compile(r"\b(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})\b")
_DAY_FIRST = re.compile(rf"\b(\d{{1,2}})(?:st|nd|rd|th)?(?:\s+of)?\s+({_MONTH})\.?,?\s+(\d{{4}})\b")
_MONTH_FIRST = re.compile(rf"\b({_MONTH})\.?\s+(\d{{1,2}})(?:st|nd|rd|th)?,?\s+(\d{{4}})\b")
_POINTS = re.compile(r"\b(\d{1,2})\.(\d{1,2})\.(\d{4})\b")
"""As in 31.12.2026, which is day first everywhere; 12/11/2026 says two days, and stays as it is."""
_SIGNS = re.compile(r"[;:!?\"'“”‘’«»()\[\]{}…*`]|(?<!\d)[.,]|[.,](?!\d)|(?<=[^\W\d])[-‐–](?=[^\W\d])")
"""Punctuation; what stands in numbers and dates is not, and other signs tell things apart: C++ from C#."""


def lenient_key(text: str) -> str:
    """Return what a text says, whatever its case, articles, punctuation, spaces and forms of numbers."""
    text = unicodedata.normalize("NFKC", text).casefold()
    text = _ISO.sub(lambda m: _day(m[1], m[2], m[3], m[0]), text)
    text = _POINTS.sub(lambda m: _day(m[3], m[2], m[1], m[0]), text)
    text = _DAY_FIRST.sub(lambda m: _day(m[3], str(_MONTHS[m[2]]), m[1], m[0]), text)
    text = _MONTH_FIRST.sub(lambda m: _day(m[3], str(_MONTHS[m[1]]), m[2], m[0]), text)
    text = _COMPOUND.sub(lambda m: str(_IN_WORDS[m[1]] + _IN_WORDS[m[2]]), text)
    words = _SIGNS.sub(" ", _ARTICLES.sub(" ", text)).replace("_", " ").split()
    return " ".join(_word(word) for word in words) or " ".join(text.split())


def _day(year: str, month: str, day: str, written: str) -> str:
    try:
        return date(int(year), int(month), int(day)).isoformat()
    except ValueError:
        return written


def _word(word: str) -> str:
    """A number in words or in another notation as plain digits; other words as they are."""
    if word in _IN_WORDS:
        return str(_IN_WORDS[word])
    number = plain_number(word) if any(c.isdigit() for c in word) and "-" not in word[1:] else None
    return re.sub(r"\.0+$", "", number) if number is not None else word


Lenient = Callable[[str, Example], float]
WRITTEN_KINDS = ("text", "json")
"""Kinds of answers that can be right and written otherwise."""


def _exact(answer: str, example: Example) -> float:
    return float(lenient_key(answer) == lenient_key(example.target))


def _members(text: str) -> frozenset[str]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = re.split(r"[,;|\n]", text.strip("[](){}"))
    members = value if isinstance(value, list) else [value]
    return frozenset(filter(None, (lenient_key(str(member)) for member in members)))


def _f1(answer: str, example: Example) -> float:
    return f1_of_sets(_members(answer), _members(example.target))


def _leaves(text: str) -> set[tuple[str, str]] | None:
    leaves = json_leaves(text)
    return None if leaves is None else {(path, lenient_key(value)) for path, value in leaves}


def _fields(answer: str, example: Example) -> float:
    fields, target = _leaves(answer), _leaves(example.target)
    return _exact(answer, example) if fields is None or target is None else f1_of_sets(fields, target)


def _whole(answer: str, example: Example) -> float:
    fields, target = _leaves(answer), _leaves(example.target)
    return _exact(answer, example) if fields is None or target is None else float(fields == target)


LENIENT: dict[str, Lenient] = {"exact": _exact, "f1": _f1, "json_fields": _fields, "json_whole": _whole}
"""Metric -> the same without conventions; the others forgive them already, or are not ours."""


def has_conventions(task: Task) -> bool:
    """Return whether it counts in a task how an answer is written."""
    return task.answer.kind in WRITTEN_KINDS and task.score.metric in LENIENT
