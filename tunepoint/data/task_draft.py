"""A first task.toml, guessed from the data and said so."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tunepoint.data.examples import read_rows
from tunepoint.errors import DataError
from tunepoint.models.chat import AnswerKind

LOOK_AT = 5_000
LONGEST_LABEL = 60
"""Characters, on average, beyond which repeated answers are taken for texts."""
TARGETS = (
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
INPUTS = ("text", "input", "message", "question", "query", "prompt", "body", "content", "utterance")
GROUPS = (
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


@dataclass(frozen=True)
class Draft:
    """What was guessed of a data file."""

    path: Path
    input: str
    target: str
    group: str | None
    kind: AnswerKind
    labels: tuple[str, ...]
    rows: int
    columns: tuple[str, ...]

    @property
    def said(self) -> list[str]:
        """The guesses, each in a sentence."""
        found = [
            f"{self.rows} rows with the columns {', '.join(self.columns)}",
            f"input is {self.input!r}, the column with the longest texts",
            f"target is {self.target!r}, answers of kind {self.kind}"
            + (f" with {len(self.labels)} labels" if self.labels else ""),
        ]
        found.append(
            f"group is {self.group!r}: its members stay on one side of the split"
            if self.group
            else "no group column was recognised: rows count as independent"
        )
        return found

    def toml(self) -> str:
        """The commented task.toml."""
        quoted = json.dumps
        group = (
            f"group = {quoted(self.group)}"
            if self.group
            else '# group = "customer_id"         # rows of one group are never split'
        )
        labels = "".join(f'# {_key(label)} = "what belongs here"\n' for label in self.labels)
        advice = "\n# Descriptions help prompting; take the # away and say what belongs where.\n"
        described = f"{advice}# [answer.labels]\n{labels}" if labels else ""
        return _TEMPLATE.format(
            name=_slug(self.path.stem),
            path=quoted(self.path.name),
            input=quoted(self.input),
            target=quoted(self.target),
            group=group,
            kind=self.kind,
            described=described,
            metric=METRICS[self.kind],
            models="" if self.kind == "label" else _MODELS,
        )


METRICS: dict[AnswerKind, str] = {
    "label": "exact",
    "json": "json_fields",
    "number": "numeric",
    "text": "similarity",
}
"""How answers of a kind are scored where nobody says otherwise."""
_MODELS = """
# Answers of this kind need a model that writes: one of these, or several.
# [[models]]
# name = "openai/gpt-5-mini"     # its key in OPENAI_API_KEY; or "ollama/NAME", "http://127.0.0.1:8000/v1#NAME"
# [[models]]
# name = "recorded:LOG.jsonl"    # what runs today, from its log
# [[tune]]
# base = "Qwen/Qwen3-0.6B"       # tuned on this machine
"""
_TEMPLATE = """\
# A Tunepoint task; every key is described in docs/task.md.
name = "{name}"
instruction = "Say in one sentence what shall be done with the input."

[data]
path = {path}
input = {input}
target = {target}
{group}

[answer]
kind = "{kind}"                 # label | json | number | text
{described}
[score]
metric = "{metric}"
{models}
[traffic]
queries_per_month = [5_000, 10_000, 20_000]   # low, likely, high: your own figures, please
horizon_months = 12

[limits]
margin = 0.02                  # how much worse a cheaper arm may score
# min_score = 0.85
# p95_seconds = 1.5
# upfront_usd = 2_000
# monthly_usd = 500

[value]
# error_usd = 0.40             # what a wrong answer costs; turns score into money

[costs]                        # numbers, or [low, likely, high]
# label_minutes = [0.3, 0.5, 1.0]
# hourly_usd = 60
# engineering_hours = [4, 8, 24]
# labels_owned = true          # leave out the labels that you have already
"""


def _slug(text: str) -> str:
    kept = "".join(c if (c.isalnum() and c.isascii()) or c in "-_." else "-" for c in text.lower())
    return kept.strip("-.") or "task"


def _key(label: str) -> str:
    bare = label.isascii() and all(c.isalnum() or c in "-_" for c in label)
    return label if bare and label else json.dumps(label)


def draft(path: Path) -> Draft:
    """Look at a data file and guess its columns, answer kind and labels.

    Raises:
        DataError: the file cannot be read, or no two columns look like input and target.

    """
    rows = [row for _, row in itertools.islice(read_rows(path), LOOK_AT)]
    if not rows:
        raise DataError(f"{path}: no rows in it")
    columns = {
        str(name): ["" if row.get(name) is None else str(row[name]).strip() for row in rows]
        for name in rows[0]
    }
    if len(columns) < 2:
        raise DataError(
            f"{path}: one column only ({next(iter(columns))!r}); an input and a target are needed"
        )
    group = _named(columns, GROUPS, lambda values: 1 < len(set(values)) < len(values))
    free = [name for name in columns if name != group]
    text = _named({n: columns[n] for n in free}, INPUTS, lambda values: any(values))
    text = text or max(free, key=lambda name: _mean_length(columns[name]))
    rest = {name: columns[name] for name in free if name != text}
    if not rest:
        raise DataError(f"{path}: no column is left for the target beside {text!r} and {group!r}")
    target = _named(rest, TARGETS, lambda values: any(values)) or min(
        rest, key=lambda name: (not 2 <= len(set(rest[name])) <= len(rows) / 3, len(set(rest[name])))
    )
    kind = _kind(columns[target])
    labels = tuple(sorted(set(columns[target]) - {""})) if kind == "label" else ()
    return Draft(path, text, target, group, kind, labels, len(rows), tuple(columns))


def _named(columns: dict[str, list[str]], words: Sequence[str], fits: object) -> str | None:
    """The first column whose name is, or contains, one of the words and whose values fit."""
    assert callable(fits)
    for word in words:
        for name, values in columns.items():
            parts = name.lower().replace("-", "_").split("_")
            if word in parts and fits(values):
                return name
    return None


def _mean_length(values: Sequence[str]) -> float:
    return sum(map(len, values)) / len(values)


def _kind(values: Sequence[str]) -> AnswerKind:
    """The answer kind that the values look like."""
    given = [value for value in values if value]
    if given and all(value[0] in "{[" for value in given):
        return "json"
    different = len(set(given))
    if different > 20 and all(_is_number(value) for value in given):
        return "number"
    if different > max(20, len(given) / 2) or _mean_length(given or [""]) > LONGEST_LABEL:
        return "text"
    return "label"


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", ""))
    except ValueError:
        return False
    return True
