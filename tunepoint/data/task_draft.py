"""A first task.toml, guessed from the data."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from pathlib import Path

from tunepoint.data.guesses import guess_columns, guess_kind
from tunepoint.data.rows import read_rows
from tunepoint.errors import DataError
from tunepoint.models.chat import AnswerKind

MAX_SAMPLED_ROWS = 5_000
"""Rows that the guesses are based on, from the start of the file."""


@dataclass(frozen=True)
class Draft:
    """Guesses about a data file."""

    path: Path
    """The file."""
    input: str
    """Column of the input."""
    target: str
    """Column of the right answer."""
    group: str | None
    """Column of groups; None if no column looks like one."""
    kind: AnswerKind
    """Kind of the answers."""
    labels: tuple[str, ...]
    """Different targets, sorted; empty unless `kind` is label."""
    rows: int
    """Rows that were read, at most MAX_SAMPLED_ROWS."""
    columns: tuple[str, ...]
    """All columns."""

    @property
    def guesses(self) -> list[str]:
        """The guesses, each in a sentence."""
        labels = f", with {len(self.labels)} labels" if self.labels else ""
        return [
            f"{self.rows} rows with the columns {', '.join(self.columns)}",
            f"input is {self.input!r}",
            f"target is {self.target!r}: answers of kind {self.kind}{labels}",
            f"group is {self.group!r}: its rows stay on one side of the split"
            if self.group
            else "no column looks like a group: rows count as independent",
        ]

    def toml(self) -> str:
        """Return the text of task.toml, with comments."""
        quoted = json.dumps  # a JSON string is a TOML string too
        group = (
            f"group = {quoted(self.group)}"
            if self.group
            else '# group = "customer_id"         # rows of one group stay on one side of the split'
        )
        labels = "".join(f'# {_key(label)} = "what this label means"\n' for label in self.labels)
        advice = "\n# Descriptions help prompts: remove the # and say what each label means.\n"
        described = f"{advice}# [answer.labels]\n{labels}" if labels else ""
        return _TEMPLATE.format(
            name=_slug(self.path.stem),
            path=quoted(self.path.name),
            input=quoted(self.input),
            target=quoted(self.target),
            group=group,
            kind=self.kind,
            described=described,
            metric=DEFAULT_METRICS[self.kind],
            models="" if self.kind == "label" else _MODELS,
        )


DEFAULT_METRICS: dict[AnswerKind, str] = {
    "label": "exact",
    "json": "json_fields",
    "number": "numeric",
    "text": "similarity",
}
"""Metric of a new task, by the kind of its answers."""
_MODELS = """
# Answers of this kind need a model that writes text: one of these, or several.
# [[models]]
# name = "openai/gpt-5-mini"     # needs OPENAI_API_KEY; or "ollama/NAME", "http://127.0.0.1:8000/v1#NAME"
# [[models]]
# name = "recorded:LOG.jsonl"    # what runs today, from its log
# [[tune]]
# base = "Qwen/Qwen3-0.6B"       # tuned on this machine
"""
_TEMPLATE = """\
# A Tunepoint task; every key is described in docs/task.md.
name = "{name}"
instruction = "Say in one sentence what to do with the input."

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
queries_per_month = [5_000, 10_000, 20_000]   # low, likely, high: put your own numbers here
horizon_months = 12

[limits]
margin = 0.02                  # how much lower a cheaper option may score
# min_score = 0.85
# p95_seconds = 1.5
# upfront_usd = 2_000
# monthly_usd = 500

[value]
# error_usd = 0.40             # what a wrong answer costs; turns scores into money

[costs]                        # numbers, or [low, likely, high]
# label_minutes = [0.3, 0.5, 1.0]
# hourly_usd = 60
# engineering_hours = [4, 8, 24]
# labels_owned = true          # leave out the cost of labels that you already have
"""


def _slug(text: str) -> str:
    """Return the text as a task's name: letters, digits, `.`, `-` and `_`."""
    name = "".join(c if (c.isalnum() and c.isascii()) or c in "-_." else "-" for c in text.lower())
    return name.strip("-.") or "task"


def _key(label: str) -> str:
    """Return a label as a TOML key, in quotes if it needs them."""
    bare = label.isascii() and all(c.isalnum() or c in "-_" for c in label)
    return label if bare and label else json.dumps(label)


def draft_task(path: Path) -> Draft:
    """Guess the columns, the kind of answer and the labels of a data file.

    Raises:
        DataError: the file cannot be read, or no two columns look like input and target.

    """
    rows = [row for _, row in itertools.islice(read_rows(path), MAX_SAMPLED_ROWS)]
    if not rows:
        raise DataError(f"{path}: has no rows; add examples")
    columns = {
        str(name): ["" if row.get(name) is None else str(row[name]).strip() for row in rows]
        for name in rows[0]
    }
    if len(columns) < 2:
        raise DataError(f"{path}: one column only ({next(iter(columns))!r}); add one with the right answers")
    input_name, target, group = guess_columns(path, columns)
    kind = guess_kind(columns[target])
    labels = tuple(sorted(set(columns[target]) - {""})) if kind == "label" else ()
    return Draft(path, input_name, target, group, kind, labels, len(rows), tuple(columns))
