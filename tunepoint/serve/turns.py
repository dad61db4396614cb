"""Long pieces of work on the event loop: one in each of its turns, so that short requests get between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakKeyDictionary

LONG_BYTES = 8 * 2**10
"""What is longer takes turns. Typical requests and events are shorter, and pay nothing."""
_locks: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()


@asynccontextmanager
async def turn() -> AsyncIterator[None]:
    """Wait for a turn of the event loop in which nobody else does long work."""
    lock = _locks.setdefault(asyncio.get_running_loop(), asyncio.Lock())
    async with lock:
        yield
        await asyncio.sleep(0)
