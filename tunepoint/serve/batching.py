"""Batches requests for arms in this process: those that wait together are answered together."""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunepoint.errors import ModelError
from tunepoint.files.machine import cores
from tunepoint.models.chat import Reply

if TYPE_CHECKING:
    from tunepoint.arms.contract import FittedArm

CORE_BATCH_INPUTS, CORE_BATCH_CHARACTERS = 6, 400
"""Limits of a batch on one core: larger ones answer no more requests a second (docs/log.md)."""
MACHINE_BATCH_INPUTS = 32
"""Limit of a batch that may use all cores, or a GPU."""
CLOSED = "the arm is closing"

_Result = tuple[Reply, float] | Exception


@dataclass(eq=False, slots=True)
class _Waiting:
    """An input, and the future that its caller awaits."""

    input: str
    future: asyncio.Future[tuple[Reply, float]]

    def resolve(self, result: _Result) -> None:
        """Hand the result over, in the caller's event loop; a caller that has gone gets nothing."""
        if self.future.done():
            return
        if isinstance(result, Exception):
            self.future.set_exception(result)
        else:
            self.future.set_result(result)


class MicroBatcher:
    """Threads that answer batches: several on one core each, or a single one that may use the machine.

    Nobody waits for a batch to fill: the next one gathers while the others are answered, and a lone request
    is a batch of one. First come, first served. Each thread takes its next batch by itself: a detour by
    the event loop would leave its core idle.

    Args:
        threads: batches that are answered at the same time.
        max_inputs: of one batch; if None, what `threads` can use.
        capacity: inputs that may wait.

    """

    def __init__(
        self, fitted: FittedArm, *, threads: int = 1, max_inputs: int | None = None, capacity: int = 1_024
    ) -> None:
        self.fitted, self.threads, self.capacity = fitted, threads, capacity
        one_core_each = threads > 1
        self.max_inputs = max_inputs or (CORE_BATCH_INPUTS if one_core_each else MACHINE_BATCH_INPUTS)
        self.max_characters = CORE_BATCH_CHARACTERS if one_core_each else math.inf
        # A thread on one core knows its own time; one that may use all cores is charged for all of them.
        self._clock = time.thread_time if one_core_each else time.perf_counter
        self._cores_used = 1 if one_core_each else cores()
        self._waiting: deque[_Waiting] = deque()
        self._changed = threading.Condition()
        self._running: list[threading.Thread] = []
        self._closed = False

    async def answer(self, text: str) -> tuple[Reply, float]:
        """Return the reply, and its share of the batch's core seconds.

        Raises:
            BlockingIOError: too many inputs wait already, or the batcher is closed.

        """
        loop = asyncio.get_running_loop()
        waiting = _Waiting(text, loop.create_future())
        with self._changed:
            if self._closed:
                raise BlockingIOError(CLOSED)
            if len(self._waiting) >= self.capacity:
                raise BlockingIOError(f"{self.capacity} requests are waiting already")
            self._waiting.append(waiting)
        # Not at once: requests that arrive in this turn of the event loop join the batch.
        loop.call_soon(self._wake_thread)
        return await waiting.future

    def _wake_thread(self) -> None:
        """Notify a thread, after starting one if not all run yet."""
        with self._changed:
            if len(self._running) < self.threads:
                name = f"arm_{len(self._running)}"
                self._running.append(threading.Thread(target=self._run, name=name, daemon=True))
                self._running[-1].start()
            self._changed.notify()

    def _run(self) -> None:
        """Answer batches until closed."""
        if self.threads > 1:
            _limit_torch_to_one_core()
        while batch := self._next_batch():
            started = self._clock()
            try:
                replies = list(self.fitted.answer([waiting.input for waiting in batch]))
                if len(replies) != len(batch):
                    raise ModelError(f"{len(replies)} replies to {len(batch)} inputs")
            except Exception as error:  # the arm's fault is its callers'; the thread goes on
                _resolve(batch, [error] * len(batch))
                continue
            share = (self._clock() - started) * self._cores_used / len(batch)
            _resolve(batch, [(reply, share) for reply in replies])

    def _next_batch(self) -> list[_Waiting]:
        """Wait for inputs and take those that have waited longest; empty once closed."""
        batch: list[_Waiting] = []
        characters = 0
        with self._changed:
            while not batch and not self._closed:
                while self._waiting and len(batch) < self.max_inputs:
                    first = self._waiting[0]
                    if batch and characters + len(first.input) > self.max_characters:
                        break
                    self._waiting.popleft()
                    if not first.future.done():  # otherwise its caller has gone
                        batch.append(first)
                        characters += len(first.input)
                if not batch:
                    self._changed.wait()
        return batch

    def close(self) -> None:
        """End the threads after their current batches; inputs that still wait get an error."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            abandoned = list(self._waiting)
            self._waiting.clear()
        _resolve(abandoned, [BlockingIOError(CLOSED)] * len(abandoned))


def _resolve(batch: Sequence[_Waiting], results: Sequence[_Result]) -> None:
    """Hand the results of a batch over, in one turn of each event loop."""

    def resolve_in(loop: asyncio.AbstractEventLoop) -> None:
        for waiting, result in zip(batch, results, strict=True):
            if waiting.future.get_loop() is loop:
                waiting.resolve(result)

    for loop in {waiting.future.get_loop() for waiting in batch}:
        with contextlib.suppress(RuntimeError):  # the loop is closed, and its callers with it
            loop.call_soon_threadsafe(resolve_in, loop)


def _limit_torch_to_one_core() -> None:
    """Keep torch on this thread's core: other batches run on the other cores."""
    with contextlib.suppress(ImportError):
        from tunepoint.models.encoder import use_one_thread

        use_one_thread()
