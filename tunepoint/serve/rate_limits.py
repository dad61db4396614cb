"""Rate limits of API keys, which all processes share."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from math import inf

from tunepoint.capture.sharing import take_tokens
from tunepoint.capture.store import Store
from tunepoint.errors import StoreError

AHEAD_SECONDS = 1.0
"""How much of a limit a process takes from the store at once: a limit of 600 a minute comes by tens."""
STORE_SECONDS = 5.0
"""How long a call waits for the store before this process counts alone."""
AWAY_SECONDS, MAX_AWAY_SECONDS = 5.0, 60.0
"""How long the store is left alone after it did not reply in time; doubles each time, up to the second."""


@dataclass
class _Bucket:
    """One limit, as this process knows it."""

    left: int = 0
    """Requests that were taken from the store and not used yet."""
    tokens: float = inf
    """What is left if this process counts alone, as of `at`; as much as the limit at first."""
    at: float = 0.0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class RateLimits:
    """Token buckets in the store; a bucket holds a minute's requests and refills evenly.

    A process takes a second's requests at once, so that most calls do not wait for the store. So a key may
    pass its limit by a second's requests for each process. While the store is away, each counts alone.

    Args:
        store: of the buckets.
        clock: seconds, monotonic.

    """

    def __init__(self, store: Store, clock: Callable[[], float] = time.monotonic) -> None:
        self.store = store
        self._clock = clock
        self._buckets: dict[str, _Bucket] = defaultdict(_Bucket)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rates")
        self._away_until = -inf
        self._away_seconds = AWAY_SECONDS

    async def take(self, name: str, per_minute: int) -> float:
        """Take one request from a bucket.

        Returns:
            0 if it was there; else the seconds until the next one is.

        """
        bucket = self._buckets[name]
        async with bucket.lock:  # those who wait for it use what the first of them brings
            if bucket.left <= 0 and self._clock() >= self._away_until:
                try:
                    wait = await self._from_store(bucket, name, per_minute)
                    self._away_seconds = AWAY_SECONDS
                    return wait
                except (StoreError, TimeoutError):
                    self._away_until = self._clock() + self._away_seconds
                    self._away_seconds = min(MAX_AWAY_SECONDS, 2 * self._away_seconds)
            if bucket.left > 0:
                bucket.left -= 1
                return 0.0
            return self._alone(bucket, per_minute)

    async def _from_store(self, bucket: _Bucket, name: str, per_minute: int) -> float:
        wanted = max(1, int(per_minute * AHEAD_SECONDS / 60))
        loop = asyncio.get_running_loop()
        taking = loop.run_in_executor(self._thread, take_tokens, self.store, {name: (wanted, per_minute)})
        async with asyncio.timeout(STORE_SECONDS):
            given = (await taking)[name]
        if given < 1:
            return _wait(given, per_minute)
        bucket.left = int(given) - 1
        return 0.0

    def _alone(self, bucket: _Bucket, per_minute: int) -> float:
        now = self._clock()
        refilled = max(0.0, now - bucket.at) * per_minute / 60
        bucket.tokens = min(float(per_minute), bucket.tokens + refilled)
        bucket.at = now
        if bucket.tokens < 1:
            return _wait(bucket.tokens, per_minute)
        bucket.tokens -= 1
        return 0.0

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def _wait(tokens: float, per_minute: int) -> float:
    """Return the seconds until a bucket with so little in it holds one request."""
    return (1 - tokens) * 60 / per_minute if per_minute else 60.0
