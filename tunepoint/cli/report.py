"""The command that writes a study's report again, in one form or another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tunepoint.cli.options import StudyArgument
from tunepoint.cli.terminal import clear_errors


def add_to(app: typer.Typer) -> None:
    """Add this command to an application."""
    app.command()(report)


def report(
    study: StudyArgument,
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the verdict as Markdown, for a pull request.")
    ] = False,
    pdf: Annotated[
        bool, typer.Option("--pdf", help="Print report.pdf too, with a browser that is installed.")
    ] = False,
    compare: Annotated[Path | None, typer.Option(help="Earlier study: print what has changed since.")] = None,
    items: Annotated[
        bool | None, typer.Option("--items/--no-items", help="List every test example, with its input.")
    ] = None,
) -> None:
    """Rebuild the report of a study."""
    with clear_errors():
        from tunepoint.report.comparison import changes
        from tunepoint.report.html import read_decision, read_measurements, rebuild_report
        from tunepoint.report.markdown import markdown
        from tunepoint.report.pdf import print_pdf

        decision = read_decision(study)
        if as_markdown:
            typer.echo(markdown(decision, read_measurements(study).get("not_run", []), str(study)))
        if compare is not None:
            since = changes(read_decision(compare), decision)
            mark, gap = ("- ", [""]) if as_markdown else ("  ", [])
            typer.echo("\n".join([f"Since {compare}:", *gap, *(mark + line for line in since)]))
        if as_markdown or (compare is not None and not pdf):
            return
        page = rebuild_report(study, with_items=items)
        typer.echo(f"Report: {page}")
        if pdf:
            print_pdf(page, page.with_suffix(".pdf"))
            typer.echo(f"PDF: {page.with_suffix('.pdf')}")
