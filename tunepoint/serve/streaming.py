"""A server's stream, passed on event by event."""

from __future__ import annotations

from collections.abc import AsyncIterator

import orjson

from tunepoint.serve.backends import ArmResponse, ProxyArm, ServedArm
from tunepoint.serve.protocol import DONE, ChatRequest, read_events
from tunepoint.serve.upstream import ArmFault

MOST_KEPT = 8 * 2**20
"""Bytes of a stream that are kept for capture; the client gets all of it."""


class Relay:
    """Passes a server's events on under the task's name, and keeps them for capture."""

    def __init__(self, request: ChatRequest) -> None:
        self.asked = request
        self.done = False
        self.error: str | None = None
        """What the server says went wrong in the middle."""
        self._raw: list[bytes] = []
        self._kept = 0
        self._rest = b""
        self._model: tuple[bytes, bytes] | None = None

    def feed(self, chunk: bytes) -> list[bytes]:
        """Whole events for the client; an event that is cut in two waits for its other half."""
        if self._kept < MOST_KEPT:
            self._raw.append(chunk)
            self._kept += len(chunk)
        data = self._rest + chunk if self._rest else chunk
        if b"\r\n" in data:
            data = data.replace(b"\r\n", b"\n")
        whole, mark, self._rest = data.rpartition(b"\n\n")
        if not mark:
            return []
        return [event for one in whole.split(b"\n\n") if (event := self._passed(one))]

    def _passed(self, event: bytes) -> bytes:
        if event.startswith(b"data:") and not event.startswith(b"data: "):
            event = b"data: " + event[5:]
        if event.startswith(b"data: [DONE]"):
            self.done = True
            return DONE
        if (
            not self.asked.wants_usage
            and b'"usage":{' in event.replace(b" ", b"")
            and (b'"choices":[]' in event.replace(b" ", b""))
        ):
            return b""
        return self._renamed(event) + b"\n\n"

    def _renamed(self, event: bytes) -> bytes:
        """The event under the task's name: applications know no other."""
        if self._model is None:
            if not event.startswith(b"data: {"):
                return event
            try:
                model = orjson.loads(event[6:]).get("model")
            except orjson.JSONDecodeError:
                return event
            named = orjson.dumps(model)
            self._model = (b'"model":' + named, b'"model":' + orjson.dumps(self.asked.task))
        old, new = self._model
        if old in event:
            return event.replace(old, new, 1)
        return event.replace(old.replace(b":", b": ", 1), new, 1)

    def answered(self, arm: ServedArm) -> ArmResponse:
        """What the stream held, with its tokens and their price."""
        streamed = read_events(b"".join(self._raw))
        found = ArmResponse({}, streamed.text, arm.model)
        self.error = streamed.error
        if isinstance(arm, ProxyArm):
            arm.count(found, streamed.usage or _guessed(self.asked, streamed.text))
        return found


def _guessed(request: ChatRequest, text: str) -> dict[str, int]:
    """Tokens of a stream that ended before its usage: four characters each. It was paid for all the same."""
    given = len(orjson.dumps(request.body["messages"]))
    return {"prompt_tokens": given // 4, "completion_tokens": len(text) // 4}


async def first_of(events: AsyncIterator[bytes | ArmResponse]) -> bytes | ArmResponse:
    """What comes up to the end of the first event; comments and halves of events are none yet.

    Raises:
        ArmFault: the stream ends before, or begins with an error.

    """
    found = b""
    async for part in events:
        if isinstance(part, ArmResponse):
            return part
        found += part
        plain = found.replace(b"\r\n", b"\n")
        at = plain.find(b"data:")
        if at >= 0 and b"\n\n" in plain[at:]:
            error = read_events(plain).error
            if error is not None:
                raise ArmFault("the server says that it cannot answer")
            return found
    raise ArmFault("the stream has no events")
