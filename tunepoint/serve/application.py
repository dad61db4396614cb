"""The gateway's ASGI application: admission, the chat endpoint, and a router for everything else."""

from __future__ import annotations

import math
import re

import orjson
from starlette.applications import Starlette

from tunepoint.capture.records import MAX_SLICE_LENGTH
from tunepoint.serve.asgi import (
    JSON,
    ClientDisconnected,
    DisconnectWatch,
    Receive,
    Scope,
    Send,
    answer_headers,
    closing,
    error_headers,
    header_text,
    read_body,
    send_response,
)
from tunepoint.serve.auth import Key, Role
from tunepoint.serve.endpoints import exception_handlers, routes
from tunepoint.serve.gateway import Gateway
from tunepoint.serve.memory import BodyMemory
from tunepoint.serve.protocol import ChatRequest, RequestError, read_request
from tunepoint.serve.settings import LOOPBACK
from tunepoint.serve.turns import LONG_BYTES, Pace, turn

CHAT_PATH = "/v1/chat/completions"
MAX_BODY_MEMORY_BYTES = 32 * 2**20
"""Of all chat requests that are on their way, as text and as what it becomes when it is read."""
MAX_QUOTED_CHARACTERS = 100
"""Of a header, in an error."""
HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]*\]|[^\[\]:/@?#\s]*)(?::\d{1,5})?")
STARTS_PER_TURN = 2
"""Chat requests that start in one turn of the event loop."""
STREAM_HEADERS = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
)


class Application:
    """What the web server calls; the gateway behind it has to be running."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.in_flight = 0
        """Chat requests that are being answered."""
        self.pace = Pace(STARTS_PER_TURN)
        self.memory = BodyMemory(lambda: max(MAX_BODY_MEMORY_BYTES, 4 * self._max_body_bytes))
        self.router = Starlette(routes=routes(gateway, self.admit), exception_handlers=exception_handlers())
        # Its address would be made of the header host, which anybody can forge.
        self.router.router.redirect_slashes = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Route a request; chat completions skip the router, which would double their overhead."""
        if math.isfinite(self.gateway.stop_at):
            send = closing(send)  # who keeps connections open would send the next request into a closed one
        if scope["type"] == "http" and scope["path"] == CHAT_PATH and scope["method"] == "POST":
            await self._chat(scope, receive, send)
        else:
            await self.router(scope, receive, send)

    # -- chat ------------------------------------------------------------------------------------

    async def _chat(self, scope: Scope, receive: Receive, send: Send) -> None:
        gateway = self.gateway
        try:
            headers = dict(scope["headers"])
            key = self.admit(headers, "call", writes=True)
            with self.memory.share() as share:
                body = await read_body(headers, receive, self._max_body_bytes, share.take)
                share.take_values(body)
                await self._answer(body, headers, key, receive, send)
        except RequestError as error:
            gateway.metrics.record_refused(error.status)
            await send_response(send, error.status, error.body(), error_headers(error))

    async def _answer(
        self, body: bytes, headers: dict[bytes, bytes], key: Key, receive: Receive, send: Send
    ) -> None:
        """Answer a request whose body is there: one that still arrives does not count as in flight."""
        gateway = self.gateway
        self.in_flight += 1
        gateway.metrics.in_flight.inc()
        try:
            if self.in_flight > gateway.settings.server.at_once:
                raise RequestError(503, "too many requests at once; try again", kind="server_error", wait=1.0)
            await self.pace.start()
            request = await self._read(body)
            request.slice = (header_text(headers.get(b"x-tunepoint-slice")) or "")[:MAX_SLICE_LENGTH] or None
            await gateway.access.charge_request(key)
            if request.stream:
                await self._answer_as_stream(request, key, receive, send)
            else:
                await self._answer_whole(request, key, receive, send)
        finally:
            self.in_flight -= 1
            gateway.metrics.in_flight.dec()

    async def _read(self, body: bytes) -> ChatRequest:
        if len(body) < LONG_BYTES:
            return read_request(body)
        async with turn("body"):
            return read_request(body)

    async def _answer_whole(self, request: ChatRequest, key: Key, receive: Receive, send: Send) -> None:
        with DisconnectWatch(receive):
            answer = await self.gateway.dispatcher.answer(request, key)
        headers = [JSON, *answer_headers(request, answer.arm, answer.role)]
        cost = answer.response.cost_nanousd
        if cost is not None:
            headers.append((b"x-tunepoint-cost-usd", f"{cost / 1e9:.9f}".encode()))
        await send_response(send, 200, orjson.dumps(answer.response.completion), headers)

    async def _answer_as_stream(self, request: ChatRequest, key: Key, receive: Receive, send: Send) -> None:
        headers = list(STREAM_HEADERS)
        events = self.gateway.dispatcher.stream(
            request, key, lambda arm, role: headers.extend(answer_headers(request, arm, role))
        )
        # Until the first event is there, an error can still be answered with its HTTP status.
        with DisconnectWatch(receive):
            first = await anext(events)
        try:
            with DisconnectWatch(receive, after=0):
                await send({"type": "http.response.start", "status": 200, "headers": headers})
                await send({"type": "http.response.body", "body": first, "more_body": True})
                async for event in events:
                    await send({"type": "http.response.body", "body": event, "more_body": True})
            # The watch ends before this: a server reports a finished response as a disconnection.
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except ClientDisconnected:
            pass  # the dispatcher has recorded it
        finally:
            await events.aclose()

    @property
    def _max_body_bytes(self) -> int:
        return int(self.gateway.settings.server.max_body_mb * 2**20)

    # -- admission -------------------------------------------------------------------------------

    def admit(self, headers: dict[bytes, bytes], *roles: Role, writes: bool = False) -> Key:
        """Authenticate the caller and check the role.

        Args:
            headers: of the request.
            roles: one of them is enough.
            writes: whether the request has a body; without keys it then has to be JSON.

        Raises:
            RequestError: no valid key, a key without the role, or a web page of another site.

        """
        access = self.gateway.access
        if access.is_open:
            self._reject_web_pages(headers, writes=writes)
        return access.admit(header_text(headers.get(b"authorization")), *roles)

    def _reject_web_pages(self, headers: dict[bytes, bytes], *, writes: bool) -> None:
        """Keep other sites' pages out while no key is needed.

        A browser on this machine reaches the gateway too. A page that rebinds its DNS name sends another
        host, a cross-site request another origin, and one that avoids the preflight is no JSON.
        """
        host = header_text(headers.get(b"host")) or ""
        parts = HOST.fullmatch(host)
        own_names = (*LOOPBACK, self.gateway.settings.server.host.casefold(), "")
        if parts is None or parts["name"].strip("[]").casefold() not in own_names:
            raise RequestError(
                403,
                f"the host {host[:MAX_QUOTED_CHARACTERS]!r} is not this machine; "
                "make a key with `tunepoint keys add`",
                kind="permission_error",
            )
        origin = header_text(headers.get(b"origin"))
        if origin is not None and origin.partition("://")[2].casefold() != host.casefold():
            raise RequestError(
                403,
                f"pages of {origin[:MAX_QUOTED_CHARACTERS]!r} may not call this gateway; "
                "make a key with `tunepoint keys add`",
                kind="permission_error",
            )
        media_type = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if writes and media_type != b"application/json":
            raise RequestError(415, "content-type must be application/json")
