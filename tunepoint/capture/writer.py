"""Captured traffic goes to the store in a thread of its own: the answer never waits for it."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Protocol

from tunepoint.capture.records import Captured, Feedback
from tunepoint.capture.redaction import Redactor, redacted
from tunepoint.errors import RefusedRow, StoreError


class Sink(Protocol):
    """What takes batches: a store."""

    def add(self, requests: Sequence[Captured] = ..., feedback: Sequence[Feedback] = ...) -> None:
        """Write both, or nothing and raise a StoreError."""
        ...


@dataclass
class Counts:
    """What became of what was captured."""

    written: int = 0
    dropped: int = 0
    """Requests that found the buffer full, the oldest first: the store was away for long."""
    refused: int = 0
    """Requests that the store would not take, whatever else was written."""
    failing: bool = False
    """Whether the last batch could not be written."""


class Writer:
    """Batches for the store.

    A request is in memory for `linger` seconds and the writing of its batch: that much is lost if the
    process is killed, and nothing if it is asked to end (`close`). Feedback is acknowledged when it is
    written, and not before.

    Args:
        redact: takes personal data out before anything is written; None keeps it.
        capacity: requests that wait at most while the store is away; the oldest go first.
        batch: requests of one transaction at most.
        linger: seconds in which a batch gathers.

    """

    def __init__(
        self,
        store: Sink,
        redact: Redactor | None,
        *,
        capacity: int = 20_000,
        batch: int = 1_000,
        linger: float = 0.05,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self.store, self.redact = store, redact
        self.capacity, self.batch, self.linger = capacity, batch, linger
        self.counts = Counts()
        self._pause = pause
        self._requests: deque[Captured] = deque()
        self._feedback: deque[tuple[Feedback, Future[None]]] = deque()
        self._wake = threading.Event()
        self._ending = False
        self._thread = threading.Thread(target=self._run, name="capture", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Requests that are not written yet."""
        return len(self._requests)

    def put(self, request: Captured) -> None:
        """Take a request; returns at once."""
        if len(self._requests) >= self.capacity:
            try:
                self._requests.popleft()
                self.counts.dropped += 1
            except IndexError:  # the thread has just taken them all
                pass
        self._requests.append(request)
        if not self._wake.is_set():
            self._wake.set()

    def say(self, feedback: Feedback) -> Future[None]:
        """Take feedback; the future is done when it is written, or fails with a StoreError."""
        done: Future[None] = Future()
        self._feedback.append((feedback, done))
        self._wake.set()
        return done

    def close(self, patience: float = 10.0) -> int:
        """Write what waits; how many requests could not be written within so many seconds."""
        self._ending = True
        self._wake.set()
        self._thread.join(patience)
        return self.waiting

    # -- in the thread -----------------------------------------------------------------------------

    def _run(self) -> None:
        wait = 0.1
        while True:
            self._wake.wait()
            if not self._ending and not self._feedback and not self.counts.failing:
                self._pause(self.linger)
            self._wake.clear()
            if self._flush():
                wait = 0.1
            elif self._ending and wait > 1.0:
                return
            else:  # the store is away: what waits is tried again
                self._pause(wait)
                wait = min(5.0, wait * 2)
                self._wake.set()
                continue
            if self._requests or self._feedback:
                self._wake.set()
            elif self._ending:
                return

    def _flush(self) -> bool:
        """Write one batch; False if the store is away and the batch waits again."""
        said = [self._feedback.popleft() for _ in range(len(self._feedback))]
        batch: list[Captured] = []
        while self._requests and len(batch) < self.batch:
            try:
                batch.append(self._requests.popleft())
            except IndexError:
                break
        clean = [self._cleaned(one) for one in batch]
        try:
            self._write(clean, said)
        except StoreError as error:
            for _, done in said:
                if not done.done():
                    done.set_exception(error)
            self._requests.extendleft(reversed(batch))  # those that were written stay as they are
            self.counts.failing = True
            return False
        self.counts.failing = False
        return True

    def _write(self, clean: list[Captured], said: Sequence[tuple[Feedback, Future[None]]]) -> None:
        """Write all at once, or one by one where the store refuses one: it keeps no other out."""
        words = [self._worded(one) for one, _ in said]
        try:
            self.store.add(clean, words)
        except RefusedRow:
            for one in clean:
                try:
                    self.store.add([one], [])
                    self.counts.written += 1
                except RefusedRow:
                    self.counts.refused += 1
            for (_, done), word in zip(said, words, strict=True):
                try:
                    self.store.add([], [word])
                    done.set_result(None)
                except RefusedRow as error:
                    done.set_exception(error)
            return
        self.counts.written += len(clean)
        for _, done in said:
            done.set_result(None)

    def _cleaned(self, one: Captured) -> Captured:
        wash = self._wash
        return replace(
            one,
            input=wash(one.input),
            output=wash(one.output),
            answer=None if one.answer is None else wash(one.answer),
            error=None if one.error is None else wash(one.error),
            messages=None if one.messages is None else redacted(one.messages, wash),
            parameters=redacted(one.parameters, wash),
        )

    def _worded(self, one: Feedback) -> Feedback:
        return replace(
            one,
            correction=None if one.correction is None else self._wash(one.correction),
            comment=None if one.comment is None else self._wash(one.comment),
        )

    def _wash(self, text: str) -> str:
        """Without personal data, and without what no database takes: NUL and lone surrogates."""
        text = text.replace("\x00", "")
        if not text.isascii():
            text = text.encode("utf-8", "replace").decode("utf-8")
        return text if self.redact is None else self.redact(text)
