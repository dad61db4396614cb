"""A server's stream, passed on event by event."""

from __future__ import annotations

import orjson

from tunepoint.serve.arms import Answered, Passing, ServedArm
from tunepoint.serve.wire import DONE, Asked, read_events


class Relay:
    """Passes a server's events on under the task's name, and keeps them for capture."""

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self.done = False
        self._raw: list[bytes] = []
        self._rest = b""
        self._model: tuple[bytes, bytes] | None = None

    def feed(self, chunk: bytes) -> list[bytes]:
        """Whole events for the client; an event that is cut in two waits for its other half."""
        self._raw.append(chunk)
        data = self._rest + chunk if self._rest else chunk
        if b"\r\n" in data:
            data = data.replace(b"\r\n", b"\n")
        whole, mark, self._rest = data.rpartition(b"\n\n")
        if not mark:
            return []
        return [event for one in whole.split(b"\n\n") if (event := self._passed(one))]

    def _passed(self, event: bytes) -> bytes:
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

    def answered(self, arm: ServedArm) -> Answered:
        """What the stream held, with its tokens and their price."""
        streamed = read_events(b"".join(self._raw))
        found = Answered({}, streamed.text, arm.model)
        if isinstance(arm, Passing):
            arm.count(found, streamed.usage)
        return found
