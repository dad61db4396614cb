"""Guesses about a table: which column is the input, the target, the group, and the kind of its answers."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tunepoint.data.targets import in_python_notation
from tunepoint.errors import DataError
from tunepoint.models.chat import AnswerKind
from tunepoint.models.numbers import plain_number

MAX_LABEL_CHARACTERS = 60
"""Mean length above which even repeated answers count as texts."""
MAX_GUESSED_LABELS = 20
"""Different answers up to which short ones count as labels, numbers included."""
MIN_NUMBERS = 0.95
"""Share of numbers from which answers are numbers, some of them written in another way."""
MAX_TRIED_VALUES = 200
"""Values of a column that are parsed to see whether it holds JSON."""
MIN_ID_ROWS = 10
"""Rows from which on a column without a repeated value can count as ids."""
ColumnValues = Mapping[str, list[str]]
"""Name of a column -> its values as text, one for each row; empty where a row has none."""
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
    "completion",
    "response",
    "expected",
    "sentiment",
    "tag",
    "type",
    "assistant",
)
"""Words in the name of a column of right answers, the likeliest first."""
INPUT_NAMES = (
    "text",
    "input",
    "message",
    "question",
    "query",
    "prompt",
    "instruction",
    "body",
    "content",
    "utterance",
    "request",
)
"""Words in the name of a column of inputs, the likeliest first."""
QUESTION_NAMES = ("question", "query", "prompt")
"""Inputs that may be about something in a column of its own."""
CONTEXT_NAMES = ("context", "passage", "paragraph")
"""Names of that column."""
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
ID_WORDS = ("id", "ids", "uuid", "guid", "idx", "index", "key", "pk", "hash", "unnamed")
"""Words in the name of a column that only tells rows or labels apart."""
_OF_A_GROUP = {*ID_WORDS, "name", "no", "nr", "number", "email"}
"""Words behind that of a group, as in `customer_number`."""
_VAGUE = {"text", "content", "body", "message", "value", "string"}
"""Last words of a name that say less than the one before: `label_text` holds labels."""
_INSTRUCTED = (("instruction",), ("input", "context"), ("output", "response", "answer", "completion"))
"""Names in the form of Alpaca and Dolly: what to do, on what if anything, and the right answer."""
_PREFERRED = re.compile(r"(?:.*_)?(?:chosen|preferred)(?:_.*)?")
_DATE = re.compile(r"\d{4}-\d\d?-\d\d?|\d\d?[./]\d\d?[./]\d{2,4}")
_REJECTED = re.compile(r"(?:.*_)?(?:rejected|non_preferred)(?:_.*)?")


@dataclass(frozen=True)
class ColumnGuess:
    """Which columns hold what, and why that is likely."""

    inputs: tuple[str, ...]
    target: str
    group: str | None = None
    why_input: str = "by its name"
    why_target: str = "by its name"


def guess_columns(path: Path, columns: ColumnValues) -> ColumnGuess:
    """Return the columns of input, target and group, by their names first and by their values second.

    Raises:
        DataError: the file holds preferences, or no column is left for the target.

    """
    _check_preferences(path, columns)
    filled = {name: values for name, values in columns.items() if any(values)}
    group = guess_group(filled)
    rest = {name: values for name, values in filled.items() if name != group}
    instructed = _instructed(rest)
    if instructed:
        return ColumnGuess(*instructed, group, "in the form of Alpaca", "in the form of Alpaca")
    telling = {name: values for name, values in rest.items() if not _tells_nothing(name, values)}
    target = _by_name(telling, TARGET_NAMES, INPUT_NAMES)
    others = _without(telling, target) or _without(rest, target)
    if not others:
        raise DataError(f"{path}: no column is left for the input beside {target!r} and {group!r}; add one")
    input_name, why_input = _guess_input(others)
    inputs = _with_context(input_name, others)
    if target is not None:
        return ColumnGuess(inputs, target, group, why_input)
    candidates = _without(telling, *inputs) or _repeating(_without(rest, *inputs))
    if not candidates:
        raise DataError(
            f"{path}: no column is left for the target beside {input_name!r} and {group!r}; add one with the "
            "right answers"
        )
    target, why_target = _guess_target(candidates)
    return ColumnGuess(inputs, target, group, why_input, why_target)


def _with_context(name: str, columns: ColumnValues) -> tuple[str, ...]:
    """Return the input, after the column with what a question is about, if there is one."""
    if _telling_word(_words(name), QUESTION_NAMES) is None:
        return (name,)
    context = next((other for other in columns if other != name and other.lower() in CONTEXT_NAMES), None)
    return (context, name) if context is not None else (name,)


def _without(columns: ColumnValues, *names: str | None) -> ColumnValues:
    return {name: values for name, values in columns.items() if name not in names}


def _repeating(columns: ColumnValues) -> ColumnValues:
    """Return the columns that have the same value in several rows, if there are many rows."""
    return {name: values for name, values in columns.items() if not _all_different(values)}


def _check_preferences(path: Path, columns: ColumnValues) -> None:
    """Raise an error if the file holds pairs of a better and a worse answer."""
    named = {name: "_".join(_words(name)) for name in columns}
    rejected = [name for name, words in named.items() if _REJECTED.fullmatch(words)]
    chosen = [name for name, words in named.items() if _PREFERRED.fullmatch(words) and name not in rejected]
    if chosen and rejected:
        raise DataError(
            f"{path}: holds preferences ({chosen[0]!r} over {rejected[0]!r}, as for DPO), not right answers: "
            "what is preferred may be wrong. If every preferred answer is right, write a file of inputs and "
            "those answers"
        )


def _instructed(columns: ColumnValues) -> tuple[tuple[str, ...], str] | None:
    """Return the inputs and the target of a table in the form of Alpaca; None if it has another form."""
    names = {name.lower(): name for name in columns}
    columns_of_form = [next((names[word] for word in words if word in names), None) for words in _INSTRUCTED]
    instruction, context, answer = columns_of_form
    if instruction is None or answer is None:
        return None
    return (instruction, *([context] if context else [])), answer


def guess_group(columns: ColumnValues) -> str | None:
    """Return a column that ties rows together: some of its values repeat, and none is a text."""

    def fits(words: Sequence[str], word: str) -> bool:
        return word in words and all(other in _OF_A_GROUP for other in words[words.index(word) + 1 :])

    for word in GROUP_NAMES:
        for name, values in columns.items():
            given = [value for value in values if value]
            ties = 1 < len(set(given)) < len(given) and _mean_length(given) <= MAX_LABEL_CHARACTERS
            if ties and fits(_words(name), word):
                return name
    return None


def _by_name(columns: ColumnValues, names: Sequence[str], others: Sequence[str]) -> str | None:
    """Return the column whose name says that it is one of `names`, and not one of `others`.

    The whole name counts most, then its last telling word: a `message_type` is a type.
    """
    whole = next((name for word in names for name in columns if _words(name) == [word]), None)
    if whole is not None:
        return whole
    says = {name: _telling_word(_words(name), (*names, *others)) for name in columns}
    return next((name for word in names for name in columns if says[name] == word), None)


def _telling_word(words: Sequence[str], known: Sequence[str]) -> str | None:
    """Return the last known word of a name; a vague one only if there is no other."""
    hits = [word for word in reversed(words) if word in known]
    return next((word for word in hits if word not in _VAGUE), hits[0] if hits else None)


def _words(name: str) -> list[str]:
    """Return the words of a column's name, in lower case: two of `message_id`, `messageId`, `Message ID`."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    return [word for word in re.split(r"[\W_]+", spaced.lower()) if word]


def _tells_nothing(name: str, values: Sequence[str]) -> bool:
    """Whether a column only tells rows apart or dates them, or stands for another by its numbers."""
    words = _words(name)
    if not words or words[-1] in ID_WORDS or words[0] == "unnamed":
        return True
    if set(words) & {*TARGET_NAMES, *INPUT_NAMES}:
        return False
    given = [value for value in values if value]
    if all(map(_DATE.match, given)):
        return True
    codes = all(" " not in value and any(sign.isdigit() for sign in value) for value in given)
    return codes and _all_different(values) and not all(map(plain_number, values))


def _all_different(values: Sequence[str]) -> bool:
    return len(values) >= MIN_ID_ROWS and len(set(values)) == len(values)


def _guess_input(columns: ColumnValues) -> tuple[str, str]:
    """Return the likely input among columns, and why; a text goes before JSON, which is rather extracted."""
    texts = {name: values for name, values in columns.items() if not is_structured(values)}
    strong = next((name for name in columns if name.lower() in ("input", "prompt")), None)
    named = _by_name(texts, INPUT_NAMES, TARGET_NAMES) or strong
    if named is not None:
        return named, "by its name"
    pool = texts or columns
    longest = max(_mean_length(values) for values in pool.values())
    # Of texts about as long, the first is the input: tables are read from left to right.
    return next(
        (
            name,
            "the column with the longest texts" if _mean_length(values) == longest else "the first long text",
        )
        for name, values in pool.items()
        if _mean_length(values) >= longest / 1.5
    )


def _guess_target(columns: ColumnValues) -> tuple[str, str]:
    """Return the likely target among columns, and why."""
    structured = next((name for name, values in columns.items() if is_structured(values)), None)
    if structured is not None:
        return structured, "the column with JSON"
    return _most_like_labels(columns), "the column with the fewest different values"


def _most_like_labels(columns: ColumnValues) -> str:
    """Return the column with the fewest different values; a column that repeats at least two goes first."""

    def rank(name: str) -> tuple[bool, int]:
        different = len(set(columns[name]))
        repeats = 2 <= different <= len(columns[name]) / 3
        return not repeats, different

    return min(columns, key=rank)


def _mean_length(values: Sequence[str]) -> float:
    return sum(map(len, values)) / max(1, len(values))


def is_structured(values: Sequence[str]) -> bool:
    """Whether the values are JSON objects or lists, or what Python prints for them."""
    given = [value for value in values if value]
    if not given or not all(value[0] in "{[" for value in given):
        return False
    tried = given[:MAX_TRIED_VALUES]
    return sum(map(_is_object_or_list, tried)) > len(tried) / 2


def _is_object_or_list(value: str) -> bool:
    try:
        return isinstance(json.loads(value), (dict, list))
    except (ValueError, RecursionError):
        return in_python_notation(value)


def guess_kind(values: Sequence[str]) -> AnswerKind:
    """Return the kind of answer that the values look like."""
    answers = [value for value in values if value]
    if is_structured(answers):
        return "json"
    different = len(set(answers))
    numbers = sum(plain_number(value) is not None for value in answers)
    if different > MAX_GUESSED_LABELS and numbers >= MIN_NUMBERS * len(answers):
        return "number"
    if different > max(MAX_GUESSED_LABELS, len(answers) / 2):
        return "text"
    return "text" if _mean_length(answers or [""]) > MAX_LABEL_CHARACTERS else "label"


def names_look_like_data(columns: ColumnValues) -> str | None:
    """Return a name that is rather a value, because the file has no line of names; None if all are names.

    Such a name repeats a value of its column, or is a number above numbers, and no name is much
    shorter than the values below it.
    """
    for name, values in columns.items():
        given = sorted(map(len, filter(None, values)))
        if not given or not given[0] <= 2 * len(name):
            return None
    return next((name for name, values in columns.items() if name and _repeats(name, values)), None)


def _repeats(name: str, values: Sequence[str]) -> bool:
    if values.count(name) > 1:
        return True
    return plain_number(name) is not None and all(
        plain_number(value) is not None for value in values if value
    )
