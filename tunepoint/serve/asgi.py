"""Bodies, headers and callers, as ASGI has them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping
from contextlib import contextmanager, suppress
from typing import Any

from tunepoint.serve.protocol import ChatRequest, RequestError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
BODY_SECONDS = 30.0
"""In which a request's body has to arrive."""
PATIENT_SECONDS = 1.0
"""Of an answer, after which it is looked whether its caller is still there."""
MOST_DISCARDED, DISCARD_SECONDS = 32 * 2**20, 5.0
"""Bytes of too large a body that are read before the connection is closed, and for how long."""
JSON = (b"content-type", b"application/json")


async def read_body(headers: dict[bytes, bytes], receive: Receive, most: int) -> bytes:
    """The body, if it has no more than so many bytes and comes in time.

    Raises:
        Refused: it is too large, too slow, or its sender went away.

    """
    announced = headers.get(b"content-length", b"")
    if announced.isdigit() and int(announced) > most:
        await _discard(receive)
        raise _too_large(int(announced), most)
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await _gathered(receive, most)
    except TimeoutError:
        raise RequestError(408, f"the body did not arrive within {BODY_SECONDS:g} s") from None


async def _gathered(receive: Receive, most: int) -> bytes:
    message = await _received(receive)
    body: bytes = message.get("body", b"")
    parts, size = [body], len(body)
    while message.get("more_body"):
        message = await _received(receive)
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > most:
            await _discard(receive)
            raise _too_large(size, most)
    return body if len(parts) == 1 else b"".join(parts)


async def _discard(receive: Receive) -> None:
    """Read on for a while and keep nothing: a caller that is still sending would not read why."""
    left = MOST_DISCARDED
    with suppress(RequestError, TimeoutError):
        async with asyncio.timeout(DISCARD_SECONDS):
            while left > 0 and (message := await _received(receive)).get("more_body"):
                left -= len(message.get("body", b""))


async def _received(receive: Receive) -> Message:
    message = await receive()
    if message["type"] == "http.disconnect":
        raise RequestError(499, "the caller went away")
    return message


@contextmanager
def leaving(receive: Receive) -> Iterator[None]:
    """While an answer takes long, see whether the caller goes away: then nobody waits for it."""
    loop, answering = asyncio.get_running_loop(), asyncio.current_task()
    watching: list[asyncio.Future[None]] = []

    def stop(gone: asyncio.Future[None]) -> None:
        if not gone.cancelled() and answering is not None:
            answering.cancel()

    def begin() -> None:
        watching.append(asyncio.ensure_future(left(receive)))
        watching[0].add_done_callback(stop)

    later = loop.call_later(PATIENT_SECONDS, begin)
    try:
        yield
    except asyncio.CancelledError:
        if not watching or not watching[0].done():
            raise
        raise RequestError(499, "the caller went away") from None
    finally:
        later.cancel()
        for one in watching:
            one.remove_done_callback(stop)
            one.cancel()


async def left(receive: Receive) -> None:
    """Return when the caller has gone away."""
    while (await receive())["type"] != "http.disconnect":
        pass


def text(value: bytes | None) -> str | None:
    """A header as text; None where there is none."""
    return None if value is None else value.decode("latin-1")


def _too_large(size: int, most: int) -> RequestError:
    return RequestError(
        413, f"the body has {size:,} bytes or more, at most {most:,} are taken (server.max_body_mb)"
    )


def named(request: ChatRequest, arm: str, role: str) -> list[tuple[bytes, bytes]]:
    """Who answered, in headers."""
    return [
        (b"x-request-id", request.id.encode()),
        (b"x-tunepoint-arm", arm.encode("ascii", "replace")),
        (b"x-tunepoint-role", role.encode()),
    ]


def refusal_headers(error: RequestError) -> list[tuple[bytes, bytes]]:
    """Headers of an error."""
    wait = [] if error.wait is None else [(b"retry-after", str(max(1, round(error.wait))).encode())]
    return [JSON, *wait]


async def reply(send: Send, status: int, body: bytes, headers: Iterable[tuple[bytes, bytes]]) -> None:
    """A whole response, its length in a header."""
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})
