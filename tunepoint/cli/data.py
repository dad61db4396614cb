"""The commands about data: draft a task, and audit its examples."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tunepoint.cli.options import HERE, JsonOption, SeedOption, TaskArgument
from tunepoint.cli.terminal import clear_errors, print_json

if TYPE_CHECKING:
    from tunepoint.data.prepare import Audit

SMALL_TEST_SET = 200
"""Test items under which `check` warns of wide intervals."""
MAX_SHOWN_LINES = 8
"""Lines of one finding at the terminal; --json has all of them."""


def init(
    data: Annotated[Path, typer.Argument(help="CSV, JSON, JSONL or Parquet with your examples.")],
    prompt: Annotated[
        Path | None,
        typer.Option(help="Your prompt in production: a JSON file of chat messages, or a text file."),
    ] = None,
    force: Annotated[bool, typer.Option(help="Replace an existing task.toml.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a commented task.toml for your data. It prints its guesses. Correct them in task.toml."""
    with clear_errors():
        import os

        from tunepoint.data.task_draft import draft_task
        from tunepoint.errors import TaskError
        from tunepoint.files.text import write_text
        from tunepoint.task.written_prompts import WrittenPrompt, read_messages

        draft = draft_task(data)
        if prompt is not None:
            read_messages(WrittenPrompt(name="today", messages=prompt.resolve()), Path(), draft.guess.inputs)
        path = data.parent / "task.toml"
        if path.exists() and not force:
            raise TaskError(f"{path} already exists; --force replaces it")
        beside = None if prompt is None else os.path.relpath(prompt, data.parent)
        write_text(path, draft.toml(beside))
        if as_json:
            facts = {"columns": draft.columns, "rows": draft.rows, "kind": draft.kind, "labels": draft.labels}
            print_json({"task": path, "guesses": draft.guesses, **facts})
            return
        for guess in draft.guesses:
            typer.echo(f"• {guess}")
        typer.echo(
            f"\nWrote {path}. The lines above are guesses: correct them there, describe the task and give "
            f"its traffic. Then run:\n  tunepoint check {path}\n  tunepoint run {path}"
        )


def migrate(
    data: Annotated[
        Path,
        typer.Argument(help="Table with today's outputs in a column, or chats whose last answers it wrote."),
    ],
    outputs: Annotated[
        str | None, typer.Option(help="Column with the outputs of the model that has to go.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Its name, as in openai/ft:gpt-4.1-mini-2025-04-14:acme::abc.")
    ] = None,
    force: Annotated[bool, typer.Option(help="Replace an existing task.toml and log.")] = False,
) -> None:
    """Draft a study that replaces a model, as one that is shut down: which option is not worse than it?"""
    with clear_errors():
        from datetime import UTC, datetime

        from tunepoint.data.migration import LOG_NAME, draft_migration
        from tunepoint.errors import TaskError
        from tunepoint.files.text import write_text

        draft = draft_migration(data, outputs, model, datetime.now(UTC).date())
        task, log = data.parent / "task.toml", data.parent / LOG_NAME
        there = [str(path) for path in (task, log) if path.exists()]
        if there and not force:
            raise TaskError(f"{' and '.join(there)} already there; --force replaces what is")
        if log.resolve() == data.resolve():
            raise TaskError(f"{data}: the log would be written there; rename the file")
        write_text(log, draft.log)
        write_text(task, draft.task.toml(today=draft.today))
        for line in (*draft.notes, *draft.task.guesses):
            typer.echo(f"• {line}")
        typer.echo(
            f"\nWrote {log} and {task}. The lines above are guesses: correct them there, describe the task, "
            f"name what may replace the model, and give its traffic. Then run:\n  tunepoint run {task}"
        )


def check(task: TaskArgument = HERE, seed: SeedOption = 0, as_json: JsonOption = False) -> None:
    """Check your data. Lists what is left out and why, duplicates and personal data. Trains nothing."""
    with clear_errors():
        from tunepoint.arms.catalog import check_supported
        from tunepoint.data.prepare import prepare
        from tunepoint.errors import TaskError
        from tunepoint.task.sections import JUDGE
        from tunepoint.task.task import Task
        from tunepoint.trials.grading import task_scorer

        loaded = Task.load(task)
        if loaded.score.metric != JUDGE:  # a judge is a model, and opening one needs its key
            task_scorer(loaded)
        prepared = prepare(loaded, seed)
        audit, split = prepared.audit, prepared.split
        if as_json:
            print_json(asdict(audit))
            return
        sizes = f"{len(split.train)} to train, {len(split.dev)} to validate, {len(split.test)} to test"
        typer.echo(f"{audit.read} rows read, {audit.kept} kept in {audit.groups} groups: {sizes}")
        for title, lines in _findings(audit):
            _show(title, lines)
        if len(split.test) < SMALL_TEST_SET:
            typer.echo(
                f"The test set has {len(split.test)} items: expect wide intervals. {SMALL_TEST_SET} are a "
                "start."
            )
        typer.echo("`tunepoint run` also looks for doubtful labels; that takes the encoder.")
        try:
            check_supported(loaded)
        except TaskError as missing:  # the data can be audited all the same
            typer.echo(f"Before `tunepoint run`: {missing}")


def _findings(audit: Audit) -> Iterator[tuple[str, list[str]]]:
    """Yield the title and the lines of each kind of finding."""
    yield "left out", [f"{drop.id}: {drop.reason}" for drop in audit.dropped]
    pairs = [f"{item} ~ {twin}" for item, twin in audit.near_duplicates]
    yield "near duplicates, kept in the same set", pairs
    yield "labels with few examples", [f"{label}: {count}" for label, count in audit.thin.items()]
    yield "personal data", [f"{finding.id}: {finding.kind}" for finding in audit.personal]
    yield "not to be trained on", [f"{reason}: {count}" for reason, count in audit.untrainable.items()]
    if audit.unreadable:
        yield "targets that cannot be read", [f"{t.id}: {t.target!r} is {t.reason}" for t in audit.unreadable]
    if audit.notes:
        yield "about the file", list(audit.notes)
    certificate = audit.certificate
    shared = [f"{certificate.shared_groups} groups"] if certificate.shared_groups else []
    shared += [f"{item} ~ {twin}" for item, twin in certificate.twins.items()]
    yield "both in the test set and outside it", shared


def _show(title: str, lines: list[str]) -> None:
    typer.echo(f"{title}: {len(lines) or 'none'}")
    for line in lines[:MAX_SHOWN_LINES]:
        typer.echo(f"  • {line}")
    if len(lines) > MAX_SHOWN_LINES:
        typer.echo(f"  … and {len(lines) - MAX_SHOWN_LINES} more (--json lists all)")
