"""Writes captured traffic to the store from its own thread, so that answers never wait for it."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from tunepoint.capture.cleaning import cleaned, cleaned_feedback
from tunepoint.capture.records import CapturedRequest, Feedback, characters, without_content
from tunepoint.capture.redaction import Redactor
from tunepoint.capture.spool import Spool
from tunepoint.errors import RefusedRow, StoreError

log = logging.getLogger(__name__)
FIRST_RETRY_SECONDS, MAX_RETRY_SECONDS = 0.1, 5.0
"""Wait before an unavailable store is tried again; doubles each time, up to the second."""
LAST_RETRY_SECONDS = 1.0
"""While closing, an unavailable store is given up once the wait would be longer than this."""
MAX_WAITING_CHARACTERS = 16 * 2**20
"""Of texts that wait; with more, requests are kept without their texts."""
BATCH_CHARACTERS = 256 * 2**10
"""Of texts, after which a batch takes no more requests: what waits for it waits for their redaction too."""
_PendingFeedback = tuple[Feedback, "Future[None]"]


class Sink(Protocol):
    """Takes batches: a store."""

    def add(self, requests: Sequence[CapturedRequest] = ..., feedback: Sequence[Feedback] = ...) -> None:
        """Write both, or write nothing and raise a StoreError."""
        ...


@dataclass
class Counts:
    """What became of captured requests."""

    written: int = 0
    dropped: int = 0
    """Requests pushed out of a full buffer while the store was away, the oldest first."""
    refused: int = 0
    """Requests that the store rejected, one by one."""
    shortened: int = 0
    """Requests written without their texts: longer ones came than can be redacted in time."""
    failing: bool = False
    """Whether the last batch could not be written."""


class Writer:
    """Batches requests and feedback for the store.

    A request is in memory for `linger` seconds and the writing of its batch: that much is lost if the
    process is killed, and nothing if it is asked to stop (`close`). Feedback is acknowledged only when it
    is written.

    Args:
        redact: removes personal data before anything is written; None keeps it.
        spool: keeps requests on disk while the store is away; None keeps them in memory.
        capacity: requests that may wait while the store is away; then the oldest are dropped.
        batch: requests of one transaction, at most.
        linger: seconds in which a batch gathers.

    """

    def __init__(
        self,
        store: Sink,
        redact: Redactor | None,
        spool: Spool | None = None,
        *,
        capacity: int = 20_000,
        batch: int = 1_000,
        linger: float = 0.05,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self.store, self.redact, self.spool = store, redact, spool
        self.capacity, self.batch, self.linger = capacity, batch, linger
        self.counts = Counts()
        self._pause = pause
        self._requests: deque[CapturedRequest] = deque()
        self._feedback: deque[_PendingFeedback] = deque()
        self._acknowledgements: dict[str, Future[None]] = {}
        """Id of a request that somebody waits for -> done when it is written."""
        self._wake = threading.Event()
        self._characters_put = self._characters_done = 0
        """Of texts, since the start; each is changed by one thread only."""
        self._hurry = False
        """Whether there is no time left to redact texts."""
        self._in_hand = 0
        """Requests of the batch that is being written."""
        self._closing = self._closed = False
        self._thread = threading.Thread(target=self._run, name="capture", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Requests that are not written yet, including the batch that is being written."""
        return len(self._requests) + self._in_hand

    @property
    def waiting_characters(self) -> int:
        """Of the texts of requests that are not written yet."""
        return self._characters_put - self._characters_done

    @property
    def spooled(self) -> int:
        """Requests that wait on disk for the store."""
        return 0 if self.spool is None else self.spool.waiting

    def put(self, request: CapturedRequest) -> None:
        """Take a request and return at once; after `close` it is dropped, and counted as such."""
        if self._closed:
            self.counts.dropped += 1
            return
        if self.waiting >= self.capacity:
            try:
                dropped = self._requests.popleft()
                self.counts.dropped += 1
                self._characters_put -= characters(dropped)
                self._acknowledge([dropped], StoreError("the store is away, and too many requests wait"))
            except IndexError:  # the thread has just taken them all
                pass
        size = characters(request)
        if self.waiting_characters + size > MAX_WAITING_CHARACTERS:
            request = self._shortened(request)
            size = characters(request)
        self._characters_put += size
        self._requests.append(request)
        if not self._wake.is_set():  # cheaper than setting it: that takes a lock
            self._wake.set()

    def _shortened(self, request: CapturedRequest) -> CapturedRequest:
        self.counts.shortened += 1
        return without_content(request)

    def put_acknowledged(self, request: CapturedRequest) -> Future[None]:
        """Take a request that is written without lingering; the future is done when it is, or fails."""
        written: Future[None] = Future()
        self._acknowledgements[request.id] = written
        self.put(request)
        if self._closed:
            self._acknowledge([request], StoreError("the store is closed"))
        return written

    def put_feedback(self, feedback: Feedback) -> Future[None]:
        """Take feedback; the future is done when it is written, or fails with a StoreError."""
        written: Future[None] = Future()
        if self._closed:
            written.set_exception(StoreError("the store is closed; send the feedback again later"))
            return written
        self._feedback.append((feedback, written))
        self._wake.set()
        return written

    def close(self, patience: float = 30.0) -> int:
        """Write what waits; return how many requests could not be written within `patience` seconds.

        Texts that take longer than half of it are left out: who answered, and what it cost, is kept.
        """
        self._closing = True
        self._wake.set()
        self._thread.join(patience / 2)
        self._hurry = True
        self._thread.join(patience / 2)
        self._closed = True
        if self.spool is not None and not self._thread.is_alive():
            with suppress(OSError):  # whoever takes the file over later closes it
                self.spool.close()
        while self._feedback:
            _, written = self._feedback.popleft()
            if written.set_running_or_notify_cancel():
                written.set_exception(
                    StoreError("the store closed before the feedback was written; send it again later")
                )
        return self.waiting

    # -- in the thread -----------------------------------------------------------------------------

    def _run(self) -> None:
        """Write batches until closed and empty, or closed while the store stays away."""
        retry = FIRST_RETRY_SECONDS
        self._wake_for_spooled()
        while True:
            self._wake.wait()
            awaited = self._feedback or self._acknowledgements
            if not self._closing and not awaited and not self.counts.failing:
                self._pause(self.linger)
            # Cleared before the batch is taken: what arrives from now on wakes the thread again.
            self._wake.clear()
            if self._write_next():
                retry = FIRST_RETRY_SECONDS
            elif self._closing and retry > LAST_RETRY_SECONDS:
                return
            else:
                self._pause(retry)
                retry = min(MAX_RETRY_SECONDS, retry * 2)
                self._wake.set()
                continue
            # What is on disk when the writer closes is safe there.
            if self._requests or self._feedback or (self.spooled and not self._closing):
                self._wake.set()
            elif self._closing:
                return

    def _wake_for_spooled(self) -> None:
        """Begin with what a process before this one has left on disk, if it was killed."""
        if self.spool is not None:
            with suppress(OSError):  # the folder is looked at again with each batch
                if self.spool.next(1):
                    self._wake.set()

    def _write_next(self) -> bool:
        """Write a batch of what waits in memory, and one of what waits on disk; False if either cannot be.

        This thread has to live as long as the process, so no fault ends it.
        """
        try:
            return self._write_batch() and self._write_spooled()
        except Exception:
            log.exception("capturing failed; it is tried again")
            self._note_failing("an error that the log describes")
            return False

    def _note_failing(self, why: object) -> None:
        """Note that captures do not reach the store, and log it once."""
        if not self.counts.failing:
            log.error("captured requests cannot be written (%s); they wait until they can", why)
        self.counts.failing = True

    def _note_written(self, written: int, refused: int) -> None:
        if self.counts.failing:
            log.warning("captured requests are written again")
        self.counts.failing = False
        self.counts.written += written
        self.counts.refused += refused

    def _write_spooled(self) -> bool:
        """Write a batch of what waits on disk; False if the store is away again, or the disk is at fault."""
        if self.spool is None or self._closing:
            return True  # what is on disk is safe there
        try:
            requests = self.spool.next(self.batch)
            if requests:
                self._note_written(*self._write(requests, (), clean=False))
                self.spool.remove(len(requests))
        except (StoreError, OSError) as error:
            self._note_failing(error)
            return False
        return True

    def _spool(self, requests: list[CapturedRequest]) -> list[CapturedRequest]:
        """Keep requests on disk, and all that wait; return those for which there is no room."""
        left: list[CapturedRequest] = requests
        while self.spool is not None and left:
            clean = [self._cleaned(request) for request in left]
            try:
                kept = self.spool.add(clean)
            except OSError:
                return left
            self._acknowledge(left[:kept], StoreError("the store is away; the request is kept on disk"))
            self._characters_done += sum(map(characters, left[:kept]))
            left = left[kept:]
            if left:
                return left
            left = self._take_requests()
        return left

    def _write_batch(self) -> bool:
        """Write one batch; False if the store is away, and then its requests wait again."""
        taken = [self._feedback.popleft() for _ in range(len(self._feedback))]
        feedback = [(entry, written) for entry, written in taken if written.set_running_or_notify_cancel()]
        requests = self._take_requests()
        try:
            written, refused = self._write(requests, feedback)
        except StoreError as error:
            for _, acknowledged in feedback:
                if not acknowledged.done():
                    acknowledged.set_exception(error)
            # Some may be written already; the store ignores an id that it has.
            self._requests.extendleft(reversed(self._spool(requests)))
            self._note_failing(error)
            return False
        except BaseException:
            self._requests.extendleft(reversed(requests))
            raise
        finally:
            self._in_hand = 0
        self._characters_done += sum(map(characters, requests))
        self._note_written(written, refused)
        return True

    def _take_requests(self) -> list[CapturedRequest]:
        requests: list[CapturedRequest] = []
        size = 0
        while self._requests and len(requests) < self.batch and size < BATCH_CHARACTERS:
            self._in_hand += 1  # before it leaves the queue: `put` counts both
            try:
                requests.append(self._requests.popleft())
            except IndexError:  # `put` has just dropped the last one
                self._in_hand -= 1
                break
            size += characters(requests[-1])
        return requests

    def _write(
        self,
        requests: Sequence[CapturedRequest],
        feedback: Sequence[_PendingFeedback],
        *,
        clean: bool = True,
    ) -> tuple[int, int]:
        """Write everything at once, or row by row if the store rejects one: the others are kept.

        Args:
            requests: to be written.
            feedback: to be written, with those who wait for it.
            clean: whether they have to be cleaned; what was on disk is clean already.

        Returns:
            How many requests were written, and how many were rejected.

        Raises:
            StoreError: the store is away.

        """
        try:
            rows = [self._cleaned(request) for request in requests] if clean else requests
            self.store.add(rows, [self._cleaned_feedback(entry) for entry, _ in feedback])
        except StoreError as error:
            if not isinstance(error, RefusedRow):
                raise
        except Exception:  # a row that cannot even be cleaned: find out which
            pass
        else:
            for _, written in feedback:
                written.set_result(None)
            self._acknowledge(requests)
            return len(requests), 0
        refused = 0
        for request in requests:
            rejection = _rejection(partial(self._add_request, request))
            refused += rejection is not None
            self._acknowledge([request], rejection)
        for entry, written in feedback:
            rejection = _rejection(partial(self._add_feedback, entry))
            written.set_result(None) if rejection is None else written.set_exception(rejection)
        return len(requests) - refused, refused

    def _acknowledge(self, requests: Sequence[CapturedRequest], fault: StoreError | None = None) -> None:
        """Tell those who wait for these requests that they are written, or why they are not."""
        for request in requests if self._acknowledgements else ():
            written = self._acknowledgements.pop(request.id, None)
            if written is not None and written.set_running_or_notify_cancel():
                written.set_result(None) if fault is None else written.set_exception(fault)

    def _add_request(self, request: CapturedRequest) -> None:
        self.store.add([self._cleaned(request)], [])

    def _add_feedback(self, feedback: Feedback) -> None:
        self.store.add([], [self._cleaned_feedback(feedback)])

    def _cleaned(self, request: CapturedRequest) -> CapturedRequest:
        return cleaned(self._shortened(request) if self._hurry else request, self.redact)

    def _cleaned_feedback(self, feedback: Feedback) -> Feedback:
        return cleaned_feedback(feedback, self.redact)


def _rejection(add: Callable[[], None]) -> RefusedRow | None:
    """Write one row; return why it was rejected, None if it was written.

    Raises:
        StoreError: the store is away.

    """
    try:
        add()
    except RefusedRow as error:
        return error
    except StoreError:
        raise
    except Exception as error:
        return RefusedRow(f"a row cannot be written ({type(error).__name__})")
    return None
