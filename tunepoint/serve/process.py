"""The gateway as a process: SIGTERM stops it with everything written, SIGHUP reloads its settings."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator

import uvicorn

from tunepoint.errors import TaskError, TunepointError
from tunepoint.serve.application import Application
from tunepoint.serve.gateway import Gateway
from tunepoint.serve.settings import ServeSettings

GRACE_SECONDS = 30
"""How long requests on their way may take when the process is asked to stop."""
SWITCH_INTERVAL_SECONDS = 0.0005
"""How soon the writing thread hands over to the answering one; Python's default of .005 would show in p99."""
BACKLOG = 2_048
"""Connections that may wait to be accepted."""


def run_gateway(load: Callable[[], ServeSettings], echo: Callable[[str], None]) -> None:
    """Serve until the process is asked to stop.

    Args:
        load: reads the settings, at the start and at SIGHUP.
        echo: prints a line for the operator.

    Raises:
        TunepointError: the settings, a study, a server or the store cannot be used.

    """
    sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
    # Every core tokenizes for its own batch; threads of the tokenizer would only compete with them.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    gateway = Gateway(load)
    gateway.on_arms_closed = freeze_garbage
    server = gateway.settings.server
    config = uvicorn.Config(
        Application(gateway),
        host=server.host,
        port=server.port,
        access_log=False,
        log_level="warning",
        lifespan="off",
        timeout_graceful_shutdown=GRACE_SECONDS,
        server_header=False,
        date_header=False,
    )
    with (
        open_socket(server.host, server.port) as listener,
        asyncio.Runner(loop_factory=_loop_factory()) as runner,
    ):
        runner.run(_serve(gateway, _Server(config), listener, echo))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Event loops of uvloop, if it is installed; otherwise Python's own."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def open_socket(host: str, port: int) -> socket.socket:
    """Open a listening socket.

    Raises:
        TaskError: the port is taken, or the host is no address of this machine.

    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named: event loops set TCP_NODELAY only if they see that it is TCP, and without it
    # every answer waits 40 ms for an acknowledgement.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
        return listener
    except OSError as error:
        listener.close()
        raise TaskError(
            f"cannot listen on {host}:{port} ({error.strerror}); choose another --port or --host"
        ) from None


class _Server(uvicorn.Server):
    """Leaves signals to us: uvicorn raises them again, which would end the process before all is written."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Install no handlers."""
        yield


async def _serve(
    gateway: Gateway, server: uvicorn.Server, listener: socket.socket, echo: Callable[[str], None]
) -> None:
    echo("opening the arms ...")
    async with gateway.running():
        freeze_garbage()
        _handle_signals(gateway, server, echo)
        for name, task in gateway.dispatcher.tasks.items():
            echo(f"{name}: {task.router.policy.champion} answers; arms: {', '.join(task.arms)}")
        host, port = gateway.settings.server.host, listener.getsockname()[1]
        echo(f"http://{host}:{port}/v1 is ready; the model's name is the task's. Ctrl-C stops it.")
        await server.serve(sockets=[listener])


def _handle_signals(gateway: Gateway, server: uvicorn.Server, echo: Callable[[str], None]) -> None:
    """Reload at SIGHUP; stop at SIGINT and SIGTERM."""
    loop = asyncio.get_running_loop()
    reloads: set[asyncio.Task[None]] = set()

    def reload() -> None:
        task = loop.create_task(_reload(gateway, echo))
        reloads.add(task)  # the loop keeps only a weak reference
        task.add_done_callback(reloads.discard)

    with contextlib.suppress(NotImplementedError):  # Windows
        loop.add_signal_handler(signal.SIGHUP, reload)
        for stop in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(stop, server.handle_exit, stop, None)


def freeze_garbage() -> None:
    """Exempt what is loaded from garbage collection: scanning models and settings would stall answers."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()


async def _reload(gateway: Gateway, echo: Callable[[str], None]) -> None:
    try:
        await gateway.reload()
        echo("settings reloaded")
    except TunepointError as error:
        echo(f"settings not reloaded, the old ones stay in use: {error}")
