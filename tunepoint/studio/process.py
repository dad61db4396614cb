"""The studio as a process: it serves until Ctrl-C, and then ends the commands that it has started."""

from __future__ import annotations

import secrets
import socket
import webbrowser
from collections.abc import Callable
from pathlib import Path

import uvicorn

from tunepoint.errors import TaskError
from tunepoint.studio.application import address, application


def run_studio(
    folder: Path, port: int, gateway_port: int, *, browse: bool, echo: Callable[[str], None]
) -> None:
    """Serve the studio of a folder on this machine.

    Args:
        folder: of tasks and studies; made if missing.
        port: to listen on; 0 for any that is free.
        gateway_port: of the gateway that the studio starts.
        browse: whether to open a browser.
        echo: prints a line.

    Raises:
        TaskError: the port is taken.

    """
    folder.mkdir(parents=True, exist_ok=True)
    token = secrets.token_urlsafe(24)
    app, studio = application(folder, token, gateway_port)
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError as error:
            reason = f"port {port} cannot be used ({error.strerror})"
            raise TaskError(f"{reason}; --port takes another one") from None
        where = address(listener.getsockname()[1], token)
        echo(f"Studio of {folder.resolve()}: {where}\nOnly this machine reaches it. Ctrl-C ends it.")
        if browse:
            webbrowser.open(where)
        config = uvicorn.Config(
            app, access_log=False, log_level="warning", lifespan="off", server_header=False
        )
        try:
            uvicorn.Server(config).run(sockets=[listener])
        finally:
            studio.jobs.stop_all()
