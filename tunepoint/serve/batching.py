"""Arms that answer in this process: requests that come together are answered together."""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from tunepoint.arms.contract import FittedArm
from tunepoint.errors import ModelError
from tunepoint.files.machine import cores
from tunepoint.models.chat import Reply

TOGETHER, ENOUGH = 6, 400
"""Inputs and characters of a batch on one core: a larger one answers no more in a second (docs/log.md)."""
MOST = 32
"""Inputs of a batch that may use all cores, or a GPU."""

ENDS = "it ends"
_Found = tuple[Reply, float] | Exception


@dataclass(eq=False, slots=True)
class _Waiting:
    input: str
    done: asyncio.Future[tuple[Reply, float]]

    def end(self, found: _Found) -> None:
        """Tell the caller, if it is still there; in its event loop."""
        if self.done.done():
            return
        if isinstance(found, Exception):
            self.done.set_exception(found)
        else:
            self.done.set_result(found)


class MicroBatcher:
    """Threads that answer batches: several, each on one core, or one that may use all that there is.

    Nobody waits for a batch to fill: while batches are answered the next one gathers, and a lone request is
    a batch of one. Who came first is answered first. A thread takes its next batch by itself, without a
    turn of the event loop.

    Args:
        threads: batches that are answered at the same time.
        most: inputs of one batch; if None, what `threads` can use.
        capacity: inputs that wait at most.

    """

    def __init__(
        self, fitted: FittedArm, *, threads: int = 1, most: int | None = None, capacity: int = 1_024
    ) -> None:
        self.fitted, self.threads, self.capacity = fitted, threads, capacity
        self.most = most or (TOGETHER if threads > 1 else MOST)
        self.enough = ENOUGH if threads > 1 else math.inf
        # A thread on one core knows its own time; one that may use all is charged for all of them.
        self._clock, self._cores = (time.thread_time, 1) if threads > 1 else (time.perf_counter, cores())
        self._waiting: deque[_Waiting] = deque()
        self._changed = threading.Condition()
        self._running: list[threading.Thread] = []
        self._closed = False

    async def answer(self, text: str) -> tuple[Reply, float]:
        """The reply, and the processor seconds of its share of the batch.

        Raises:
            BlockingIOError: too many wait already, or it was closed.

        """
        loop = asyncio.get_running_loop()
        one = _Waiting(text, loop.create_future())
        with self._changed:
            if self._closed:
                raise BlockingIOError(ENDS)
            if len(self._waiting) >= self.capacity:
                raise BlockingIOError(f"{self.capacity} requests wait already")
            self._waiting.append(one)
        loop.call_soon(self._wake)  # those that come in this turn of the loop come along
        return await one.done

    def _wake(self) -> None:
        with self._changed:
            if len(self._running) < self.threads:
                name = f"arm_{len(self._running)}"
                self._running.append(threading.Thread(target=self._run, name=name, daemon=True))
                self._running[-1].start()
            self._changed.notify()

    def _run(self) -> None:
        """Answer batches until closed."""
        if self.threads > 1:
            _on_one_core()
        while batch := self._next():
            started = self._clock()
            try:
                replies = list(self.fitted.answer([one.input for one in batch]))
                if len(replies) != len(batch):
                    raise ModelError(f"{len(replies)} replies to {len(batch)} inputs")
            except Exception as error:
                _tell(batch, [error] * len(batch))
                continue
            share = (self._clock() - started) * self._cores / len(batch)
            _tell(batch, [(reply, share) for reply in replies])

    def _next(self) -> list[_Waiting]:
        """Those who have waited longest, once somebody waits; empty when closed."""
        batch: list[_Waiting] = []
        size = 0
        with self._changed:
            while not batch and not self._closed:
                while self._waiting and len(batch) < self.most:
                    one = self._waiting[0]
                    if batch and size + len(one.input) > self.enough:
                        break
                    self._waiting.popleft()
                    if not one.done.done():  # else its caller went away
                        batch.append(one)
                        size += len(one.input)
                if not batch:
                    self._changed.wait()
        return batch

    def close(self) -> None:
        """End the threads once their batches are done; who still waits is told so."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            left = list(self._waiting)
            self._waiting.clear()
        _tell(left, [BlockingIOError(ENDS)] * len(left))


def _tell(batch: Sequence[_Waiting], found: Sequence[_Found]) -> None:
    """Tell the callers of a batch, in one turn of their event loop."""

    def end_all(mine: asyncio.AbstractEventLoop) -> None:
        for one, what in zip(batch, found, strict=True):
            if one.done.get_loop() is mine:
                one.end(what)

    for loop in {one.done.get_loop() for one in batch}:
        with contextlib.suppress(RuntimeError):  # it has ended, and its callers with it
            loop.call_soon_threadsafe(end_all, loop)


def _on_one_core() -> None:
    """Keep what torch computes for this thread on it, since another batch is on the other core."""
    with contextlib.suppress(ImportError):
        from tunepoint.models.encoder import use_one_thread

        use_one_thread()
