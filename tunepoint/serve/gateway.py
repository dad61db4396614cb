"""The gateway's life: open the arms, reload the settings, look after canaries and budgets, stop."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import secrets
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import ExitStack, asynccontextmanager, suppress

import aiohttp

from tunepoint.capture.opening import open_store
from tunepoint.capture.partitions import make_months
from tunepoint.capture.redaction import PatternRedactor
from tunepoint.capture.sharing import forget_leases, hold_lease
from tunepoint.capture.spool import Spool
from tunepoint.capture.store import Store
from tunepoint.capture.writer import Writer
from tunepoint.errors import StateConflict, StoreError, TaskError
from tunepoint.serve.auth import Access
from tunepoint.serve.canary_monitor import CanaryMonitor
from tunepoint.serve.dispatch import Dispatcher
from tunepoint.serve.feedback import AnsweredRequests, count_in
from tunepoint.serve.metrics import Metrics
from tunepoint.serve.opening import TaskArms, opened_tasks
from tunepoint.serve.recording import Recorder
from tunepoint.serve.routing import Policy, RouteError, Router
from tunepoint.serve.settings import LOOPBACK, ServeSettings, TaskSettings
from tunepoint.serve.tasks import ServedTask
from tunepoint.serve.tracing import Tracer
from tunepoint.serve.upstream import open_session

log = logging.getLogger(__name__)
CHECK_SECONDS = 1.0
"""Between two looks at the canaries, and at what other processes have changed: routes and keys."""
UPKEEP_SECONDS = 10.0
"""Between two looks at memory, and at what killed processes have left."""
LAST_WRITES_SECONDS = 30.0
"""How long the store may take to write what waits, at the end."""
PURGE_SECONDS = 3_600.0
"""Between two deletions of requests that are older than `retention_days`."""


class Gateway:
    """Everything that serves: the store, the keys, the metrics, and the tasks with their arms.

    Args:
        load: reads the settings; called at the start, and again by `reload`.

    """

    dispatcher: Dispatcher
    store: Store
    writer: Writer
    access: Access
    metrics: Metrics

    def __init__(self, load: Callable[[], ServeSettings]) -> None:
        self.load = load
        self.settings = load()
        self.on_arms_closed: Callable[[], None] = lambda: None
        """Called after a reload, once the previous arms are closed."""
        self.on_maintenance: Callable[[], None] = lambda: None
        """Called in a thread every `UPKEEP_SECONDS`."""
        self.stop_at = math.inf
        """`time.monotonic()` by which all has to be written, once the process was asked to stop."""
        self.name = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"[:80]
        """Of this process, among those that share the store."""
        self.store_away = False
        """Whether the store did not reply when it was last looked at."""
        self.unwritten = 0
        """Captured requests that could not be written in time."""
        self.reloads_done = 0
        """Signals to reload that are on their way and are answered by a reload that is done already."""
        self._reload_lock = asyncio.Lock()
        self._arms = ExitStack()
        self._session: aiohttp.ClientSession | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Open everything, look after it, and write everything down at the end."""
        await self.start()
        maintenance = asyncio.create_task(self._maintain())
        try:
            yield
        finally:
            maintenance.cancel()
            with suppress(asyncio.CancelledError):
                await maintenance
            await self.stop()

    # -- start -----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open the store and all arms.

        Raises:
            TunepointError: something cannot be opened, or the gateway would be open to everybody.

        """
        server = self.settings.server
        self.store = await asyncio.to_thread(_opened_store, self.settings.store())
        self.access = Access(self.store, alone=server.host in LOOPBACK)
        if not self.access.has_keys and server.host not in LOOPBACK:
            self.store.close()
            raise TaskError(
                f"server.host is {server.host!r} and there are no API keys, so anybody could call the "
                "gateway: make one with `tunepoint keys add NAME`, or listen on 127.0.0.1"
            )
        spool = Spool(self.settings.spool(), int(server.spool_mb * 2**20)) if server.spool_mb else None
        self.writer = Writer(self.store, _redactor(self.settings), spool)
        self.metrics = Metrics(self.writer)
        self._session = open_session()
        try:
            tasks, self._arms = await asyncio.to_thread(self._open_tasks, self.settings)
        except BaseException:
            await self._session.close()
            self.writer.close()
            self.store.close()
            raise
        recorder = Recorder(
            self.writer,
            self.access,
            self.metrics,
            sample=server.sample,
            salt=await asyncio.to_thread(_salt, self.store),
            tracer=Tracer() if server.traces else None,
        )
        self.dispatcher = Dispatcher(
            tasks, self.writer, recorder, AnsweredRequests(self.store.find, count_in(self.store))
        )

    def _open_tasks(self, settings: ServeSettings) -> tuple[dict[str, ServedTask], ExitStack]:
        """Open every task with its arms, and the routes and canary from before a restart."""
        assert self._session is not None
        with ExitStack() as stack:
            tasks = {}
            for opened in stack.enter_context(opened_tasks(settings, self._session)):
                name = opened.settings.name
                router = Router(name, list(opened.arms), _policy(opened), self.store, holder=self.name)
                monitor = CanaryMonitor(router, self.store, self.name)
                tasks[name] = ServedTask(opened.arms, opened.timeouts, router, opened.template, monitor)
                for arm in opened.arms.values():
                    stack.callback(arm.close)
            return tasks, stack.pop_all()

    # -- reload ----------------------------------------------------------------------------------

    async def reload(self) -> None:
        """Read the settings again and serve by them; requests on their way end with the old arms.

        Raises:
            TunepointError: the settings cannot be used; the gateway serves by the old ones.

        """
        async with self._reload_lock:
            settings = await asyncio.to_thread(self.load)
            tasks, arms = await asyncio.to_thread(self._open_tasks, settings)
            old_arms, self._arms = self._arms, arms
            before = self.dispatcher.tasks
            self.settings, self.dispatcher.tasks = settings, tasks
            await asyncio.to_thread(_leave, before, tasks)
            self.writer.redact = _redactor(settings)
            self.dispatcher.recorder.sample = settings.server.sample
            self._close_later(old_arms, settings)
            with suppress(StoreError):
                await asyncio.to_thread(self.access.reload)

    def _close_later(self, arms: ExitStack, settings: ServeSettings) -> None:
        """Close the arms of before a reload when no request can be using them any more."""
        slowest = max((seconds for task in settings.tasks for seconds in _timeouts(task)), default=60.0)

        def close() -> None:
            arms.close()
            self.on_arms_closed()

        loop = asyncio.get_running_loop()
        # A request may try several arms in turn, each for its whole timeout, and stream afterwards.
        loop.call_later(60.0 + 3 * slowest, loop.run_in_executor, None, close)

    # -- maintenance and stop --------------------------------------------------------------------

    async def _maintain(self) -> None:
        """Look after everything, each thing by itself: what takes long holds nothing else up."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._repeat(CHECK_SECONDS, self._follow))
            group.create_task(self._repeat(CHECK_SECONDS, self._judge))
            group.create_task(self._repeat(UPKEEP_SECONDS, self._upkeep))
            group.create_task(self._repeat(PURGE_SECONDS, self._purge))

    async def _repeat(self, seconds: float, work: Callable[[], None]) -> None:
        """Do work in a thread every so many seconds; an unavailable store stops nothing."""
        while True:
            await asyncio.sleep(seconds)
            try:
                await asyncio.to_thread(work)
            except StoreError as error:
                self._note_store(error)  # what was known last holds until the store is back
            except Exception:
                log.exception("looking after the gateway failed; it is tried again")

    def _note_store(self, error: StoreError | None) -> None:
        """Note whether the store replies; the log has a line when that changes."""
        if error is not None and not self.store_away:
            log.error("the store is away (%s); what was known of routes and keys holds", error)
        elif error is None and self.store_away:
            log.warning("the store is back")
        self.store_away = error is not None

    def _follow(self) -> None:
        """Follow what other processes have changed: keys and routes."""
        self.metrics.update()
        self.access.reload()
        for task in list(self.dispatcher.tasks.values()):
            task.router.refresh()
        self._note_store(None)

    def _judge(self) -> None:
        """Let the canaries be judged, each although another one cannot be."""
        for task in list(self.dispatcher.tasks.values()):
            with suppress(RouteError):
                task.monitor.evaluate()

    def _upkeep(self) -> None:
        self.on_maintenance()
        self.access.absorb_abandoned()

    def _purge(self) -> None:
        """Delete what is too old and make the months ahead, in one of the gateways that share the store."""
        days, now = self.settings.server.retention_days, time.time()
        if hold_lease(self.store, "purge", self.name, PURGE_SECONDS / 2):
            make_months(self.store, now, now)
            forget_leases(self.store)
            if days is not None:
                self.store.purge(now - days * 86_400)

    async def stop(self) -> None:
        """Write everything down and close."""
        await self.dispatcher.drain()
        patience = min(LAST_WRITES_SECONDS, max(1.0, self.stop_at - time.monotonic()))
        self.unwritten = await asyncio.to_thread(self.writer.close, patience)
        if not self.store_away:  # leases that are not given back run out
            await asyncio.to_thread(_leave, self.dispatcher.tasks, {})
        await asyncio.to_thread(self.access.close)
        await asyncio.to_thread(self._arms.close)
        if self.dispatcher.recorder.tracer is not None:
            await asyncio.to_thread(self.dispatcher.recorder.tracer.close)
        assert self._session is not None
        await self._session.close()
        await asyncio.to_thread(self.store.close)


def _leave(tasks: Mapping[str, ServedTask], after: Mapping[str, ServedTask]) -> None:
    """Give back what a gateway holds of tasks that it no longer serves, or by other settings.

    Args:
        tasks: that it served.
        after: that it serves now.

    """
    for name, task in tasks.items():
        if name not in after:
            task.monitor.close()
        if name not in after or not after[name].router.serves_as(task.router):
            task.router.leave()


def _redactor(settings: ServeSettings) -> PatternRedactor | None:
    server = settings.server
    return PatternRedactor(server.regions) if server.redact else None


def _timeouts(task: TaskSettings) -> list[float]:
    """Seconds that the task's arms may take."""
    return [task.timeout_seconds, *(arm.timeout_seconds for arm in task.arms)]


def _policy(task: TaskArms) -> Policy:
    """The routes that the settings give."""
    settings = task.settings
    canary = settings.canary
    return Policy(
        task.champion,
        settings.fallback,
        dict(settings.slices),
        settings.shadow,
        settings.shadow_share,
        None if canary is None else canary.canary(),
    )


def _opened_store(address: str) -> Store:
    """Open the store, with tables for the requests of this month and those to come."""
    store = open_store(address)
    make_months(store, time.time(), time.time())
    return store


def _salt(store: Store) -> str:
    """Read the salt for the hashes of users' names, made once per store."""
    if store.state("salt") is None:
        with suppress(StateConflict):  # another process has made it at the same time
            store.set_state("salt", {"salt": secrets.token_hex(16)}, read=None)
    state = store.state("salt")
    assert state is not None, "it is there now, by whichever process"
    return str(state["salt"])
