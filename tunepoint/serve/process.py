"""The gateway as a process: SIGTERM stops it with everything written, SIGHUP reloads its settings."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import math
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator

import uvicorn

from tunepoint.errors import TaskError, TunepointError
from tunepoint.serve.application import Application
from tunepoint.serve.connections import Limits, guarded_protocol
from tunepoint.serve.gateway import Gateway
from tunepoint.serve.settings import ServeSettings
from tunepoint.serve.workers import has_parent, is_worker, tell_ready

GRACE_SECONDS = 15
"""How long requests on their way may take when the process is asked to stop."""
STOP_SECONDS = 25.0
"""When the process ends, at the latest, after it was asked to: those who asked kill it after 30."""
SECONDS_TO_CLOSE = 3.0
"""Of them, after all is written: for connections, and for models that are loaded."""
FILES_BESIDE_CONNECTIONS = 128
"""Files that the process opens for other things: the store, libraries, the terminal."""
SEND_BUFFER_BYTES = 128 * 2**10
"""The kernel's, for each client: with its own choice, one that reads nothing would be noticed late."""
SWITCH_INTERVAL_SECONDS = 0.0005
"""How soon the writing thread hands over to the answering one; Python's default of .005 would show in p99."""
M_ARENA_MAX, MEMORY_ARENAS = -8, 2
"""The name of a setting in glibc's malloc.h, and its value: heaps that threads share."""
PARENT_SECONDS = 1.0
"""Between two looks of a worker whether the process that has started it still runs."""
BACKLOG = 2_048
"""Connections that may wait to be accepted."""
ACCEPTS_PER_TURN = 16
"""Connections that are accepted in one turn of the event loop."""


def run_gateway(load: Callable[[], ServeSettings], echo: Callable[[str], None]) -> None:
    """Serve until the process is asked to stop.

    Args:
        load: reads the settings, at the start and at SIGHUP.
        echo: prints a line for the operator.

    Raises:
        TunepointError: the settings, a study, a server or the store cannot be used.

    """
    # Every core tokenizes for its own batch; threads of the tokenizer would only compete with them.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    with contextlib.suppress(AttributeError):  # Windows
        # until there are settings to read again, for which it would end the process
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    shared = is_worker()
    gateway = Gateway(load)
    gateway.on_arms_closed, gateway.on_maintenance = freeze_garbage, give_memory_back
    server = gateway.settings.server
    config = server_config(Application(gateway), Limits(connections=max_connections()))
    with (
        open_socket(server.host, server.port, shared=shared) as listener,
        asyncio.Runner(loop_factory=_loop_factory()) as runner,
    ):
        runner.run(_serve(gateway, _Server(config), listener, echo, quiet=shared))


def server_config(application: Application, limits: Limits, grace: int = GRACE_SECONDS) -> uvicorn.Config:
    """Return how the gateway is run: within limits, and believing no header about who calls.

    Args:
        limits: of a client's connection.
        grace: seconds that requests on their way may take when the server is asked to stop.

    """
    return uvicorn.Config(
        application,
        http=guarded_protocol(limits),
        ws="none",
        port=0,
        access_log=False,
        log_level="error",  # a warning for each broken request would let anybody fill the disk
        lifespan="off",
        proxy_headers=False,
        timeout_graceful_shutdown=grace,
        server_header=False,
        date_header=False,
    )


def limit_heaps() -> None:
    """Let all threads share a few heaps: free memory in the heap of one is of no use to the others."""
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, MEMORY_ARENAS)


def give_memory_back() -> None:
    """Let the C library return what is free to the system; after large bodies it keeps up to all of it.

    A lower M_MMAP_THRESHOLD would return large blocks at once, and encoders would take 1.4 times as long.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def max_connections() -> int:
    """How many clients may be connected; each may need a connection to a server behind the gateway too."""
    most = Limits().connections
    try:
        import resource
    except ImportError:  # Windows
        return most
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * most + FILES_BESIDE_CONNECTIONS
    if soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(16, min(most, (soft - FILES_BESIDE_CONNECTIONS) // 2))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Event loops of uvloop, if it is installed; otherwise Python's own."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def open_socket(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """Open a listening socket.

    Args:
        host: address of this machine.
        port: 0 takes any that is free.
        shared: whether other processes listen on the port too, and the kernel shares connections out.

    Raises:
        TaskError: the port is taken, or the host is no address of this machine.

    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named: event loops set TCP_NODELAY only if they see that it is TCP, and without it
    # every answer waits 40 ms for an acknowledgement.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        listener.bind((host, port))
        listener.listen(BACKLOG)
        return listener
    except OSError as error:
        listener.close()
        raise TaskError(
            f"cannot listen on {host}:{port} ({error.strerror}); choose another --port or --host"
        ) from None


@contextlib.contextmanager
def several_handles(listener: socket.socket) -> Iterator[list[socket.socket]]:
    """Return a listener with `ACCEPTS_PER_TURN` - 1 duplicates of it, which close at the end.

    uvloop accepts one connection of each in a turn. With one alone, a health check waits behind a crowd of
    new connections for as many turns, each with work of its own.
    """
    with contextlib.ExitStack() as duplicates:
        yield [
            listener,
            *(duplicates.enter_context(listener.dup()) for _ in range(ACCEPTS_PER_TURN - 1)),
        ]


class _Server(uvicorn.Server):
    """Leaves signals to us: uvicorn raises them again, which would end the process before all is written."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Install no handlers."""
        yield


async def _serve(
    gateway: Gateway,
    server: uvicorn.Server,
    listener: socket.socket,
    echo: Callable[[str], None],
    *,
    quiet: bool,
) -> None:
    """Serve; a quiet worker leaves it to the process that has started it to say that all is well."""
    say = (lambda line: None) if quiet else echo
    say("opening the arms ...")
    async with gateway.running():
        sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
        limit_heaps()
        freeze_garbage()
        _handle_signals(gateway, server, say, echo)
        for name, task in gateway.dispatcher.tasks.items():
            say(f"{name}: {task.router.policy.champion} answers; arms: {', '.join(task.arms)}")
        host, port = gateway.settings.server.host, listener.getsockname()[1]
        say(f"http://{host}:{port}/v1 is ready; the model's name is the task's. Ctrl-C stops it.")
        say(f"dashboard: http://{host}:{port}/")
        tell_ready()
        watch = asyncio.create_task(_end_with_parent(gateway, server)) if is_worker() else None
        with several_handles(listener) as handles:
            await server.serve(sockets=handles)
        if watch is not None:
            watch.cancel()
    if gateway.unwritten:
        echo(f"{gateway.unwritten:,} captured requests could not be written before the process had to end")


def _handle_signals(
    gateway: Gateway, server: uvicorn.Server, say: Callable[[str], None], echo: Callable[[str], None]
) -> None:
    """Reload at SIGHUP; stop at SIGINT and SIGTERM."""
    loop = asyncio.get_running_loop()
    reloads: set[asyncio.Task[None]] = set()

    def reload() -> None:
        if gateway.reloads_done:
            gateway.reloads_done -= 1
            return
        task = loop.create_task(_reload(gateway, say, echo))
        reloads.add(task)  # the loop keeps only a weak reference
        task.add_done_callback(reloads.discard)

    with contextlib.suppress(NotImplementedError):  # Windows
        loop.add_signal_handler(signal.SIGHUP, reload)
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, _stop, gateway, server, number)


async def _end_with_parent(gateway: Gateway, server: uvicorn.Server) -> None:
    """Stop a worker when the process that has started it is gone, which would leave it to nobody."""
    while has_parent():
        await asyncio.sleep(PARENT_SECONDS)
    _stop(gateway, server, signal.SIGTERM)


def _stop(gateway: Gateway, server: uvicorn.Server, number: int) -> None:
    """Stop when all is answered and written; at the latest after `drain_seconds` and `STOP_SECONDS`.

    Asked a second time, it takes no request any more.
    """
    drain = 0.0
    if math.isinf(gateway.stop_at):
        drain = gateway.settings.server.drain_seconds
        gateway.stop_at = time.monotonic() + drain + STOP_SECONDS - SECONDS_TO_CLOSE
        # A thread that waits for a model cannot be cancelled, and Python waits for it at its end.
        last = threading.Timer(drain + STOP_SECONDS, os._exit, (1,))
        last.daemon = True
        last.start()
    asyncio.get_running_loop().call_later(drain, server.handle_exit, number, None)


def freeze_garbage() -> None:
    """Exempt what is loaded from garbage collection: scanning models and settings would stall answers."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()


async def _reload(gateway: Gateway, say: Callable[[str], None], echo: Callable[[str], None]) -> None:
    try:
        await gateway.reload()
        say("settings reloaded")
    except TunepointError as error:
        echo(f"settings not reloaded, the old ones stay in use: {error}")
