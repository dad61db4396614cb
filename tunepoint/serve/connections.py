"""Connections of clients, bounded: how many, how slow, how large their headers, how much is in memory."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, ClassVar

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tunepoint.serve.protocol import RequestError

MAX_FRAMING_SHARE = 8
"""Bytes of chunk sizes and extensions for each byte of a body; a body in chunks of one byte has 5."""


@dataclass(frozen=True)
class Limits:
    """What a client's connection may take."""

    connections: int = 4_096
    """Open at the same time. Beyond that, the one that has kept us waiting longest is closed."""
    head_bytes: int = 32 * 2**10
    """Of a request's first line and its headers."""
    header_count: int = 100
    head_seconds: float = 10.0
    """From the connection, or the first byte of a later request, to the end of the headers."""
    body_seconds: float = 60.0
    """From the end of the headers to the end of the body."""
    write_seconds: float = 60.0
    """How long a client may read nothing of an answer that waits for it."""
    write_bytes: int = 16 * 2**10
    """Of an answer, held for a client that reads slowly; what comes after it waits at the server."""
    pipelined: int = 16
    """Requests that wait on one connection for the answer to an earlier one. More are not read: the
    connection closes after the answers."""


class _Refusal(Exception):
    """A request that is refused while it arrives; the parser stops at an exception."""


class GuardedProtocol(HttpToolsProtocol):
    """HTTP on one connection, within `Limits`.

    uvicorn itself limits neither headers nor the time that a request takes to arrive or a client to read.
    A client is timed only while it keeps us waiting: a request that arrives at once starts no timer.
    """

    limits: ClassVar[Limits] = Limits()
    waited_for: ClassVar[dict[GuardedProtocol, None]] = {}
    """Connections without a whole request, in the order in which they began to keep us waiting."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._stage = "head"
        """What comes next: `head`, `body`, or an `answer` of ours."""
        self._timed_stage = ""
        self._deadline: asyncio.TimerHandle | None = None
        self._write_deadline: asyncio.TimerHandle | None = None
        self._unread_bytes = 0
        """What waited for the client when it was last looked at."""
        self._refusal = (400, "this is no HTTP request")
        self._reads_no_more = False
        """Whether so many requests wait that the connection closes after their answers."""
        self._reset_counts()

    # -- the connection --------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection; close another one if there are too many."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=self.limits.write_bytes, low=0)
        self._time_stage()
        self.waited_for[self] = None
        if len(self.connections) > self.limits.connections:
            longest = next(iter(self.waited_for))
            if longest is self:
                self._refuse(503, "too many connections; try again")
            else:
                longest.drop()

    def drop(self) -> None:
        """Close the connection at once."""
        self._forget()
        self.connections.discard(self)
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop all timers."""
        self._forget()
        self._cancel_write_deadline()
        super().connection_lost(exc)

    def _forget(self) -> None:
        self.waited_for.pop(self, None)
        self._timed_stage = ""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    # -- what arrives ----------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Parse what has arrived, and time what is still missing."""
        if self._reads_no_more:
            return
        stage = self._stage
        if stage == "head":
            self._head_bytes += len(data)
        else:
            self._body_bytes += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._stage == "head" == stage and self._head_bytes > self.limits.head_bytes:
            self._refuse(431, f"the headers have over {self.limits.head_bytes:,} bytes")
        elif (
            self._stage == "body" == stage
            and self._body_bytes > HIGH_WATER_LIMIT + MAX_FRAMING_SHARE * self._content_bytes
        ):
            self._refuse(400, "the body's chunks have more framing than content")
        else:
            self._time_stage()

    def _reset_counts(self) -> None:
        self._head_bytes = self._field_bytes = self._fields = 0
        self._body_bytes = self._content_bytes = 0

    def on_message_begin(self) -> None:
        """Begin with the headers of a request."""
        self._stage = "head"
        self._fields = self._field_bytes = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Take a part of the address."""
        self._count_field(len(url), 0)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, or a trailer after the body."""
        self._count_field(len(name) + len(value), 1)
        super().on_header(name, value)

    def _count_field(self, size: int, fields: int) -> None:
        self._field_bytes += size
        self._fields += fields
        if self._field_bytes > self.limits.head_bytes:
            self._stop(431, f"the headers have over {self.limits.head_bytes:,} bytes")
        if self._fields > self.limits.header_count:
            self._stop(431, f"the request has over {self.limits.header_count} headers")

    def on_headers_complete(self) -> None:
        """Start answering; two names of the host would leave open which one counts."""
        if sum(name == b"host" for name, _ in self.headers) > 1:
            self._stop(400, "the request has more than one header 'host'")
        if len(self.pipeline) >= self.limits.pipelined:
            self._reads_no_more = True
            self._stage = "answer"  # nothing more is waited for
            raise _Refusal("too many requests wait on this connection")
        super().on_headers_complete()
        self._stage = "body"

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._content_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Note that the whole request is there."""
        super().on_message_complete()
        self._stage = "head" if self.cycle.response_complete else "answer"
        self._reset_counts()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        self._time_writing()
        if self._reads_no_more and self.cycle.response_complete:
            self.transport.close()
        elif self._stage == "answer" and self.cycle.response_complete:
            self._stage = "head"
            self.waited_for[self] = None  # uvicorn closes it after `timeout_keep_alive`

    # -- time ------------------------------------------------------------------------------------

    def _time_stage(self) -> None:
        """Start the timer of the stage, unless it runs or it is ours to act."""
        if self._stage == self._timed_stage:
            return
        self._forget()
        if self._stage == "answer":
            return
        self._timed_stage = self._stage
        self.waited_for[self] = None
        limits = self.limits
        seconds = limits.head_seconds if self._stage == "head" else limits.body_seconds
        self._deadline = self.loop.call_later(seconds, self._expired)

    def _expired(self) -> None:
        stage, self._timed_stage = self._timed_stage, ""
        if self.flow.read_paused:  # we keep the client waiting, not it us
            self._time_stage()
        elif stage == "head" and self._head_bytes == 0:
            self.transport.close()  # nothing was asked
        elif stage == "head":
            self._refuse(408, f"the headers did not arrive within {self.limits.head_seconds:g} s")
        else:
            self._refuse(408, f"the body did not arrive within {self.limits.body_seconds:g} s")

    def pause_writing(self) -> None:
        """Wait for a client that reads more slowly than we answer; but not forever."""
        super().pause_writing()
        self._time_writing()

    def _time_writing(self) -> None:
        """Give the client `write_seconds` to read some of what waits for it."""
        self._unread_bytes = self.transport.get_write_buffer_size()
        if self._write_deadline is None and self._unread_bytes:
            self._write_deadline = self.loop.call_later(self.limits.write_seconds, self._look_at_unread)

    def resume_writing(self) -> None:
        """Go on: the client has read all that waited."""
        super().resume_writing()
        self._cancel_write_deadline()

    def _cancel_write_deadline(self) -> None:
        if self._write_deadline is not None:
            self._write_deadline.cancel()
            self._write_deadline = None

    def _look_at_unread(self) -> None:
        """Close the connection if as much waits as at the last look; a slow client that reads goes on."""
        self._write_deadline = None
        unread = self.transport.get_write_buffer_size()
        if unread and unread >= self._unread_bytes:
            self.transport.abort()
        else:
            self._time_writing()

    # -- refusals --------------------------------------------------------------------------------

    def _stop(self, status: int, message: str) -> None:
        """Refuse the request from inside the parser."""
        self._refusal = (status, message)
        raise _Refusal(message)

    def send_400_response(self, msg: str) -> None:
        """Refuse what the parser has stopped at, unless that is one request too many."""
        if not self._reads_no_more:
            self._refuse(*self._refusal)

    def _refuse(self, status: int, message: str) -> None:
        """Answer with an error if no other answer is under way, and close the connection."""
        self._forget()
        cycle, stage = self.cycle, self._stage
        idle = cycle is None or cycle.response_complete
        unanswered = not idle and not cycle.response_started and not self.pipeline
        if (stage == "head" and idle) or (stage == "body" and unanswered):
            body = RequestError(status, message).body()
            self.transport.write(
                b"HTTP/1.1 %d %s\r\ncontent-type: application/json\r\nconnection: close\r\n"
                b"content-length: %d\r\n\r\n%s"
                % (status, HTTPStatus(status).phrase.encode(), len(body), body)
            )
        if not idle:
            cycle.disconnected = True
            cycle.message_event.set()
        self._time_writing()
        self.transport.close()


def guarded_protocol(limits: Limits) -> type[asyncio.Protocol]:
    """Return the class of one server's connections; they share the limit of their number."""
    return type("GuardedProtocol", (GuardedProtocol,), {"limits": limits, "waited_for": {}})
