"""Arms that answer in this process: requests that come together are answered together."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from tunepoint.arms import FittedArm
from tunepoint.models.chat import Reply

TOGETHER = 8
"""Inputs that an arm gets at once, at most."""
ALIKE = 0.6
"""Of the longest input of a batch: the shortest is no shorter, or nearly all of it would be padding."""
ENOUGH = 800
"""Characters of a batch, padded: a larger one takes longer and answers no more in a second (docs/log.md)."""
SHORT = 40
"""Characters up to which inputs are of one length."""


@dataclass
class _Waiting:
    input: str
    done: asyncio.Future[tuple[Reply, float]]

    @property
    def length(self) -> int:
        return max(SHORT, len(self.input))


class MicroBatcher:
    """Threads that answer batches, each on one core.

    Nobody waits for a batch to fill: while batches are answered the next one gathers, and a lone request is
    a batch of one. A batch is the request that has waited longest and those most like it in length.

    Args:
        threads: batches that are answered at the same time.
        most: inputs of one batch.
        capacity: inputs that wait at most.

    """

    def __init__(
        self, fitted: FittedArm, *, threads: int = 1, most: int = TOGETHER, capacity: int = 1_024
    ) -> None:
        self.fitted, self.threads, self.most, self.capacity = fitted, threads, most, capacity
        self._waiting: list[_Waiting] = []
        self._workers: set[asyncio.Task[Any] | None] = set()
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="arm", initializer=_on_one_core)

    async def answer(self, text: str) -> tuple[Reply, float]:
        """The reply, and the processor seconds of its share of the batch.

        Raises:
            BlockingIOError: too many wait already.

        """
        if len(self._waiting) >= self.capacity:
            raise BlockingIOError(f"{self.capacity} requests wait already")
        loop = asyncio.get_running_loop()
        one = _Waiting(text, loop.create_future())
        self._waiting.append(one)
        if len(self._workers) < self.threads:
            self._workers.add(loop.create_task(self._work()))
        return await one.done

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            await asyncio.sleep(0)  # those that came with it in one turn of the loop come along
            while batch := self._next():
                try:
                    replies, seconds = await loop.run_in_executor(
                        self._threads, self._answer, [one.input for one in batch]
                    )
                except Exception as error:
                    for one in batch:
                        if not one.done.done():
                            one.done.set_exception(error)
                    continue
                for one, reply in zip(batch, replies, strict=True):
                    if not one.done.done():
                        one.done.set_result((reply, seconds / len(batch)))
        finally:  # at once: whoever asks next sees that this worker is gone
            self._workers.discard(asyncio.current_task())

    def _next(self) -> list[_Waiting]:
        """The request that has waited longest, with those most like it in length; empty if none waits."""
        self._waiting = [one for one in self._waiting if not one.done.done()]  # callers that went away
        if not self._waiting:
            return []
        first = self._waiting[0]
        batch, shortest, longest = [first], first.length, first.length
        for one in sorted(self._waiting[1:], key=lambda other: abs(other.length - first.length)):
            shortest, longest = min(shortest, one.length), max(longest, one.length)
            size = (len(batch) + 1) * longest
            if len(batch) == self.most or size > ENOUGH or shortest < ALIKE * longest:
                break
            batch.append(one)
        taken = {id(one) for one in batch}
        self._waiting = [one for one in self._waiting if id(one) not in taken]
        return batch

    def _answer(self, inputs: Sequence[str]) -> tuple[list[Reply], float]:
        """Replies in the order of the inputs, and the processor time of this thread."""
        started = time.thread_time()
        return self.fitted.answer(inputs), time.thread_time() - started

    def close(self) -> None:
        """End the threads once their batches are done."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _on_one_core() -> None:
    """Keep what this thread computes on this thread: another batch is on the other core."""
    with contextlib.suppress(ImportError):
        import torch

        torch.set_num_threads(1)
