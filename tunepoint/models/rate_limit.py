"""How many calls at once: as many as the server allows, found out while calling."""

from __future__ import annotations

import asyncio
import time

SECONDS_BETWEEN_HALVINGS = 1.0
"""Calls that were sent together are throttled together, and must not halve the width several times."""


class ConcurrencyLimiter:
    """A gate whose width falls when the server throttles, and grows again with success.

    Additive increase, multiplicative decrease (Chiu and Jain 1989): the width is halved at a
    rate limit, at most once a second, and grows by one for every width's worth of answers.
    """

    def __init__(self, max_width: int) -> None:
        self.max_width = max_width
        self.width = float(max_width)
        self._inside = 0
        self._closed_until = 0.0
        self._last_halved = 0.0
        self._changed = asyncio.Condition()

    async def __aenter__(self) -> None:
        # A loop: the gate may be closed for longer while this call sleeps.
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
        """Widen the gate a little after an answer."""
        if self.width < self.max_width:
            self.width = min(float(self.max_width), self.width + 1 / self.width)

    def throttled(self, seconds: float) -> None:
        """Halve the gate after a rate limit, and close it for the wait that the server asks for."""
        now = time.monotonic()
        self._closed_until = max(self._closed_until, now + seconds)
        if now - self._last_halved > SECONDS_BETWEEN_HALVINGS:
            self._last_halved = now
            self.width = max(1.0, self.width / 2)
