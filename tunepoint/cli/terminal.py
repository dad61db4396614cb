"""What commands share at the terminal: progress, confirmation, and errors as one paragraph."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from tunepoint.study.progress import Progress, ShowProgress

FAILED = 2
"""Exit code of every error; 1 is left to Python's own crashes."""
UNDECIDED = 3
"""Exit code of a study without a verdict, for those who ask for it with `--fail-undecided`."""
INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells give it."""

ProgressForm = Literal["bar", "json"]
Paused = Callable[[], AbstractContextManager[None]]
"""Hides the progress bar for a while."""


def console_of(stderr: bool = False) -> Console:
    """Return a console on standard output, or standard error."""
    from rich.console import Console

    return Console(stderr=stderr, soft_wrap=False)


LINE_SECONDS = 30.0
"""Between two lines of progress in a log file."""
JSON_SECONDS = 1.0
"""Between two lines of progress for a program."""


@contextmanager
def progress_bar(quiet: bool, form: ProgressForm = "bar") -> Iterator[tuple[ShowProgress, Paused]]:
    """Show on standard error how far a study is; yield how to update and how to hide it.

    Args:
        quiet: show nothing.
        form: a bar (on a terminal; else a line now and then), or lines of JSON for programs.

    """
    if quiet:
        yield (lambda progress: None), nullcontext
        return
    if form == "json" or not sys.stderr.isatty():
        json_lines = _ProgressLines(_json_line, JSON_SECONDS, at_once=True)
        log_lines = _ProgressLines(_log_line, LINE_SECONDS, at_once=False)
        yield (json_lines if form == "json" else log_lines).show, nullcontext
        json_lines.show_last()
        return
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns: tuple[Any, ...] = (
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(elapsed_when_finished=False),
    )
    with Bars(*columns, console=console_of(stderr=True), transient=True) as bar:
        line = bar.add_task("starting", total=None)

        def update(progress: Progress) -> None:
            description = f"{progress.what}{_spent(progress)}"
            bar.update(
                line,
                description=description,
                completed=progress.done,
                total=progress.planned or None,
            )

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
    """Progress in lines, none sooner after the last one than some seconds."""

    def __init__(self, line: Callable[[Progress, float], str], seconds: float, *, at_once: bool) -> None:
        """Begin to count the time.

        Args:
            line: what to print, by the progress and the seconds since the start.
            seconds: between two lines.
            at_once: whether the first line comes with the first progress.

        """
        self.line = line
        self.seconds = seconds
        self.started = time.monotonic()
        self.shown = self.started - seconds if at_once else self.started
        self.unshown: Progress | None = None

    def show(self, progress: Progress) -> None:
        """Print a line if the last one is old enough."""
        self.unshown = progress
        if time.monotonic() - self.shown >= self.seconds:
            self.show_last()

    def show_last(self) -> None:
        """Print a line of the last progress, unless it has one."""
        if self.unshown is not None:
            self.shown = time.monotonic()
            typer.echo(self.line(self.unshown, self.shown - self.started), err=True)
            self.unshown = None


def _log_line(progress: Progress, elapsed: float) -> str:
    left = progress.seconds_left(elapsed)
    share = f", about {progress.share:.0%} of the work" if progress.share is not None else ""
    if left is not None:
        share += f" ({left / 60:.0f} min left)" if left >= 60 else " (under 1 min left)"
    rate = f", {60 * progress.calls / elapsed:.0f} calls a minute" if progress.calls else ""
    return f"{elapsed / 60:.1f} min{share}{rate}: {progress.what}{_spent(progress)}"


def _json_line(progress: Progress, elapsed: float) -> str:
    left = progress.seconds_left(elapsed)
    line = {
        "what": progress.what,
        "elapsed_seconds": round(elapsed, 1),
        "seconds_left": None if left is None else round(left),
        "share": None if progress.share is None else round(progress.share, 4),
        "calls": progress.calls,
        "calls_usd": round(progress.calls_usd, 6),
    }
    return json.dumps(line)


def _spent(progress: Progress) -> str:
    return f" (${progress.calls_usd:,.4f} for calls so far)" if progress.calls_usd else ""


def print_json(content: object) -> None:
    """Print values as JSON; docs/json.md describes what each command prints."""
    typer.echo(json.dumps(content, indent=2, ensure_ascii=False, default=str))


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
