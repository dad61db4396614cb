"""Fair turns of the event loop: much work at once is spread, so that short requests get between."""

from __future__ import annotations

import asyncio
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
        self._per_turn = per_turn
        self._started = 0

    async def start(self) -> None:
        """Wait for a turn in which there is room."""
        while self._started >= self._per_turn:
            await asyncio.sleep(0)
        if self._started == 0:
            asyncio.get_running_loop().call_soon(self._next_turn)
        self._started += 1

    def _next_turn(self) -> None:
        self._started = 0
