"""The commands about captured traffic: import it from other tools, turn it into examples."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tunepoint.cli.options import (
    DEFAULT_STORE,
    JsonOption,
    SplitSeedOption,
    SplitStudyOption,
    StoreOption,
    TaskArgument,
)
from tunepoint.cli.terminal import clear_errors, print_json

if TYPE_CHECKING:
    from tunepoint.capture.acceptance import Judge
    from tunepoint.capture.log_import import Take
    from tunepoint.capture.records import CapturedRequest
    from tunepoint.data.examples import Example
    from tunepoint.task.task import Task
    from tunepoint.trials.trial import Trial

MOST_WAITING = 1_000
"""Requests in memory that wait to be written, about."""
MOST_CHARACTERS = 2 * 2**20
"""Of their texts, which the writer would leave out where too many wait."""
WRITE_SECONDS = 600
"""To wait for imported requests to be written."""


def add_to(app: typer.Typer) -> None:
    """Add these commands to an application."""
    app.command()(harvest)
    app.command("import")(import_)
    app.command()(backup)


def backup(
    source: Annotated[str, typer.Argument(metavar="FROM", help="Capture store: a file, or postgresql://...")],
    target: Annotated[str, typer.Argument(metavar="TO", help="Another one, which is empty or not there.")],
    as_json: JsonOption = False,
) -> None:
    """Copy a capture store while gateways use it: a backup, its restoration, or a move to PostgreSQL."""
    with clear_errors():
        from tunepoint.capture.copying import copy_store
        from tunepoint.capture.opening import open_store

        with open_store(source, create=False) as read, open_store(target) as written:
            copied = copy_store(read, written)
            if as_json:
                print_json({"from": read.label, "to": written.label, "rows": copied.rows})
            else:
                typer.echo(f"{read.label} is copied to {written.label}: {copied}.")


def import_(
    logs: Annotated[list[Path], typer.Argument(help="The logs.")],
    kind: Annotated[
        str, typer.Option("--from", help="openai, litellm, langfuse, otel, promptfoo or inspect.")
    ],
    task: Annotated[str, typer.Option(help="Name of the task that the requests belong to.")] = "",
    store: StoreOption = DEFAULT_STORE,
    out: Annotated[Path, typer.Option(help="File for trials, after those that it holds.")] = Path(
        "trials.jsonl"
    ),
    score: Annotated[
        str | None, typer.Option(help="Scorer (Inspect) or metric (promptfoo) to use, if there are several.")
    ] = None,
    keep_personal: Annotated[
        bool, typer.Option("--keep-personal", help="Do not redact personal data.")
    ] = False,
) -> None:
    """Import logs of another tool. Requests go to the capture store, evaluations become trials."""
    with clear_errors():
        from tunepoint.capture.log_formats import REQUEST_READERS
        from tunepoint.capture.log_import import import_logs
        from tunepoint.errors import DataError

        if kind in REQUEST_READERS:
            if not task:
                raise DataError("--task is missing: give the name of the task that these requests belong to")
            with _written(store, keep_personal) as take:
                imported = import_logs(logs, kind, task, take=take)
            typer.echo(f"{store}: {imported}")
            return
        imported = import_logs(logs, kind, task, score)
        if imported.trials:
            new, arms = _add_trials(out, imported.trials)
            known = len(imported.trials) - new
            typer.echo(f"{out}: {imported}{f' ({known} were there already)' if known else ''}")
            typer.echo(_next(out, arms))


def _add_trials(out: Path, trials: Sequence[Trial]) -> tuple[int, int]:
    """Add trials to a file; return how many are new, and how many arms the file then has."""
    from tunepoint.errors import DataError
    from tunepoint.study.manifest import MANIFEST
    from tunepoint.trials.imported import add_trials
    from tunepoint.trials.trial import read_trials

    if (out.parent / MANIFEST).exists():
        raise DataError(f"{out}: belongs to a study; name a file outside its directory with --out")
    new = add_trials(out, trials)
    return new, len({trial.arm for trial in read_trials(out)})


def _next(out: Path, arms: int) -> str:
    """Return what to do with a file of trials."""
    if arms < 2:
        return f"A decision compares at least two options. Next: import results of another with --out {out}"
    return f"Next: `tunepoint decide --task task.toml --trials {out}`"


@contextmanager
def _written(store: str, keep_personal: bool) -> Iterator[Take]:
    """Open a capture store for requests, redacted unless `keep_personal`; all are written at the end."""
    from tunepoint.capture.opening import open_store
    from tunepoint.capture.redaction import PatternRedactor
    from tunepoint.capture.writer import Writer
    from tunepoint.errors import DataError

    with open_store(store) as opened:
        writer = Writer(opened, None if keep_personal else PatternRedactor(), linger=0.0)

        def take(requests: Sequence[CapturedRequest]) -> None:
            # A gateway's writer drops what comes too fast and leaves out texts; an import must do neither.
            for request in requests:
                while writer.waiting > MOST_WAITING or writer.waiting_characters > MOST_CHARACTERS:
                    if writer.counts.failing:
                        raise DataError(f"{store}: cannot be written; mend that, and import again")
                    time.sleep(0.01)
                writer.put(request)

        try:
            yield take
        finally:
            waiting = writer.close(WRITE_SECONDS)
        counts = writer.counts
        lost = waiting + counts.refused + counts.dropped + counts.shortened
        if lost:
            raise DataError(f"{store}: {lost} requests could not be written, or only without their texts")


def harvest(
    task: TaskArgument,
    to: Annotated[Path, typer.Option(help="JSONL file for the examples.")],
    store: StoreOption = DEFAULT_STORE,
    accept: Annotated[
        float | None, typer.Option(help="Score from which an answer is good.", min=0, max=1)
    ] = None,
    most_per_label: Annotated[
        int | None, typer.Option(help="Highest number of examples for each label.", min=1)
    ] = None,
    licence: Annotated[str | None, typer.Option(help="License to write on every example.")] = None,
    judge: Annotated[
        bool,
        typer.Option("--judge", help="Let the task's judge grade answers without feedback. Costs money."),
    ] = False,
    seed: SplitSeedOption = None,
    study: SplitStudyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Turn captured traffic into examples. Takes what people accepted or corrected, never the test set."""
    with clear_errors():
        from tunepoint.capture.acceptance import Rules
        from tunepoint.capture.harvest import harvest as harvest_examples
        from tunepoint.capture.harvest import write_examples
        from tunepoint.capture.opening import open_store
        from tunepoint.models.embedded import installed_encoder
        from tunepoint.stats.streams import Stream, stream
        from tunepoint.task.task import Task

        loaded = Task.load(task)
        split_seed, known, sealed = _known_examples(loaded, seed, study)
        encoder = installed_encoder()
        with open_store(store, create=False) as opened, _judge_of(loaded, judge) as judging:
            rules = Rules(
                loaded.score.accept if accept is None else accept,
                most_per_label,
                judging,
                embed=None if encoder is None else encoder.embed,
                licence=licence,
            )
            rng = stream(split_seed, Stream.HARVEST)
            harvested = harvest_examples(opened, loaded, known, sealed, rng, rules)
        write_examples(harvested, loaded, to)
        if as_json:
            counts = {"questions": harvested.questions, "left_out": dict(harvested.rejections)}
            content = {"examples": len(harvested.examples), "by_target": harvested.by_target}
            print_json({"file": to, **content, **counts})
            return
        typer.echo(str(harvested))
        typer.echo(f"{to}: {len(harvested.examples)} examples")


def _known_examples(
    task: Task, seed: int | None, study: Path | None
) -> tuple[int, tuple[Example, ...], tuple[Example, ...]]:
    """Return the seed of the split, the examples outside the test set, and those of the test set."""
    if task.data is None:
        return seed or 0, (), ()
    from tunepoint.data.prepare import prepare
    from tunepoint.study.seal import seed_of_seal

    split_seed = seed_of_seal(task, seed=seed, study=study)
    split = prepare(task, split_seed).split
    return split_seed, (*split.train, *split.dev), split.test


@contextmanager
def _judge_of(task: Task, wanted: bool) -> Iterator[Judge | None]:
    """Open the task's judge, its calls recorded beside task.toml; yield None where it is not wanted."""
    from tunepoint.errors import TaskError
    from tunepoint.models.budget import Budget
    from tunepoint.study.chat_models import open_chat_models
    from tunepoint.trials.judge import Judge as Grader

    if not wanted:
        yield None
        return
    if task.score.judge is None:
        raise TaskError('--judge: the task has no judge; score.metric = "judge" names one')
    with open_chat_models(task, task.folder / "harvest.sqlite", Budget(None, 0.0)) as models:
        assert models.judge is not None, "a task with a judge opens it"
        grader = Grader(models.judge, task)
        yield lambda answers, examples: [grading.score for grading in grader(answers, examples)]
