"""Arms that answer in this process: requests that come together are answered together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tunepoint.arms import FittedArm
from tunepoint.models.chat import Reply

TOGETHER = 8
"""Inputs of similar length that an arm gets at once."""


@dataclass
class _Waiting:
    input: str
    done: asyncio.Future[tuple[Reply, float]]


class MicroBatcher:
    """One thread that answers batches, in the order in which they came.

    Nobody waits for a batch to fill: while one is answered the next gathers, and a lone request is a
    batch of one.

    Args:
        most: inputs of one batch.
        capacity: inputs that wait at most.

    """

    def __init__(self, fitted: FittedArm, *, most: int = 32, capacity: int = 1_024) -> None:
        self.fitted, self.most, self.capacity = fitted, most, capacity
        self._waiting: list[_Waiting] = []
        self._working = False
        self._task: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="arm")

    async def answer(self, text: str) -> tuple[Reply, float]:
        """The reply, and the seconds of its share of the batch.

        Raises:
            BlockingIOError: too many wait already.

        """
        if len(self._waiting) >= self.capacity:
            raise BlockingIOError(f"{self.capacity} requests wait already")
        loop = asyncio.get_running_loop()
        one = _Waiting(text, loop.create_future())
        self._waiting.append(one)
        if not self._working:
            self._working = True
            self._task = loop.create_task(self._work())
        return await one.done

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                await asyncio.sleep(0)  # those that came with it in one turn of the loop come along
                batch = [one for one in self._waiting[: self.most] if not one.done.done()]
                del self._waiting[: self.most]
                if not batch:
                    continue
                try:
                    replies, seconds = await loop.run_in_executor(
                        self._thread, self._answer, [one.input for one in batch]
                    )
                except Exception as error:
                    for one in batch:
                        if not one.done.done():
                            one.done.set_exception(error)
                    continue
                for one, reply in zip(batch, replies, strict=True):
                    if not one.done.done():
                        one.done.set_result((reply, seconds / len(batch)))
        finally:
            self._working = False

    def _answer(self, inputs: Sequence[str]) -> tuple[list[Reply], float]:
        """Replies in the order of the inputs; short ones are answered apart from long ones.

        A batch is padded to its longest input: 32 messages of 8 to 100 words at once take half as long
        again as the same in eights by length (docs/log.md).
        """
        started = time.perf_counter()
        order = sorted(range(len(inputs)), key=lambda place: len(inputs[place]))
        replies: dict[int, Reply] = {}
        for start in range(0, len(order), TOGETHER):
            some = order[start : start + TOGETHER]
            answered = self.fitted.answer([inputs[place] for place in some])
            replies.update(zip(some, answered, strict=True))
        return [replies[place] for place in range(len(inputs))], time.perf_counter() - started

    def close(self) -> None:
        """End the thread once its batch is done."""
        self._thread.shutdown(wait=False, cancel_futures=True)
