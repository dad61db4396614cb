"""The HTTP surface: OpenAI's endpoints, feedback, health, metrics, routes; started, tended and ended here."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager, suppress

import aiohttp
import orjson
from starlette.applications import Starlette

from tunepoint.capture.opening import open_store
from tunepoint.capture.redaction import PatternRedactor
from tunepoint.capture.store import Store
from tunepoint.capture.writer import Writer
from tunepoint.errors import StoreError, TaskError, TunepointError
from tunepoint.serve.asgi import (
    JSON,
    Receive,
    Scope,
    Send,
    leaving,
    left,
    named,
    read_body,
    refusal_headers,
    reply,
    text,
)
from tunepoint.serve.auth import Access, Key, Role
from tunepoint.serve.canary_monitor import CanaryMonitor
from tunepoint.serve.dispatch import ServedTask, Service
from tunepoint.serve.endpoints import exception_handlers, routes
from tunepoint.serve.metrics import Metrics
from tunepoint.serve.opening import TaskArms, opened_tasks
from tunepoint.serve.protocol import ChatRequest, RequestError, read_request
from tunepoint.serve.recording import Recorder
from tunepoint.serve.routing import Policy, Router
from tunepoint.serve.settings import LOOPBACK, ServeSettings, TaskSettings
from tunepoint.serve.tracing import Tracer
from tunepoint.serve.upstream import session

CHAT = "/v1/chat/completions"
TENDED, RELOADED, PURGED = 2.0, 10.0, 3_600.0
"""Seconds between looks at canaries and budgets, at keys, and at what is too old."""


class Gateway:
    """An ASGI application.

    Args:
        load: reads the settings; called at the start, and again by `reload`.

    """

    service: Service
    store: Store
    writer: Writer
    access: Access
    meters: Metrics

    def __init__(self, load: Callable[[], ServeSettings]) -> None:
        self.load = load
        self.settings = load()
        self._busy = 0
        self._reloading = asyncio.Lock()
        self._stack = ExitStack()
        self._session: aiohttp.ClientSession | None = None
        self.on_closed: Callable[[], None] = lambda: None
        """Called once the arms of before a reload are closed."""
        self._app = Starlette(routes=routes(self), exception_handlers=exception_handlers())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; the one that everybody sends without a detour."""
        if scope["type"] == "http" and scope["path"] == CHAT and scope["method"] == "POST":
            await self._chat(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    # -- chat ------------------------------------------------------------------------------------

    async def _chat(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._busy += 1
        self.meters.in_flight.inc()
        try:
            if self._busy > self.settings.server.at_once:
                raise RequestError(503, "too many requests at once; try again", kind="server_error", wait=1.0)
            headers = dict(scope["headers"])
            key = self.admit(headers, "call", writes=True)
            asked = read_request(await read_body(headers, receive, self._most))
            asked.slice = text(headers.get(b"x-tunepoint-slice"))
            self.access.charge_request(key)
            if asked.stream:
                await self._streamed(asked, key, receive, send)
            else:
                await self._whole(asked, key, receive, send)
        except RequestError as refused:
            self.meters.refused(refused.status)
            await reply(send, refused.status, refused.body(), refusal_headers(refused))
        finally:
            self._busy -= 1
            self.meters.in_flight.dec()

    async def _whole(self, request: ChatRequest, key: Key, receive: Receive, send: Send) -> None:
        with leaving(receive):
            found = await self.service.answer(request, key)
        cost = found.answered.cost_nanousd
        more = [(b"x-tunepoint-cost-usd", f"{cost / 1e9:.9f}".encode())] if cost is not None else []
        body = orjson.dumps(found.answered.whole)
        await reply(send, 200, body, [JSON, *named(request, found.arm, found.role), *more])

    async def _streamed(self, request: ChatRequest, key: Key, receive: Receive, send: Send) -> None:
        by: list[tuple[str, str]] = []
        events = self.service.stream(request, key, lambda arm, role: by.append((arm, role)))
        with leaving(receive):
            first = await anext(events)
        answering = asyncio.current_task()
        gone = asyncio.ensure_future(left(receive))

        def stop(_: object) -> None:  # the caller went away: nobody waits for the rest
            if not gone.cancelled() and answering is not None:
                answering.cancel()

        gone.add_done_callback(stop)
        try:
            headers = [
                (b"content-type", b"text/event-stream; charset=utf-8"),
                (b"cache-control", b"no-cache"),
                *named(request, *by[0]),
            ]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": first, "more_body": True})
            async for event in events:
                await send({"type": "http.response.body", "body": event, "more_body": True})
            gone.remove_done_callback(stop)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except asyncio.CancelledError:
            if not gone.done():
                raise
        finally:
            gone.cancel()
            await events.aclose()  # type: ignore[attr-defined]

    @property
    def _most(self) -> int:
        """Bytes of a body at most."""
        return int(self.settings.server.max_body_mb * 2**20)

    def admit(self, headers: dict[bytes, bytes], role: Role, *, writes: bool = False) -> Key:
        """Who asks, if they may.

        Without keys only this machine may, and no page of a browser: its requests carry another host or
        origin, or are no JSON.

        Raises:
            Refused: they may not.

        """
        if self.access.open:
            host = text(headers.get(b"host")) or ""
            name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
            if name.strip("[]").casefold() not in (*LOOPBACK, self.settings.server.host.casefold(), ""):
                raise RequestError(
                    403, f"the host {host!r} is not this machine; make a key", kind="permission_error"
                )
            origin = text(headers.get(b"origin"))
            if origin is not None and origin.partition("://")[2] != host:
                raise RequestError(
                    403, f"a page of {origin!r} may not ask; make a key", kind="permission_error"
                )
            kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
            if writes and kind != b"application/json":
                raise RequestError(415, "content-type: application/json is expected")
        return self.access.admit(text(headers.get(b"authorization")), role)

    # -- life ------------------------------------------------------------------------------------

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Open everything, tend it, and write everything down at the end."""
        await self.start()
        tending = asyncio.create_task(self._tend())
        try:
            yield
        finally:
            tending.cancel()
            with suppress(asyncio.CancelledError):
                await tending
            await self.stop()

    async def start(self) -> None:
        """Open the store and all arms.

        Raises:
            TunepointError: something cannot be opened, or the gateway would be open to everybody.

        """
        server = self.settings.server
        self.store = await asyncio.to_thread(open_store, self.settings.store())
        alone = server.host in LOOPBACK
        self.access = Access(self.store, alone=alone)
        if not self.access.has_keys and not alone:
            self.store.close()
            raise TaskError(
                f"server.host is {server.host!r} and there are no API keys, so anybody could ask: make one "
                "with `tunepoint keys add NAME`, or listen on 127.0.0.1"
            )
        self.writer = Writer(self.store, PatternRedactor(server.regions) if server.redact else None)
        self.meters = Metrics(self.writer)
        self._session = session()
        try:
            served, self._stack = await asyncio.to_thread(self._opened, self.settings)
        except BaseException:
            await self._session.close()
            self.writer.close()
            self.store.close()
            raise
        salt = await asyncio.to_thread(_salt, self.store)
        recorder = Recorder(
            self.writer,
            self.access,
            self.meters,
            sample=server.sample,
            salt=salt,
            tracer=Tracer() if server.traces else None,
        )
        self.service = Service(served, self.writer, recorder, self.store.find)

    def _opened(self, settings: ServeSettings) -> tuple[dict[str, ServedTask], ExitStack]:
        """Every task with its arms, routes and canary as they were before a restart."""
        assert self._session is not None
        with ExitStack() as stack:
            tasks = stack.enter_context(opened_tasks(settings, self._session))
            served = {}
            for one in tasks:
                router = Router(one.settings.name, list(one.arms), _policy(one), self.store)
                watch = CanaryMonitor(router)
                watch.restore(self.store)
                served[one.settings.name] = ServedTask(one.arms, one.timeouts, router, one, watch)
                for arm in one.arms.values():
                    stack.callback(arm.close)
            return served, stack.pop_all()

    async def reload(self) -> None:
        """Read the settings again and serve by them; requests on their way end as they began.

        Raises:
            TunepointError: they cannot be used; what serves goes on.

        """
        async with self._reloading:
            settings = await asyncio.to_thread(self.load)
            served, stack = await asyncio.to_thread(self._opened, settings)
            before, self._stack = self._stack, stack
            for name, one in served.items():  # what was changed or seen meanwhile holds
                if name in self.service.tasks:
                    one.take_over(self.service.tasks[name])
            self.settings, self.service.tasks = settings, served
            server = settings.server
            self.writer.redact = PatternRedactor(server.regions) if server.redact else None
            self.service.recorder.sample = server.sample
            slowest = max((t for one in settings.tasks for t in _timeouts(one)), default=60.0)
            loop = asyncio.get_running_loop()
            loop.call_later(60.0 + 3 * slowest, loop.run_in_executor, None, self._close, before)
            with suppress(StoreError):
                await asyncio.to_thread(self.access.reload)

    def _close(self, before: ExitStack) -> None:
        before.close()
        self.on_closed()

    async def stop(self) -> None:
        """Write everything down and close."""
        await self.service.drain()
        with suppress(StoreError):
            await asyncio.to_thread(self.access.save)
        await asyncio.to_thread(self.writer.close)
        await asyncio.to_thread(self._stack.close)
        if self.service.recorder.tracer is not None:
            await asyncio.to_thread(self.service.recorder.tracer.close)
        assert self._session is not None
        await self._session.close()
        await asyncio.to_thread(self.store.close)

    async def _tend(self) -> None:
        """Look after canaries, budgets, keys and what is too old; a store that is away stops nothing."""
        reloaded = purged = time.monotonic()
        while True:
            await asyncio.sleep(TENDED)
            now = time.monotonic()
            with suppress(StoreError):
                await asyncio.to_thread(self.access.save)
            for served in list(self.service.tasks.values()):
                with suppress(TunepointError):
                    await asyncio.to_thread(served.watch.look)
            if now - reloaded > RELOADED:
                reloaded = now
                with suppress(StoreError):
                    await asyncio.to_thread(self.access.reload)
            days = self.settings.server.retention_days
            if days is not None and now - purged > PURGED:
                purged = now
                with suppress(StoreError):
                    await asyncio.to_thread(self.store.purge, time.time() - days * 86_400)


def _timeouts(one: TaskSettings) -> list[float]:
    """Seconds that its arms may take."""
    return [one.timeout_seconds, *(arm.timeout_seconds for arm in one.arms)]


def _policy(one: TaskArms) -> Policy:
    """The routes that the settings give."""
    settings = one.settings
    canary = settings.canary
    return Policy(
        one.champion,
        settings.fallback,
        dict(settings.slices),
        settings.shadow,
        settings.shadow_share,
        None if canary is None else canary.canary(),
    )


def _salt(store: Store) -> str:
    """What users' names are hashed with: made once for a store."""
    found = store.state("salt")
    if found is None:
        found = {"salt": secrets.token_hex(16)}
        store.set_state("salt", found)
    return str(found["salt"])
