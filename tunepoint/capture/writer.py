"""Captured traffic goes to the store in a thread of its own: the answer never waits for it."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

from tunepoint.capture.records import CapturedRequest, Feedback
from tunepoint.capture.redaction import Redactor, redacted
from tunepoint.errors import RefusedRow, StoreError


class Sink(Protocol):
    """What takes batches: a store."""

    def add(self, requests: Sequence[CapturedRequest] = ..., feedback: Sequence[Feedback] = ...) -> None:
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
        self._requests: deque[CapturedRequest] = deque()
        self._feedback: deque[tuple[Feedback, Future[None]]] = deque()
        self._wake = threading.Event()
        self._in_hand = 0
        self._ending = self._ended = False
        self._thread = threading.Thread(target=self._run, name="capture", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Requests that are not written yet, those in hand among them."""
        return len(self._requests) + self._in_hand

    def put(self, request: CapturedRequest) -> None:
        """Take a request; returns at once. After `close` it is dropped, and counted so."""
        if self._ended:
            self.counts.dropped += 1
            return
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
        if self._ended:
            done.set_exception(StoreError("the store is closed: say it again later"))
            return done
        self._feedback.append((feedback, done))
        self._wake.set()
        return done

    def close(self, patience: float = 30.0) -> int:
        """Write what waits; how many requests could not be written within so many seconds."""
        self._ending = True
        self._wake.set()
        self._thread.join(patience)
        self._ended = True
        while self._feedback:
            _, done = self._feedback.popleft()
            if done.set_running_or_notify_cancel():
                done.set_exception(
                    StoreError("the store was closed before it was written: say it again later")
                )
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
        taken = [self._feedback.popleft() for _ in range(len(self._feedback))]
        said = [(one, done) for one, done in taken if done.set_running_or_notify_cancel()]
        batch: list[CapturedRequest] = []
        while self._requests and len(batch) < self.batch:
            try:
                batch.append(self._requests.popleft())
            except IndexError:
                break
        self._in_hand = len(batch)
        try:
            written, refused = self._write(batch, said)
        except StoreError as error:
            for _, done in said:
                if not done.done():
                    done.set_exception(error)
            self._requests.extendleft(reversed(batch))  # those that were written stay as they are
            self.counts.failing = True
            return False
        finally:
            self._in_hand = 0
        self.counts.written += written
        self.counts.refused += refused
        self.counts.failing = False
        return True

    def _write(
        self, batch: Sequence[CapturedRequest], said: Sequence[tuple[Feedback, Future[None]]]
    ) -> tuple[int, int]:
        """Write all at once, or one by one where the store refuses one: it keeps no other out.

        Returns:
            How many requests were written, and how many were refused.

        """
        try:
            clean = [self._cleaned(one) for one in batch]
            self.store.add(clean, [self._worded(one) for one, _ in said])
        except StoreError as error:
            if not isinstance(error, RefusedRow):
                raise
        except Exception:  # a row that cannot even be cleaned
            pass
        else:
            for _, done in said:
                done.set_result(None)
            return len(batch), 0
        refused = sum(self._refuses(partial(self._add_request, one)) is not None for one in batch)
        for one, done in said:
            fault = self._refuses(partial(self._add_feedback, one))
            done.set_result(None) if fault is None else done.set_exception(fault)
        return len(batch) - refused, refused

    def _add_request(self, request: CapturedRequest) -> None:
        self.store.add([self._cleaned(request)], [])

    def _add_feedback(self, one: Feedback) -> None:
        self.store.add([], [self._worded(one)])

    def _refuses(self, add: Callable[[], None]) -> RefusedRow | None:
        """Why one row is not taken; None if it was. A store that is away raises."""
        try:
            add()
        except StoreError as error:
            if isinstance(error, RefusedRow):
                return error
            raise
        except Exception as error:
            return RefusedRow(f"a row cannot be written ({type(error).__name__})")
        return None

    def _cleaned(self, request: CapturedRequest) -> CapturedRequest:
        wash = self._wash
        names: dict[str, Any] = {name: _plain(value) for name in _NAMES if (value := getattr(request, name))}
        return replace(
            request,
            **names,
            input=wash(request.input),
            output=wash(request.output),
            answer=None if request.answer is None else wash(request.answer),
            error=None if request.error is None else wash(request.error),
            messages=None if request.messages is None else redacted(request.messages, wash),
            parameters=redacted(request.parameters, wash),
        )

    def _worded(self, one: Feedback) -> Feedback:
        return replace(
            one,
            request=_plain(one.request),
            key=None if one.key is None else _plain(one.key),
            correction=None if one.correction is None else self._wash(one.correction),
            comment=None if one.comment is None else self._wash(one.comment),
        )

    def _wash(self, text: str) -> str:
        """Without personal data, and without what no database takes."""
        text = _plain(text)
        return text if self.redact is None else self.redact(text)


_NAMES = ("id", "task", "arm", "model", "slice", "user", "key", "copy_of", "origin", "licence")


def _plain(text: str) -> str:
    """Without NUL and lone surrogates, which no database takes."""
    text = text.replace("\x00", "")
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
