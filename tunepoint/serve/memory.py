"""The memory that requests take: bodies of many clients at once, and what JSON becomes when it is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tunepoint.serve.protocol import RequestError

BYTES_PER_VALUE = 56
"""Of a value in Python's memory beside its text: an empty list or a small dictionary has that many."""
COPIES = 2
"""Of a body's bytes: as it came, or as text, and as it goes on to a server."""

ALWAYS_FREE_BYTES = 32 * 2**10
"""For each request: short ones are answered although long ones fill the memory."""

FEW_VALUES = 2_000
"""Up to so many marks in a body, they are counted without looking for strings around them."""
MANY_QUOTES = 40_000
"""Marks in the strings of a body with more quotes are counted too: taking so many apart would take long."""


class BodyMemory:
    """Counts the memory of all requests that are on their way.

    Args:
        limit: returns the bytes for all of them together, which a reload may change.

    """

    def __init__(self, limit: Callable[[], int]) -> None:
        self._limit = limit
        self.used = 0

    @property
    def limit(self) -> int:
        """Bytes for all requests together."""
        return self._limit()

    @contextmanager
    def share(self) -> Iterator[Share]:
        """Open the account of one request, which gives all back at its end."""
        share = Share(self)
        try:
            yield share
        finally:
            self.used -= share.used


class Share:
    """What one request takes."""

    def __init__(self, memory: BodyMemory) -> None:
        self._memory = memory
        self.used = 0

    def take(self, size: int) -> None:
        """Take more memory for a part of a body.

        Raises:
            RequestError: all requests together would take too much.

        """
        self._take(size * COPIES)

    def take_values(self, body: bytes) -> None:
        """Take what a body's JSON will need once it is read, before it is.

        Raises:
            RequestError: as `take`; or the body alone would take too much.

        """
        size = BYTES_PER_VALUE * _count_values(body)
        if self.used + size > self._memory.limit:
            raise RequestError(413, f"the body has too many values: they would take {size:,} bytes of memory")
        self._take(size)

    def _take(self, size: int) -> None:
        memory = self._memory
        if memory.used + size > memory.limit and self.used + size > ALWAYS_FREE_BYTES:
            raise RequestError(
                503, "other requests fill the memory; try again", kind="server_error", wait=1.0
            )
        self.used += size
        memory.used += size


def _count_values(body: bytes) -> int:
    """About how many values a JSON text has: commas and opening brackets, those in its strings left out.

    Takes some tens of milliseconds for 4 MiB, whatever the body holds.
    """
    count = _count_marks(body)
    if count <= FEW_VALUES:
        return count
    if b"\\" in body:  # escaped quotes neither begin nor end a string
        body = body.replace(rb"\\", b"").replace(rb"\"", b"")
    if body.count(b'"') > MANY_QUOTES:
        return count
    outside = b"".join(body.split(b'"')[::2])
    return _count_marks(outside)


def _count_marks(text: bytes) -> int:
    return len(text) - len(text.translate(None, b",[{"))
