"""Relays a server's stream event by event, and keeps its text and its usage for capture."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, suppress
from typing import Any

from tunepoint.models.abilities import refusal_words
from tunepoint.models.chat_completions import generated_text, text_of
from tunepoint.serve.backends import ArmResponse, ProxyArm, ServedArm, request_text
from tunepoint.serve.events import Event, EventSplitter, EventTooLong, renamed
from tunepoint.serve.protocol import DONE, ChatRequest
from tunepoint.serve.turns import LONG_BYTES, turn
from tunepoint.serve.upstream import ArmFault

MAX_KEPT_BYTES = 256 * 2**10
"""Of one stream's text, kept for capture; the client gets all of it."""
MAX_KEPT_BYTES_TOGETHER = 32 * 2**20
"""Of the text of all streams that are on their way."""
MAX_BYTES_AFTER_DONE, SECONDS_AFTER_DONE = 64 * 2**10, 0.25
"""What is read of a stream after its end."""
MAX_QUOTED_CHARACTERS = 300
"""Of a server's error."""


class KeptText:
    """The text of one stream, as far as there is room for it.

    A text that is too long is not kept at all: its start alone would be taken for a whole answer.
    """

    together = 0
    """Bytes that all streams keep now."""

    def __init__(self) -> None:
        self.characters = 0
        """Of all that was generated, kept or not: tokens are estimated by them."""
        self._bytes = bytearray()  # a list of strings would take ten times as much
        self._dropped = False

    def add(self, text: str) -> None:
        """Keep more text."""
        if self._dropped or not text:
            return
        raw = text.encode("utf-8", "replace")
        if (
            len(self._bytes) + len(raw) > MAX_KEPT_BYTES
            or KeptText.together + len(raw) > MAX_KEPT_BYTES_TOGETHER
        ):
            self.drop()
            self._dropped = True
            return
        KeptText.together += len(raw)
        self._bytes += raw

    def drop(self) -> None:
        """Give the room back."""
        KeptText.together -= len(self._bytes)
        self._bytes = bytearray()

    def text(self) -> str:
        """The text; empty if it was too long to be kept."""
        return self._bytes.decode("utf-8", "replace")


class Relay:
    """Passes a server's events on under the task's name, and reads them for capture."""

    def __init__(self, request: ChatRequest) -> None:
        self.request = request
        self.done = False
        """Whether the stream has come to its [DONE]."""
        self.error: str | None = None
        """What the server reported in the middle of its stream."""
        self.usage: Any = None
        self.kept = KeptText()
        self._splitter = EventSplitter()
        self.begun = False
        """Whether the client has got an event."""
        self._started: set[int] = set()
        """Alternatives (`n` of the request) that have started."""
        self._finished: set[int] = set()

    @property
    def complete(self) -> bool:
        """Whether the answer is whole: many servers end a stream without [DONE]."""
        return self.done or (bool(self._finished) and self._started <= self._finished)

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Yield the events that are complete now, as the client gets them.

        Raises:
            ArmFault: an event is too long.

        """
        try:
            for event in self._splitter.feed(chunk):
                if passed := self._passed(event):
                    yield passed
        except EventTooLong as error:
            raise ArmFault(str(error)) from None

    def end(self) -> Iterator[bytes]:
        """Yield what is left at the stream's end, with the [DONE] that the server may have left out."""
        for event in self._splitter.rest():
            if passed := self._passed(event):
                yield passed
        if self.complete and not self.done and self.error is None:
            self.done = True
            yield DONE

    def _passed(self, event: Event) -> bytes:
        """The event as the client gets it; empty where it gets none."""
        if self.done or self.error is not None:
            return b""
        if event.done:
            self.done = True
            return DONE
        content = event.content
        if content is None:
            return event.raw + b"\n\n" if event.is_comment else b""
        self._read(content)
        if self.error is not None:
            return b""  # the client reads about it in an event of our own
        # OpenAI sends events without choices for usage only, and only to who has asked for it. The gateway
        # asks every server for its usage; Azure begins its streams with such an event.
        if not content.get("choices") and not (content.get("usage") and self.request.wants_usage):
            return b""
        self.begun = True
        return renamed(event, self.request.task) + b"\n\n"

    def _read(self, content: dict[str, Any]) -> None:
        if content.get("usage"):
            self.usage = content["usage"]
        if content.get("error"):
            self._report(content["error"])
        choices = content.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict):
                self._read_choice(choice)

    def _read_choice(self, choice: dict[str, Any]) -> None:
        index = choice.get("index")
        index = index if isinstance(index, int) else 0
        self._started.add(index)
        if choice.get("finish_reason"):
            self._finished.add(index)
        if choice.get("error") or choice.get("finish_reason") == "error":
            self._report(choice.get("error"))
        delta = choice.get("delta")
        if not isinstance(delta, dict):
            return
        self.kept.characters += _length(delta)
        if index == 0:  # with n > 1 the choices are alternatives; capture keeps the first
            self.kept.add(_text(delta.get("content")))

    def _report(self, error: Any) -> None:
        words = refusal_words(error) or (error if isinstance(error, str) else "no reason given")
        self.error = f"the server reports an error: {words}"[:MAX_QUOTED_CHARACTERS]

    def response(self, arm: ServedArm) -> ArmResponse:
        """What the stream held, with its tokens and their price."""
        response = ArmResponse({}, self.kept.text(), arm.model)
        if isinstance(arm, ProxyArm):
            arm.count(response, self.usage, request_text(self.request), " " * self.kept.characters)
        self.kept.drop()
        return response


def _text(content: Any) -> str:
    try:
        return text_of(content)
    except RecursionError:  # JSON may be nested deeper than Python's stack
        return ""


def _length(delta: dict[str, Any]) -> int:
    try:
        return len(generated_text(delta))
    except RecursionError:
        return 0


class OpenStream:
    """An arm's answer that has begun."""

    def __init__(self, request: ChatRequest, chunks: AsyncGenerator[bytes | ArmResponse, None]) -> None:
        self.relay = Relay(request)
        self.whole: ArmResponse | None = None
        """The whole answer, of an arm that does not stream."""
        self._chunks = chunks
        self._first = b""

    async def begin(self) -> None:
        """Read up to the first event that the client gets; comments and incomplete events do not count.

        Raises:
            ArmFault: the stream ends before, or begins with an error.

        """
        async for chunk in self._chunks:
            if isinstance(chunk, ArmResponse):
                self.whole = chunk
                return
            if self._has_begun(b"".join(await self._fed(chunk))):
                return
        if not self._has_begun(b"".join(self.relay.end())):
            raise ArmFault("the stream has no events")

    def _has_begun(self, events: bytes) -> bool:
        if self.relay.error is not None:
            raise ArmFault(self.relay.error)
        self._first = events
        return self.relay.begun

    async def events(self) -> AsyncGenerator[bytes, None]:
        """Yield all events, from the first one on.

        Raises:
            ArmFault: the server breaks off before the answer is whole.

        """
        yield self._first
        try:
            while not self._has_ended:
                chunk = await anext(self._chunks, None)
                if chunk is None:
                    break
                assert isinstance(chunk, bytes)
                passed = b"".join(await self._fed(chunk))
                del chunk  # a slow client makes the next line wait
                if passed:
                    yield passed
        except ArmFault:
            if not self.relay.complete:
                raise
        if passed := b"".join(self.relay.end()):
            yield passed

    @property
    def _has_ended(self) -> bool:
        return self.relay.done or self.relay.error is not None

    async def close(self) -> None:
        """Close the server's stream.

        What comes after [DONE] is read first, but not for long, so that the connection can be used again.
        """
        async with aclosing(self._chunks):
            if not self.relay.done:
                return
            remaining = MAX_BYTES_AFTER_DONE
            with suppress(TimeoutError, ArmFault):
                async with asyncio.timeout(SECONDS_AFTER_DONE):
                    async for chunk in self._chunks:
                        remaining -= len(chunk) if isinstance(chunk, bytes) else 0
                        if remaining < 0:
                            break

    async def _fed(self, chunk: bytes) -> list[bytes]:
        """The events of a chunk; long chunks take turns, so that many streams never stop the others."""
        if len(chunk) < LONG_BYTES:
            return list(self.relay.feed(chunk))
        async with turn("stream"):
            return list(self.relay.feed(chunk))


async def open_stream(arm: ServedArm, request: ChatRequest) -> OpenStream:
    """Start an arm's answer, and read what it begins with.

    Raises:
        ArmFault: it has no event, or begins with an error.

    """
    chunks = _chunks(arm, request)
    stream = OpenStream(request, chunks)
    try:
        await stream.begin()
    except BaseException:
        stream.relay.kept.drop()
        await chunks.aclose()
        raise
    return stream


async def _chunks(arm: ServedArm, request: ChatRequest) -> AsyncGenerator[bytes | ArmResponse, None]:
    """Raw bytes of a server's stream; or one whole answer, from an arm that cannot stream."""
    stream = arm.stream(request)
    if stream is None:
        yield await arm.answer(request)
        return
    async with stream as chunks:
        async for chunk in chunks:
            yield chunk
