"""Circuit breakers: an arm that keeps failing is left alone for a while."""

from __future__ import annotations

import time
from collections.abc import Callable

FAILURES_TO_OPEN, OPEN_SECONDS = 5, 10.0
"""Failures in a row after which an arm is paused, and for how long."""
MAX_OPEN_SECONDS = 300.0
"""The longest pause that a server can ask for."""


class Breaker:
    """A circuit breaker: pauses an arm that keeps failing.

    Closed, it lets every request through; after several failures in a row it opens and lets none through;
    when the pause is over, one probe is let through, and its outcome closes or opens it again. Time is
    monotonic, so that setting the clock moves nothing.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures = 0
        self._until = 0.0
        self._probing = False

    @property
    def opened(self) -> bool:
        """Whether the arm is paused."""
        return self._clock() < self._until

    def allows(self) -> bool:
        """Whether to call the arm; a yes may be the one probe, so the call has to be made."""
        if self._failures < FAILURES_TO_OPEN and self._until <= self._clock():
            return True
        if self._clock() < self._until or self._probing:
            return False
        self._probing = True
        return True

    def succeeded(self) -> None:
        """Note that the arm has answered."""
        self._failures, self._until, self._probing = 0, 0.0, False

    def failed(self, wait: float | None = None) -> None:
        """Note that the arm has failed; `wait` is the pause in seconds that its server asked for."""
        self._failures += 1
        self._probing = False
        if wait is not None:
            self._until = self._clock() + min(wait, MAX_OPEN_SECONDS)
        elif self._failures >= FAILURES_TO_OPEN:
            self._until = self._clock() + OPEN_SECONDS

    def abandoned(self) -> None:
        """Note that a request ended without telling anything about the arm: its client disconnected."""
        self._probing = False
