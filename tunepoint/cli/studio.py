"""The command that opens the studio."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tunepoint.cli.options import HERE
from tunepoint.cli.terminal import clear_errors


def add_to(app: typer.Typer) -> None:
    """Add this command to an application."""
    app.command()(studio)


def studio(
    folder: Annotated[Path, typer.Argument(help="Folder of your tasks and studies.")] = HERE,
    port: Annotated[
        int, typer.Option(help="Port of the studio; 0 takes a free one.", min=0, max=65_535)
    ] = 8_485,
    gateway_port: Annotated[
        int, typer.Option(help="Port of the gateway that it starts.", min=1, max=65_535)
    ] = 8_484,
    browser: Annotated[bool, typer.Option(help="Open a browser.")] = True,
) -> None:
    """Open the studio in a browser: from a file to a verdict, without the command line."""
    with clear_errors():
        from tunepoint.studio.process import run_studio

        run_studio(folder, port, gateway_port, browse=browser, echo=typer.echo)
