"""Relays a server's stream event by event, and keeps it for capture."""

from __future__ import annotations

from collections.abc import AsyncIterator

import orjson

from tunepoint.serve.backends import ArmResponse, ProxyArm, ServedArm
from tunepoint.serve.protocol import DONE, ChatRequest, read_events
from tunepoint.serve.upstream import ArmFault

MAX_CAPTURED_BYTES = 8 * 2**20
"""Of a stream, kept for capture; the client gets all of it."""
CHARACTERS_PER_TOKEN = 4
"""A usual guess for English text."""


class Relay:
    """Passes a server's events on under the task's name, and keeps them for capture."""

    def __init__(self, request: ChatRequest) -> None:
        self.request = request
        self.done = False
        """Whether the stream has come to its [DONE]."""
        self.error: str | None = None
        """What the server reported in the middle of its stream."""
        self._captured: list[bytes] = []
        self._captured_bytes = 0
        self._incomplete = b""
        """The start of an event whose end has not come yet."""
        self._model_fields: tuple[bytes, bytes] | None = None
        """The event's `"model":` field as the server writes it, and with the task's name."""

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the events that are complete now; a chunk may begin and end anywhere."""
        if self._captured_bytes < MAX_CAPTURED_BYTES:
            self._captured.append(chunk)
            self._captured_bytes += len(chunk)
        data = self._incomplete + chunk if self._incomplete else chunk
        if b"\r\n" in data:
            data = data.replace(b"\r\n", b"\n")
        complete, separator, self._incomplete = data.rpartition(b"\n\n")
        if not separator:
            return []
        return [passed for event in complete.split(b"\n\n") if (passed := self._passed(event))]

    def _passed(self, event: bytes) -> bytes:
        """The event as the client gets it; empty where it gets none."""
        if event.startswith(b"data:") and not event.startswith(b"data: "):
            event = b"data: " + event[5:]
        if event.startswith(b"data: [DONE]"):
            self.done = True
            return DONE
        # The gateway asks every server for its usage; a client that did not ask must not see it.
        if not self.request.wants_usage and _is_usage_only(event):
            return b""
        return self._renamed(event) + b"\n\n"

    def _renamed(self, event: bytes) -> bytes:
        """The event under the task's name, the only model name that applications know.

        Bytes are replaced, and JSON is read once per stream: parsing every event would cost more than
        everything else that the gateway does with it.
        """
        if self._model_fields is None:
            if not event.startswith(b"data: {"):
                return event
            try:
                model = orjson.loads(event[6:]).get("model")
            except orjson.JSONDecodeError:
                return event
            self._model_fields = (
                b'"model":' + orjson.dumps(model),
                b'"model":' + orjson.dumps(self.request.task),
            )
        old, new = self._model_fields
        if old in event:
            return event.replace(old, new, 1)
        return event.replace(old.replace(b":", b": ", 1), new, 1)

    def response(self, arm: ServedArm) -> ArmResponse:
        """What the stream held, with its tokens and their price."""
        streamed = read_events(b"".join(self._captured))
        response = ArmResponse({}, streamed.text, arm.model)
        self.error = streamed.error
        if isinstance(arm, ProxyArm):
            arm.count(response, streamed.usage or _estimated_usage(self.request, streamed.text))
        return response


def _is_usage_only(event: bytes) -> bool:
    compact = event.replace(b" ", b"")
    return b'"usage":{' in compact and b'"choices":[]' in compact


def _estimated_usage(request: ChatRequest, text: str) -> dict[str, int]:
    """Estimate the tokens of a stream that ended before its usage: its server charges for it all the same."""
    prompt = len(orjson.dumps(request.body["messages"]))
    return {
        "prompt_tokens": prompt // CHARACTERS_PER_TOKEN,
        "completion_tokens": len(text) // CHARACTERS_PER_TOKEN,
    }


async def read_first_event(events: AsyncIterator[bytes | ArmResponse]) -> bytes | ArmResponse:
    """Read up to the end of the first event; comments and incomplete events do not count.

    Returns:
        The bytes so far, which may hold more than one event; or the whole answer.

    Raises:
        ArmFault: the stream ends before, or begins with an error.

    """
    received = b""
    async for chunk in events:
        if isinstance(chunk, ArmResponse):
            return chunk
        received += chunk
        text = received.replace(b"\r\n", b"\n")
        start = text.find(b"data:")
        if start >= 0 and b"\n\n" in text[start:]:
            if read_events(text).error is not None:
                raise ArmFault("the server reports that it cannot answer")
            return received
    raise ArmFault("the stream has no events")
