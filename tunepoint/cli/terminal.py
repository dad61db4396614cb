"""What commands share: their options, progress, questions, and errors as one paragraph."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from rich.console import Console


def console_of(stderr: bool = False) -> Console:
    """A console on standard output, or standard error."""
    from rich.console import Console

    return Console(stderr=stderr, soft_wrap=False)


SplitSeedOption = Annotated[
    int | None, typer.Option(help="Seed of the split; that of the task's study if missing, else 0.", min=0)
]
SplitStudyOption = Annotated[
    Path | None, typer.Option(help="Split as this study did, so that its test set stays sealed.")
]
SeedOption = Annotated[int, typer.Option(help="All randomness; the same seed repeats a study.", min=0)]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the machine's form.")]
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask after the quote whether to go on.")]
TaskArgument = Annotated[Path, typer.Argument(help="task.toml, or the folder it is in.")]

Update = Callable[[str, float, float], None]
Paused = Callable[[], AbstractContextManager[None]]


@contextmanager
def progress_bar(quiet: bool) -> Iterator[tuple[Update, Paused]]:
    """A bar with the time left, on standard error; and what hides it for a while."""
    if quiet:
        yield (lambda what, done, planned: None), nullcontext
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns: tuple[Any, ...] = (
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(elapsed_when_finished=False),
    )
    with Progress(*columns, console=console_of(stderr=True), transient=True) as bar:
        line = bar.add_task("starting", total=None)

        def update(what: str, done: float, planned: float) -> None:
            bar.update(line, description=what, completed=done, total=planned or None)

        @contextmanager
        def paused() -> Iterator[None]:
            bar.stop()
            try:
                yield
            finally:
                bar.start()

        yield update, paused


def go_on(said: str, yes: bool, step: str) -> None:
    """Print what comes and what it costs; on a terminal, ask."""
    from tunepoint.errors import StudyError

    typer.echo(said, err=True)
    if not yes and sys.stdin.isatty() and not typer.confirm("Go on?", err=True):
        raise StudyError(f"stopped before {step}. --yes goes on without asking")


@contextmanager
def clear_errors() -> Iterator[None]:
    """Our errors as one paragraph with exit code 2; an interrupt says that nothing is lost."""
    from tunepoint.errors import TunepointError

    try:
        yield
    except TunepointError as error:
        _fail(str(error), 2)
    except KeyboardInterrupt:
        _fail("interrupted; what was measured is kept, the same command goes on", 130)
    except (typer.Exit, BrokenPipeError):
        raise
    except Exception as error:
        if os.environ.get("TUNEPOINT_DEBUG"):
            raise
        _fail(
            f"a defect of tunepoint: {type(error).__name__}: {error}. Nothing that was measured is "
            "lost; TUNEPOINT_DEBUG=1 shows where it happened, for the report to its authors",
            2,
        )


def _fail(message: str, code: int) -> NoReturn:
    typer.echo(f"tunepoint: {message}", err=True)
    raise typer.Exit(code)
