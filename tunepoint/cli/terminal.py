"""What commands share at the terminal: progress, confirmation, and errors as one paragraph."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, NoReturn

import typer

if TYPE_CHECKING:
    from rich.console import Console

FAILED = 2
"""Exit code of every error; 1 is left to Python's own crashes."""
INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells give it."""

Update = Callable[[str, float, float], None]
"""(what runs, seconds done, seconds planned) -> None"""
Paused = Callable[[], AbstractContextManager[None]]
"""Hides the progress bar for a while."""


def console_of(stderr: bool = False) -> Console:
    """Return a console on standard output, or standard error."""
    from rich.console import Console

    return Console(stderr=stderr, soft_wrap=False)


LINE_SECONDS = 30.0
"""Between two lines of progress in a log file."""


@contextmanager
def progress_bar(quiet: bool) -> Iterator[tuple[Update, Paused]]:
    """Show a bar with the time left on standard error; yield how to update and how to hide it."""
    if quiet:
        yield (lambda what, done, planned: None), nullcontext
        return
    if not sys.stderr.isatty():
        yield _ProgressLines().show, nullcontext
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
            # Otherwise the bar overwrites a question and the answer that is typed to it.
            bar.stop()
            try:
                yield
            finally:
                bar.start()

        yield update, paused


class _ProgressLines:
    """Progress for a log file: a line now and then, with the time left by what was planned."""

    def __init__(self) -> None:
        self.started = self.shown = time.monotonic()

    def show(self, what: str, done: float, planned: float) -> None:
        """Print a line if the last one is old enough."""
        now = time.monotonic()
        if now - self.shown < LINE_SECONDS:
            return
        self.shown = now
        share = f", about {min(1.0, done / planned):.0%} of the work" if planned else ""
        typer.echo(f"{(now - self.started) / 60:.1f} min{share}: {what}", err=True)


def confirm_cost(quote: str, yes: bool, step: str, *, paid: bool = False) -> None:
    """Print what comes next and what it costs; on a terminal, ask whether to continue.

    Args:
        quote: the sentence to print.
        yes: skip the question.
        step: what a no stops before.
        paid: whether it costs money elsewhere: without a terminal it then needs a yes.

    Raises:
        StudyError: the answer is no, or nobody can give one.

    """
    from tunepoint.errors import StudyError

    typer.echo(quote, err=True)
    if yes:
        return
    if not sys.stdin.isatty():
        if paid:
            raise StudyError(
                f"stopped before {step}: there is no terminal to ask at, and money is spent with a yes only. "
                "Add --yes, or --max-usd DOLLARS"
            )
        return
    if not typer.confirm("Continue?", err=True):
        raise StudyError(f"stopped before {step}. --yes skips this question")


@contextmanager
def clear_errors() -> Iterator[None]:
    """Turn errors into one paragraph and an exit code; no command shows a traceback."""
    from tunepoint.errors import TunepointError

    try:
        yield
    except TunepointError as error:
        _fail(str(error), FAILED)
    except KeyboardInterrupt:
        _fail("interrupted; what was measured is kept, and the same command resumes", INTERRUPTED)
    except (typer.Exit, BrokenPipeError):
        raise
    except Exception as error:
        if os.environ.get("TUNEPOINT_DEBUG"):
            raise
        _fail(
            f"a bug in Tunepoint: {type(error).__name__}: {error}. Nothing that was measured is lost. Set "
            "TUNEPOINT_DEBUG=1 to see where it happened, and please report it",
            FAILED,
        )


def _fail(message: str, code: int) -> NoReturn:
    typer.echo(f"tunepoint: {message}", err=True)
    raise typer.Exit(code)
