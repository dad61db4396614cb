"""Server-sent events as servers write them: split as they come, each of a bounded size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from tunepoint.serve.protocol import read_json, server_sent_event

MAX_EVENT_BYTES = 2**20
"""Of one event; a server that goes on without ending it is cut off."""
_DONE = b"[DONE]"
_MARK = b"\xef\xbb\xbf"


class EventTooLong(Exception):
    """An event that has more bytes than `MAX_EVENT_BYTES` and no end."""

    def __init__(self) -> None:
        super().__init__(f"an event has over {MAX_EVENT_BYTES // 2**20} MiB")


@dataclass(slots=True)
class Event:
    """One event of a stream."""

    raw: bytes
    """Its lines, without the empty line at the end."""
    content: dict[str, Any] | None = None
    """Its JSON; None for comments and for what cannot be read."""
    done: bool = False
    """Whether it is the [DONE] that ends a stream."""

    @property
    def is_comment(self) -> bool:
        """Whether it has no data: servers keep a connection alive with such events."""
        return self.content is None and not self.done and not _data_lines(self.raw)


class EventSplitter:
    """Splits a stream into events; its chunks may begin and end anywhere.

    Lines end in LF, CR or both, as the standard allows. No byte is searched or copied twice, so an event
    that comes in many small chunks takes linear time.
    """

    def __init__(self) -> None:
        self._held = bytearray()
        """The start of an event whose end has not come yet."""
        self._return_held = False
        """Whether the last chunk ended in a CR, which a LF may follow."""
        self._started = False

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """Yield the events that are complete now.

        Raises:
            EventTooLong: an event has no end within the limit.

        """
        chunk = self._with_plain_ends(chunk)
        start = max(0, len(self._held) - 1)
        self._held += chunk
        end = self._held.rfind(b"\n\n", start)
        complete = b""
        if end >= 0:
            complete = bytes(self._held[:end])
            del self._held[: end + 2]
        if len(self._held) > MAX_EVENT_BYTES:
            raise EventTooLong
        for raw in complete.split(b"\n\n"):
            yield from read_event(raw)

    def rest(self) -> Iterator[Event]:
        """Yield what the stream ended with: some servers leave out the last empty line."""
        raw, self._held = bytes(self._held), bytearray()
        for event in read_event(raw):
            if event.done or event.content is not None:  # an event that was cut off is none
                yield event

    def _with_plain_ends(self, chunk: bytes) -> bytes:
        """The chunk with LF as the only end of lines."""
        if not self._started and chunk:
            self._started = True
            chunk = chunk.removeprefix(_MARK)
        if self._return_held:
            chunk, self._return_held = b"\r" + chunk, False
        if b"\r" not in chunk:
            return chunk
        if chunk.endswith(b"\r"):
            chunk, self._return_held = chunk[:-1], True
        return chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def read_event(raw: bytes) -> Iterator[Event]:
    """Read one event; several if a server has left out the empty lines between them."""
    raw = raw.strip(b"\n")
    if not raw:
        return
    if raw.startswith(b"data: {") and b"\n" not in raw:  # nearly all of them
        yield Event(raw, _read_json(raw[6:]))
        return
    lines = _data_lines(raw)
    if not lines:
        yield Event(raw)
        return
    whole = b"\n".join(lines)
    content = _read_json(whole)
    if content is not None or len(lines) == 1:
        yield Event(raw, content, done=whole == _DONE)
        return
    for line in lines:
        yield Event(b"data: " + line, _read_json(line), done=line == _DONE)


def _data_lines(raw: bytes) -> list[bytes]:
    return [line[5:].strip() for line in raw.split(b"\n") if line.startswith(b"data:")]


def _read_json(data: bytes) -> dict[str, Any] | None:
    try:
        content = read_json(data)
    except ValueError:
        return None
    return content if isinstance(content, dict) else None


def renamed(event: Event, model: str) -> bytes:
    """The event's lines under another model's name.

    Bytes are replaced where that is certain to be right: writing the JSON anew would cost more than
    everything else that is done with an event.
    """
    content = event.content
    if content is None:
        return event.raw
    if b"NaN" in event.raw or b"Infinity" in event.raw:  # not JSON to most clients
        return server_sent_event({**content, "model": model})[:-2]
    if "model" not in content:
        return event.raw
    new = b'"model":' + orjson.dumps(model)
    for mark in (b'"model":', b'"model": '):
        old = mark + orjson.dumps(content["model"])
        if event.raw.count(old) == 1 and event.raw.count(b'"model"') == 1:
            return event.raw.replace(old, new)
    return server_sent_event({**content, "model": model})[:-2]
