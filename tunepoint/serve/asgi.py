"""ASGI plumbing: request bodies, response headers, and clients that disconnect."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from contextlib import suppress
from typing import Any

from tunepoint.serve.protocol import ChatRequest, RequestError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

DISCONNECT_CHECK_SECONDS = 1.0
"""How long an answer may take before the gateway watches whether its client is still connected."""
MAX_DISCARDED_BYTES, DISCARD_SECONDS = 32 * 2**20, 5.0
"""How much of an oversized body, and for how long, the gateway reads before it closes the connection."""
JSON = (b"content-type", b"application/json")


class ClientDisconnected(RequestError):
    """The client closed its connection before it had the answer."""

    def __init__(self) -> None:
        # 499 is nginx's convention; nobody reads this reply, but the metrics count it.
        super().__init__(499, "the client disconnected")


async def read_body(
    headers: dict[bytes, bytes],
    receive: Receive,
    max_bytes: int,
    take: Callable[[int], None] = lambda size: None,
) -> bytes:
    """Read a request's body; how long it may take, the connection knows.

    Args:
        take: is told how many bytes arrive, and raises if there is no room for them.

    Raises:
        RequestError: the body is too large, or its client disconnected.

    """
    announced = headers.get(b"content-length", b"")
    if announced.isdigit() and int(announced) > max_bytes:
        await _discard(receive)
        raise _too_large(int(announced), max_bytes)
    parts, size, expects_more = [], 0, True
    while expects_more:
        message = await _next_message(receive)
        part, expects_more = message.get("body", b""), message.get("more_body", False)
        parts.append(part)
        size += len(part)
        try:
            if size > max_bytes:
                raise _too_large(size, max_bytes)
            take(len(part))
        except RequestError:
            if expects_more:
                parts.clear()
                await _discard(receive)
            raise
    return parts[0] if len(parts) == 1 else b"".join(parts)


async def _discard(receive: Receive) -> None:
    """Read more of the body and drop it: a client that is still sending would not read the error."""
    remaining = MAX_DISCARDED_BYTES
    with suppress(RequestError, TimeoutError):
        async with asyncio.timeout(DISCARD_SECONDS):
            while remaining > 0 and (message := await _next_message(receive)).get("more_body"):
                remaining -= len(message.get("body", b""))


async def _next_message(receive: Receive) -> Message:
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientDisconnected
    return message


class DisconnectWatch:
    """A context that cancels the work inside once the client disconnects.

    A class and not a generator: it is entered for every request, and costs a third.

    Args:
        receive: of the request, its body already read.
        after: seconds before the watch begins. Most answers are done by then and pay for a timer only,
            not for a task; 0 watches from the start.

    Raises:
        ClientDisconnected: on leaving, if the work was cancelled for this reason.

    """

    __slots__ = ("_after", "_receive", "_timer", "_watch", "_working")

    def __init__(self, receive: Receive, after: float = DISCONNECT_CHECK_SECONDS) -> None:
        self._receive, self._after = receive, after
        self._watch: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> None:
        self._working = asyncio.current_task()
        if self._after:
            self._timer = asyncio.get_running_loop().call_later(self._after, self._begin)
        else:
            self._begin()

    def _begin(self) -> None:
        self._watch = asyncio.ensure_future(_disconnection(self._receive))
        self._watch.add_done_callback(self._cancel_work)

    def _cancel_work(self, watch: asyncio.Future[None]) -> None:
        if not watch.cancelled() and self._working is not None:
            self._working.cancel()

    def __exit__(self, kind: type[BaseException] | None, error: object, traceback: object) -> None:
        # The server cancels the task too, when it shuts down; that is no disconnection.
        disconnected = self._watch is not None and self._watch.done()
        if self._timer is not None:
            self._timer.cancel()
        if self._watch is not None:
            self._watch.remove_done_callback(self._cancel_work)
            self._watch.cancel()
        if disconnected and kind is not None and issubclass(kind, asyncio.CancelledError):
            raise ClientDisconnected from None


async def _disconnection(receive: Receive) -> None:
    """Return once the client has disconnected."""
    while (await receive())["type"] != "http.disconnect":
        pass


def header_text(value: bytes | None) -> str | None:
    """Decode a header; None where it is missing."""
    return None if value is None else value.decode("latin-1")


def _too_large(size: int, max_bytes: int) -> RequestError:
    return RequestError(
        413,
        f"the body has {size:,} bytes or more, the limit is {max_bytes:,}",
    )


def answer_headers(request: ChatRequest, arm: str, role: str) -> Headers:
    """Headers that say which arm answered, and in which role."""
    return [
        (b"x-request-id", request.id.encode()),
        (b"x-tunepoint-arm", arm.encode("ascii", "replace")),
        (b"x-tunepoint-role", role.encode()),
    ]


def error_headers(error: RequestError) -> Headers:
    """Headers of an error response."""
    wait = error.retry_after()
    return [JSON] if wait is None else [JSON, (b"retry-after", wait.encode())]


def closing(send: Send) -> Send:
    """Return what sends a response after which the connection is closed."""

    async def send_and_close(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
        await send(message)

    return send_and_close


async def send_response(send: Send, status: int, body: bytes, headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Send a whole response with its content-length."""
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})
