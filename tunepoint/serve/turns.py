"""Fair turns of the event loop: much work at once is spread, so that short requests get between."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal
from weakref import WeakKeyDictionary

LONG_BYTES = 8 * 2**10
"""What is longer takes turns. Typical requests and events are shorter, and pay nothing."""
Kind = Literal["body", "stream"]
_locks: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Kind, asyncio.Lock]] = WeakKeyDictionary()


@asynccontextmanager
async def turn(kind: Kind) -> AsyncIterator[None]:
    """Wait for a turn of the event loop in which nobody else does long work of this kind."""
    locks = _locks.setdefault(asyncio.get_running_loop(), {"body": asyncio.Lock(), "stream": asyncio.Lock()})
    async with locks[kind]:
        yield
        await asyncio.sleep(0)


class Pace:
    """Lets so many requests start in one turn of the event loop; a crowd starts in several.

    Args:
        per_turn: requests.

    """

    def __init__(self, per_turn: int) -> None:
        self._per_turn = self._room = per_turn
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def start(self) -> None:
        """Wait for a turn in which there is room, behind those who wait already."""
        loop = asyncio.get_running_loop()
        if self._room == self._per_turn:
            loop.call_soon(self._next_turn)
        if self._room and not self._waiting:
            self._room -= 1
            return
        waiting = loop.create_future()
        self._waiting.append(waiting)
        await waiting

    def _next_turn(self) -> None:
        self._room = self._per_turn
        while self._room and self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():  # its client may have left
                waiting.set_result(None)
                self._room -= 1
        if self._room < self._per_turn:
            asyncio.get_running_loop().call_soon(self._next_turn)
