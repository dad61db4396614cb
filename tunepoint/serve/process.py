"""The gateway as a process: SIGTERM ends it with everything written, SIGHUP reads its settings again."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator

import uvicorn

from tunepoint.errors import TaskError, TunepointError
from tunepoint.serve.gateway import Gateway
from tunepoint.serve.settings import ServeSettings

log = logging.getLogger("tunepoint.gateway")
GRACE = 30
"""Seconds that requests on their way get when the process is asked to end."""
SWITCH = 0.0005
"""Seconds after which the thread that writes lets the one that answers go on; Python's own are .005."""


def run_gateway(load: Callable[[], ServeSettings], say: Callable[[str], None]) -> None:
    """Serve until the process is asked to end.

    Raises:
        TunepointError: the settings, a study, a server or the store cannot be used.

    """
    sys.setswitchinterval(SWITCH)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # every core has a batch of its own
    gateway = Gateway(load)
    gateway.on_closed = freeze_garbage
    server = gateway.settings.server
    config = uvicorn.Config(
        gateway,
        host=server.host,
        port=server.port,
        access_log=False,
        log_level="warning",
        lifespan="off",
        timeout_graceful_shutdown=GRACE,
        server_header=False,
        date_header=False,
    )
    with (
        listening(server.host, server.port) as taken,
        asyncio.Runner(loop_factory=_loop_factory()) as runner,
    ):
        runner.run(_serve(gateway, _Server(config), taken, say))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Loops of uvloop, where it is installed; Python's own elsewhere."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens there.

    Raises:
        TaskError: somebody else does, or the address is none of this machine.

    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named: event loops send at once (TCP_NODELAY) only where they see that it is TCP,
    # and otherwise every answer waits 40 ms for an acknowledgement.
    taken = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind((host, port))
        taken.listen(2_048)
        return taken
    except OSError as error:
        taken.close()
        raise TaskError(
            f"{host}:{port} cannot be listened on ({error.strerror}); choose another --port or --host"
        ) from None


class _Server(uvicorn.Server):
    """Leaves signals to us: uvicorn raises them again, and the process ends before all is written."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Nothing."""
        yield


async def _serve(
    gateway: Gateway, server: uvicorn.Server, taken: socket.socket, say: Callable[[str], None]
) -> None:
    say("opening the arms ...")
    async with gateway.running():
        freeze_garbage()
        loop = asyncio.get_running_loop()
        reloading: set[asyncio.Task[None]] = set()

        def reload() -> None:
            task = loop.create_task(_reload(gateway, say))
            reloading.add(task)
            task.add_done_callback(reloading.discard)

        with contextlib.suppress(NotImplementedError):  # where there are no signals
            loop.add_signal_handler(signal.SIGHUP, reload)
            for ending in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(ending, server.handle_exit, ending, None)
        where = gateway.settings.server
        for name, served in gateway.service.tasks.items():
            say(f"{name}: {served.router.policy.champion} answers; arms: {', '.join(served.arms)}")
        port = taken.getsockname()[1]
        say(f"http://{where.host}:{port}/v1 is ready; the model's name is the task's. Ctrl-C ends it.")
        await server.serve(sockets=[taken])


def freeze_garbage() -> None:
    """Let the garbage collector pass over what stays: going through all of it stops every answer."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()


async def _reload(gateway: Gateway, say: Callable[[str], None]) -> None:
    try:
        await gateway.reload()
        say("settings were read again")
    except TunepointError as error:
        say(f"settings were not taken over, what served goes on: {error}")
