"""A first task.toml, guessed from the data."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from tunepoint.data.chats import CHAT_TEXTS
from tunepoint.data.guesses import (
    ColumnGuess,
    ColumnValues,
    guess_columns,
    guess_group,
    guess_kind,
    names_look_like_data,
)
from tunepoint.data.json_schema import Schema, common_schema, schema_toml, toml_key
from tunepoint.data.rows import read_table
from tunepoint.data.table import Table, cell_text, column_names, counted
from tunepoint.data.targets import in_python_notation, label_spellings
from tunepoint.errors import DataError
from tunepoint.files.toml import quoted
from tunepoint.models.chat import AnswerKind


@dataclass(frozen=True)
class Draft:
    """Guesses about a data file."""

    path: Path
    """The file."""
    columns: tuple[str, ...]
    """All columns."""
    guess: ColumnGuess
    """Columns of input, target and group."""
    kind: AnswerKind
    """Kind of the answers."""
    labels: tuple[str, ...]
    """Different targets, sorted; empty unless `kind` is label."""
    rows: int
    """Rows in the file."""
    schema: Schema | None = None
    """JSON schema that all targets follow, if they are JSON."""
    notes: tuple[str, ...] = ()
    """What was found in the file and how it was read."""

    @property
    def target(self) -> str:
        """Column of the right answer."""
        return self.guess.target

    @property
    def group(self) -> str | None:
        """Column of groups; None if no column looks like one."""
        return self.guess.group

    @property
    def guesses(self) -> list[str]:
        """The guesses, each in a sentence."""
        guess, labels = self.guess, f", with {counted(len(self.labels), 'label')}" if self.labels else ""
        inputs = guess.inputs[0] if len(guess.inputs) == 1 else list(guess.inputs)
        names = ", ".join(name or "(without a name)" for name in self.columns)
        return [
            f"{self.rows} rows with the columns {names}",
            *self.notes,
            f"input is {inputs!r}, {guess.why_input}",
            f"target is {guess.target!r}, {guess.why_target}: answers of kind {self.kind}{labels}",
            f"group is {guess.group!r}: its rows stay on one side of the split"
            if guess.group
            else "no column looks like a group: rows count as independent",
        ]

    def toml(self, prompt: str | None = None, today: Today | None = None) -> str:
        """Return the text of task.toml, with comments.

        Args:
            prompt: path of a prompt that is in production, from the folder of the file.
            today: what runs today and has to be replaced; None where the question is another one.

        """
        models = _MODELS if self.kind != "label" or prompt is not None else ""
        if today is not None:
            models = today.toml(with_encoder=self.kind == "label")
        inputs = [quoted(name) for name in self.guess.inputs]
        return _TEMPLATE.format(
            name=_slug(self.path.stem),
            path=quoted(self.path.name),
            input=inputs[0] if len(inputs) == 1 else f"[{', '.join(inputs)}]",
            target=quoted(self.target),
            group=f"group = {quoted(self.group)}" if self.group else _NO_GROUP,
            kind=self.kind,
            described=self._described(),
            metric=DEFAULT_METRICS[self.kind],
            prompts="" if prompt is None else _PROMPTS.format(path=quoted(prompt)),
            models=models,
            margin="0.05" if today is not None and today.is_right else "0.02",
        )

    def _described(self) -> str:
        """Return the section of the labels or of the JSON schema."""
        if self.schema is not None:
            return "\n# All targets follow this schema: correct it, or remove it.\n" + schema_toml(
                self.schema
            )
        labels = "".join(f'# {toml_key(label)} = "what this label means"\n' for label in self.labels)
        advice = "\n# Descriptions help prompts: remove the # and say what each label means.\n"
        return f"{advice}# [answer.labels]\n{labels}" if labels else ""


@dataclass(frozen=True)
class Today:
    """What runs today and has to be replaced."""

    log: str
    """Path of its outputs, from the folder of the file."""
    model: str | None
    """Its name, as in `openai/ft:gpt-4.1-mini-2025-04-14:acme::abc`."""
    retires: date | None
    """The day on which it is shut down; None if no day is known, or it has passed."""
    is_right: bool
    """Whether its outputs count as the right answers, for lack of others."""

    def toml(self, *, with_encoder: bool) -> str:
        """Return its section, and those of what may replace it."""
        retires = "# retires = 2027-01-31           # the day on which it is shut down"
        if self.retires is not None:
            retires = f"retires = {self.retires.isoformat()}           # the day on which it is shut down"
        name = f"  # {self.model}" if self.model else ""
        agreement = _AGREEMENT if self.is_right else ""
        encoder = _ENCODER if with_encoder else ""
        return _TODAY.format(log=quoted(self.log), name=name, agreement=agreement, retires=retires) + (
            _REPLACEMENTS.format(encoder=encoder)
        )


_AGREEMENT = """\
# Its outputs count as the right answers, so a score is the agreement with it, errors included. Right answers
# of people for 200 examples or more would tell which of the two is wrong.
"""
_TODAY = """
# What runs today, from its log: it has to go, and every option is compared with it.
{agreement}[[models]]
name = {log}{name}
replaced = true
{retires}
# price = {{ input = 0.80, output = 3.20 }}   # dollars per million tokens, if the log counts them
"""
_ENCODER = """\
[[models]]
name = "embedded:minilm"       # an encoder that is tuned on this machine, without a key
"""
_REPLACEMENTS = """
# What may replace it: take the # from one or several.
{encoder}# [[models]]
# name = "openai/gpt-6-luna"     # prompted; needs OPENAI_API_KEY
# [[models]]
# name = "embedded:qwen2.5-coder-0.5b"   # prompted on this machine: tunepoint models pull qwen2.5-coder-0.5b
# [[tune]]
# base = "Qwen/Qwen3-0.6B"       # tuned on this machine; docs/tuning.md says who tunes until when
"""
DEFAULT_METRICS: dict[AnswerKind, str] = {
    "label": "exact",
    "json": "json_fields",
    "number": "numeric",
    "text": "similarity",
}
"""Metric of a new task, by the kind of its answers."""
_PROMPTS = """
# The prompt that you have: it is sent as it is, and everything else is compared with it.
[[prompts]]
name = "today"
messages = {path}
"""
_MODELS = """
# Models that write text: take the # from one of these, or several.
# [[models]]
# name = "openai/gpt-6-luna"     # needs OPENAI_API_KEY; or "ollama/NAME", "http://127.0.0.1:8000/v1#NAME"
# [[models]]
# name = "recorded:LOG.jsonl"    # what runs today, from its log
# [[tune]]
# base = "Qwen/Qwen3-0.6B"       # tuned on this machine
"""
_TEMPLATE = """\
# A Tunepoint task; every key is described in docs/task.md.
name = "{name}"
instruction = ""                # say in one sentence what to do with the input: prompts begin with it

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
{prompts}{models}
[traffic]
queries_per_month = [5_000, 10_000, 20_000]   # low, likely, high: put your own numbers here
horizon_months = 12

[limits]
margin = {margin}                  # how much lower a cheaper option may score
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
# labels_owned = false         # the labels of these examples are still to be paid for
"""


_NO_GROUP = '# group = "customer_id"         # rows of one group stay on one side of the split'


def _slug(text: str) -> str:
    """Return the text as a task's name: letters, digits, `.`, `-` and `_`."""
    name = "".join(c if (c.isalnum() and c.isascii()) or c in "-_." else "-" for c in text.lower())
    return name.strip("-.") or "task"


def draft_task(path: Path, *, apart: Collection[str] = ()) -> Draft:
    """Guess the columns, the kind of answer and the labels of a data file.

    Args:
        path: of the file.
        apart: columns that are neither input nor target.

    Raises:
        DataError: the file cannot be read, has no line of names, or holds no input and target.

    """
    table = read_table(path)
    names = column_names(table.rows)
    if not names:
        raise DataError(f"{path}: has no rows; add examples")
    columns = {
        name: [cell_text(row.get(name)) for _, row in table.rows] for name in names if name not in apart
    }
    if len(columns) < 2:
        raise DataError(f"{path}: one column only ({names[0]!r}); add one with the right answers")
    _check_names(path, table, columns)
    guess = guess_columns(path, columns) if table.roles is None else _by_form(table.roles, columns)
    targets = [target for target in columns[guess.target] if target]
    kind = guess_kind(targets)
    notes = [*table.notes, *_left_out(path, table), *_gaps(path, columns, guess)]
    if kind == "json" and any(map(in_python_notation, targets)) and common_schema(targets) is None:
        notes.append(f"{guess.target!r} is in Python's notation, not JSON: write it with json.dumps")
    return Draft(
        path,
        names,
        guess,
        kind,
        labels=_labels(targets) if kind == "label" else (),
        rows=len(table.rows) + len(table.left_out),
        schema=common_schema(targets) if kind == "json" else None,
        notes=tuple(notes),
    )


def _check_names(path: Path, table: Table, columns: ColumnValues) -> None:
    """Raise an error if the file has no line of names, so that its first row is taken for one."""
    if table.header is None:
        return
    # Where files were joined, the line of names stands among the rows as well.
    repeated = [all(column[i] == name for name, column in columns.items()) for i in range(len(table.rows))]
    rows = {
        name: [value for value, is_header in zip(column, repeated, strict=True) if not is_header]
        for name, column in columns.items()
    }
    value = names_look_like_data(rows)
    if value is not None:
        raise DataError(
            f"{path}: the first line looks like data, not like names of columns ({value!r} is a value of its "
            "column); add a line with names above it, such as text,label"
        )


def _by_form(roles: tuple[tuple[str, ...], str], columns: ColumnValues) -> ColumnGuess:
    """Return the columns of chats; one of the others may tie rows together."""
    inputs, target = roles
    others = {name: values for name, values in columns.items() if name not in (*CHAT_TEXTS, *inputs, target)}
    why = "what stands before the last answer", "the last answer of a chat"
    return ColumnGuess(inputs, target, guess_group(others), *why)


def _labels(targets: Sequence[str]) -> tuple[str, ...]:
    spelling = label_spellings(sorted(set(targets)))
    return tuple(sorted({spelling.get(target, target) for target in targets}))


def _left_out(path: Path, table: Table) -> list[str]:
    if not table.left_out:
        return []
    line, reason = table.left_out[0]
    return [f"{counted(len(table.left_out), 'row')} left out, the first at {path.name}:{line}: {reason}"]


def _gaps(path: Path, columns: ColumnValues, guess: ColumnGuess) -> list[str]:
    """Return which guessed columns have empty cells, and in how many rows."""
    used = (*guess.inputs, guess.target, *([guess.group] if guess.group else []))
    blank = {name: columns[name].count("") for name in used}
    return [
        f"{path.name}: {counted(count, 'row')} of {len(columns[name])} without {name!r}"
        for name, count in blank.items()
        if count
    ]
