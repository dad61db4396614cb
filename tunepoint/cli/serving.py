"""The command that serves: the gateway."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunepoint.cli.terminal import clear_errors

if TYPE_CHECKING:
    from tunepoint.serve.settings import ServeSettings


def add_to(app: typer.Typer) -> None:
    """Add this command to an application."""
    app.command()(serve)


def serve(
    what: Annotated[Path, typer.Argument(help="Study directory, or serve.toml.")],
    host: Annotated[
        str | None, typer.Option(help="Address to listen on; by default only this machine can connect.")
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port; 8484 by default.")] = None,
    store: Annotated[str | None, typer.Option(help="Capture store: a file, or postgresql://...")] = None,
    champion: Annotated[
        str | None, typer.Option(help="Option that serves; the study's winner by default.")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=0, help="Processes that serve; 0: one a core. One by default if a study serves."),
    ] = None,
) -> None:
    """Serve a study's winner behind an OpenAI-compatible endpoint. The model's name is the task's name."""
    with clear_errors():
        from tunepoint.serve.workers import is_worker

        def load() -> ServeSettings:
            options = {"host": host, "port": port, "store": store, "workers": workers}
            return _settings(what, options, champion)

        count = 1 if is_worker() else workers_of(load())
        if count > 1:
            _run_workers(what, load(), count, champion)
        from tunepoint.serve.process import run_gateway

        # A function, not settings: the gateway reads them again when it gets SIGHUP.
        run_gateway(load, typer.echo)


def workers_of(settings: ServeSettings) -> int:
    """Return how many processes serve by these settings."""
    from tunepoint.serve.workers import default_workers

    wanted = settings.server.workers
    if wanted is None:
        loads_models = any(task.study is not None or task.more for task in settings.tasks)
        return 1 if loads_models else default_workers()
    return wanted or default_workers()


def _run_workers(what: Path, settings: ServeSettings, count: int, champion: str | None) -> None:
    """Serve by several processes, and exit as they do."""
    from tunepoint.serve.workers import Workers, free_port

    server = settings.server
    port = free_port(server.host, server.port)
    command = ["serve", str(what), "--host", server.host, "--port", str(port), "--store", settings.store()]
    command += [] if champion is None else ["--champion", champion]
    typer.echo(f"starting {count} workers ...")
    address = f"http://{server.host}:{port}/v1"
    raise typer.Exit(Workers(command, count, address, typer.echo, server.drain_seconds).run())


def _settings(what: Path, options: dict[str, Any], champion: str | None) -> ServeSettings:
    """Read serve.toml, or make settings of a study alone; options of the command line win."""
    from tunepoint.errors import TaskError
    from tunepoint.serve.settings import ServeSettings

    server = {key: value for key, value in options.items() if value is not None}
    if what.is_dir():
        from tunepoint.study.manifest import read_manifest

        task = {"name": read_manifest(what).task, "study": str(what.resolve())}
        task |= {} if champion is None else {"champion": champion}
        return ServeSettings.parse({"server": server, "tasks": [task]}, where=str(what))
    if champion is not None:
        raise TaskError("--champion is only for a study directory; serve.toml names it for each task")
    settings = ServeSettings.load(what)
    content = settings.model_dump()
    content["server"] |= server
    return ServeSettings.parse(content, where=str(what), folder=settings.folder)
