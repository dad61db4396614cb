"""The command line: one application of all commands; parsing and printing only.

Commands import what they need inside their bodies, and types for annotations under TYPE_CHECKING:
torch, scipy and pydantic take seconds to load, and `tunepoint --help` must not wait for them.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tunepoint import __version__
from tunepoint.cli import (
    agents,
    capture,
    gate,
    keys,
    labelling,
    load,
    loop,
    models,
    money,
    publishing,
    report,
    serving,
    studio,
    study,
    tuning,
    whatif,
)
from tunepoint.cli.options import JsonOption
from tunepoint.cli.terminal import FAILED, clear_errors, print_json

if TYPE_CHECKING:
    from tunepoint.cli.doctor import Check

app = typer.Typer(
    help="Prompt or fine-tune? Measured on your own task.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
COMMANDS = (
    study,
    report,
    studio,
    labelling,
    gate,
    agents,
    tuning,
    publishing,
    whatif,
    money,
    load,
    serving,
    capture,
    loop,
    keys,
    models,
)
"""Modules of commands, in the order of the help."""
for commands in COMMANDS:
    commands.add_to(app)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"tunepoint {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    """Prompt or fine-tune? Measured on your own task."""


@app.command()
def doctor(
    task: Annotated[Path | None, typer.Argument(help="task.toml, whose models are looked for too.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Check what is installed and reachable."""
    with clear_errors():
        from tunepoint.cli.doctor import diagnose, diagnose_task, summary

        checks = diagnose() if task is None else [*diagnose(), *diagnose_task(task)]
        if as_json:
            print_json([asdict(check) for check in checks])
        else:
            for check in checks:
                typer.echo(f"{_state(check):8} {check.name}: {check.detail}")
            typer.echo(f"\n{summary(checks)}")
        if not all(check.ok for check in checks if check.needed):
            raise typer.Exit(FAILED)


def _state(check: Check) -> str:
    if check.ok:
        return "ok"
    return "missing" if check.needed else "optional"


def main() -> None:
    """Run the `tunepoint` command."""
    app(prog_name="tunepoint")


if __name__ == "__main__":
    main()
