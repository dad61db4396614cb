"""A log and a task for the replacement of what runs today, from a table of its outputs or a file of chats."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from tunepoint.data.rows import read_table
from tunepoint.data.table import Table, cell_text, column_names
from tunepoint.data.task_draft import Draft, Today, draft_task
from tunepoint.errors import DataError, nearest
from tunepoint.models.retirements import announced_retirement

LOG_NAME = "today.jsonl"
"""The outputs of what runs today, beside task.toml."""
MIN_COVERAGE = 0.9
"""Share of the test examples that a log has to answer; see arms/incumbent.py."""
COUNTS = ("input_tokens", "cached_tokens", "output_tokens", "seconds")
"""Columns that a log takes over, where the table has them."""


@dataclass(frozen=True)
class MigrationDraft:
    """What `tunepoint migrate` writes."""

    task: Draft
    today: Today
    log: str
    """Content of the log."""
    notes: tuple[str, ...]
    """What the user should know, a sentence each."""


def draft_migration(path: Path, outputs: str | None, model: str | None, today: date) -> MigrationDraft:
    """Draft the task and the log.

    Args:
        path: of a table with a column of outputs, or of a file of chats.
        outputs: the column; for chats, the last answers are the outputs if None.
        model: name of what runs today, for the day on which it is shut down.
        today: decides whether that day has passed.

    Raises:
        DataError: the file cannot be read, or it has no such column.

    """
    table = read_table(path)
    if outputs is None and table.roles is None:
        raise DataError(
            f"{path}: say which column holds what today's model answered, with --outputs COLUMN (they are "
            f"{', '.join(column_names(table.rows))}); or give a file of chats, whose last answers it wrote"
        )
    if outputs is not None and outputs not in column_names(table.rows):
        raise DataError(f"{path}: no column {outputs!r}; {nearest(outputs, column_names(table.rows))}")
    draft = _draft(path, outputs)
    lines = _log_lines(path, table, outputs or draft.target)
    retires, notes = _shutdown(model, today)
    if outputs is None:
        notes.append(
            "the answers of today's model count as right, so a score is the agreement with it; the margin "
            "is 5 points instead of 2"
        )
    return MigrationDraft(
        draft,
        Today(f"recorded:{LOG_NAME}", model, retires, is_right=outputs is None),
        "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines),
        (_coverage(len(lines), len(table.rows)), *notes),
    )


def _draft(path: Path, outputs: str | None) -> Draft:
    """The task; columns of tokens and seconds are set apart, unless input or target is among them."""
    try:
        return draft_task(path, apart=[name for name in (outputs, *COUNTS) if name is not None])
    except DataError:
        return draft_task(path, apart=[] if outputs is None else [outputs])


def _coverage(lines: int, rows: int) -> str:
    words = f"{lines} outputs of today's model"
    if lines < MIN_COVERAGE * rows:
        words += (
            f" for {rows} rows: {MIN_COVERAGE:.0%} of the test examples need one, so leave out rows without"
        )
    return words


def base_of(model: str) -> str:
    """Return the base of a tuned model, as `openai/BASE` of `openai/ft:BASE:ORG::ID`; others as they are."""
    provider, _, name = model.partition("/") if "/" in model else ("openai", "", model)
    return f"{provider}/{name.split(':')[1]}" if name.startswith("ft:") else model


def _shutdown(model: str | None, today: date) -> tuple[date | None, list[str]]:
    """The announced day, unless it has passed, and what to say of it."""
    if model is None:
        return None, ["--model NAME looks up the day on which it is shut down"]
    announced = announced_retirement(base_of(model))
    if announced is None:
        return None, [f"no day is known on which {model} is shut down: give `retires` if there is one"]
    note = f"{model} {announced.when(today)} ({announced.source}, checked {announced.checked})"
    return announced.on if announced.on > today else None, [note]


def _log_lines(path: Path, table: Table, column: str) -> list[dict[str, Any]]:
    """The lines of the log; rows without an output are left out.

    Raises:
        DataError: no row has one.

    """
    lines = []
    for number, row in table.rows:
        output = cell_text(row.get(column))
        if output:
            lines.append({"item": f"{path.name}:{number}", "output": output, **_counts(row)})
    if not lines:
        raise DataError(f"{path}: no row has an output in {column!r} ({len(table.rows)} rows read)")
    return lines


def _counts(row: Mapping[str, Any]) -> dict[str, float]:
    """Tokens and seconds of a row, where they are numbers."""
    counts = {}
    for name in COUNTS:
        try:
            value = float(row.get(name) or "nan")
        except (TypeError, ValueError):
            continue
        if value >= 0 and value < float("inf"):
            counts[name] = value if name == "seconds" else int(value)
    return counts
