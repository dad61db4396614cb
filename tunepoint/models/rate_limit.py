"""How many calls at once: as many as the server allows, found out while calling."""

from __future__ import annotations

import asyncio
import time


class ConcurrencyLimiter:
    """A gate whose width falls when the server throttles, and grows again with success.

    Additive increase, multiplicative decrease (Chiu and Jain 1989): the width is halved at a
    rate limit, at most once a second, and grows by one for every width's worth of answers.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.width = float(most)
        self._inside = 0
        self._closed_until = 0.0
        self._halved = 0.0
        self._changed = asyncio.Condition()

    async def __aenter__(self) -> None:
        while (pause := self._closed_until - time.monotonic()) > 0:
            await asyncio.sleep(pause)
        async with self._changed:
            await self._changed.wait_for(lambda: self._inside < int(self.width))
            self._inside += 1

    async def __aexit__(self, *_: object) -> None:
        async with self._changed:
            self._inside -= 1
            self._changed.notify()

    def succeeded(self) -> None:
        """An answer came: allow a little more."""
        if self.width < self.most:
            self.width = min(float(self.most), self.width + 1 / self.width)

    def throttled(self, wait: float) -> None:
        """The server asked to slow down: halve, and let nobody in for `wait` seconds."""
        now = time.monotonic()
        self._closed_until = max(self._closed_until, now + wait)
        if now - self._halved > 1.0:
            self._halved = now
            self.width = max(1.0, self.width / 2)
