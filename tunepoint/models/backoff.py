"""How long to wait before the next attempt of a call: what the server asks for, else a random backoff."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping

from tunepoint.errors import ModelError

MAX_WAIT_SECONDS = 120.0
"""A server that asks for a longer wait is an error: whoever started the run should decide."""


def backoff(attempt: int, pause: float = 1.0) -> float:
    """Return the seconds to wait after attempt number `attempt`, counted from 0.

    The wait doubles with each attempt, so that an overloaded server gets room to recover.
    """
    # A quarter of it is random: calls that failed together do not all come back together.
    return float(pause * 2.0**attempt * random.uniform(0.75, 1.0))


def wait_after_rate_limit(
    name: str, headers: Mapping[str, str], attempt: int, *, pause: float = 1.0
) -> float:
    """Return the seconds to wait after HTTP 429: those of Retry-After, else the backoff.

    Args:
        name: of the model or provider, for the error.
        headers: of the response.
        attempt: number of the attempt that failed, counted from 0.
        pause: seconds of the first backoff.

    Raises:
        ModelError: the server asks for more than two minutes.

    """
    seconds = _retry_after(headers)
    if seconds > MAX_WAIT_SECONDS:
        raise ModelError(
            f"{name}: the server asks to wait {seconds:.0f} s, and Tunepoint waits at most "
            f"{MAX_WAIT_SECONDS:.0f} s. What was done so far is kept: run again later"
        )
    return seconds if seconds > 0 else backoff(attempt, pause)


def _retry_after(headers: Mapping[str, str]) -> float:
    """Seconds of the Retry-After header; 0 where there is none, or a date instead of a number."""
    # OpenAI and Azure send milliseconds as well, which are more precise.
    for header, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            value = float(headers.get(header, ""))
        except ValueError:
            continue
        if math.isfinite(value) and value >= 0:
            return value * unit
    return 0.0
