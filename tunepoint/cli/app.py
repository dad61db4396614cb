"""The command line: one application of all commands; parsing and printing only."""

from __future__ import annotations

import json

import typer

from tunepoint.cli import loop, money, serving, study, tuning
from tunepoint.cli.terminal import JsonOption, clear_errors

app = typer.Typer(
    help="Prompt or fine-tune? Measured on your own task.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)
for commands in (study, tuning, money, serving, loop):
    commands.add_to(app)


@app.command()
def doctor(as_json: JsonOption = False) -> None:
    """Say what is installed and reachable."""
    with clear_errors():
        from tunepoint.cli.doctor import diagnose

        findings = diagnose()
        if as_json:
            typer.echo(json.dumps([finding.__dict__ for finding in findings], indent=2))
        else:
            for finding in findings:
                typer.echo(f"{'ok     ' if finding.ok else 'missing'}  {finding.name}: {finding.detail}")
        if not all(finding.ok for finding in findings if finding.needed):
            raise typer.Exit(2)


def main() -> None:
    """Entry point of the `tunepoint` command."""
    app(prog_name="tunepoint")


if __name__ == "__main__":
    main()
