"""Guesses about a table: which column is the input, the target, the group, and the kind of its answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tunepoint.errors import DataError
from tunepoint.models.chat import AnswerKind
from tunepoint.models.numbers import plain_number

MAX_LABEL_CHARACTERS = 60
"""Mean length above which even repeated answers count as texts."""
MAX_GUESSED_LABELS = 20
"""Different answers up to which short ones count as labels, numbers included."""
ColumnValues = Mapping[str, list[str]]
"""Name of a column -> its values as text, one for each row."""
TARGET_NAMES = (
    "label",
    "target",
    "category",
    "intent",
    "queue",
    "class",
    "topic",
    "answer",
    "output",
    "sentiment",
    "tag",
    "type",
)
"""Words in the name of a column of right answers, the likeliest first."""
INPUT_NAMES = ("text", "input", "message", "question", "query", "prompt", "body", "content", "utterance")
"""Words in the name of a column of inputs, the likeliest first."""
GROUP_NAMES = (
    "customer",
    "user",
    "account",
    "author",
    "session",
    "conversation",
    "thread",
    "client",
    "group",
    "patient",
    "document",
    "doc",
)
"""Words in the name of a column whose values keep rows together."""


def guess_columns(path: Path, columns: ColumnValues) -> tuple[str, str, str | None]:
    """Return the columns of input, target and group, by their names first and by their values second."""
    group = _find_column(columns, GROUP_NAMES, lambda values: 1 < len(set(values)) < len(values))
    ungrouped = {name: values for name, values in columns.items() if name != group}
    input_name = _find_column(ungrouped, INPUT_NAMES, any)
    input_name = input_name or max(ungrouped, key=lambda name: _mean_length(columns[name]))
    rest = {name: values for name, values in ungrouped.items() if name != input_name}
    if not rest:
        raise DataError(
            f"{path}: no column is left for the target beside {input_name!r} and {group!r}; add one with the "
            "right answers"
        )
    return input_name, _find_column(rest, TARGET_NAMES, any) or _most_like_labels(rest), group


def _most_like_labels(columns: ColumnValues) -> str:
    """Return the column with the fewest different values; a column that repeats at least two goes first."""

    def rank(name: str) -> tuple[bool, int]:
        different = len(set(columns[name]))
        repeats = 2 <= different <= len(columns[name]) / 3
        return not repeats, different

    return min(columns, key=rank)


def _find_column(
    columns: ColumnValues, words: Sequence[str], fits: Callable[[list[str]], bool]
) -> str | None:
    """Return the first column whose name has one of the words and whose values fit; earlier words win."""
    for word in words:
        for name, values in columns.items():
            if word in name.lower().replace("-", "_").split("_") and fits(values):
                return name
    return None


def _mean_length(values: Sequence[str]) -> float:
    return sum(map(len, values)) / len(values)


def guess_kind(values: Sequence[str]) -> AnswerKind:
    """Return the kind of answer that the values look like."""
    answers = [value for value in values if value]
    if answers and all(value[0] in "{[" for value in answers):
        return "json"
    different = len(set(answers))
    if different > MAX_GUESSED_LABELS and all(plain_number(value) is not None for value in answers):
        return "number"
    if different > max(MAX_GUESSED_LABELS, len(answers) / 2):
        return "text"
    return "text" if _mean_length(answers or [""]) > MAX_LABEL_CHARACTERS else "label"
