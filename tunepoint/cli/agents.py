"""The command that serves agents, by the Model Context Protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tunepoint.cli.options import HERE
from tunepoint.cli.terminal import clear_errors


def add_to(app: typer.Typer) -> None:
    """Add this command to an application."""
    app.command()(mcp)


def mcp(
    folder: Annotated[Path, typer.Argument(help="Folder of your tasks and studies.")] = HERE,
    write: Annotated[
        bool, typer.Option("--write", help="Let agents write tasks, and labels that people gave.")
    ] = False,
    max_usd: Annotated[
        float | None, typer.Option(help="Let agents start studies that spend this in all.", min=0)
    ] = None,
    serve: Annotated[
        bool, typer.Option("--serve", help="Let agents serve a study's winner with your keys.")
    ] = False,
    http: Annotated[
        int | None, typer.Option(help="Port for HTTP on this machine; by default it talks by stdio.", min=0)
    ] = None,
    gateway_port: Annotated[
        int, typer.Option(help="Port of the gateway that it may start.", min=1, max=65_535)
    ] = 8_484,
) -> None:
    """Let an agent audit, quote and explain. It changes and spends nothing unless you allow it."""
    with clear_errors():
        import secrets
        import signal
        import sys

        from tunepoint.studio.agents import agent_server

        server, tools = agent_server(
            folder, write=write, max_usd=max_usd, serve=serve, gateway_port=gateway_port
        )
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what it started ends too
        try:
            if http is None:
                server.run("stdio")
            else:
                path = f"/{secrets.token_urlsafe(24)}/mcp"  # the path is the secret: whoever has it gets in
                typer.echo(f"http://127.0.0.1:{http}{path}", err=True)
                server.run("streamable-http", host="127.0.0.1", port=http, streamable_http_path=path)
        finally:
            tools.jobs.stop_all()
