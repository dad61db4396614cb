"""How long the personal data of a text may be verified."""

from __future__ import annotations

import time
from collections.abc import Callable


class TimeBudget:
    """Seconds for the search of a text, counted from now; texts that belong together may share one.

    Patterns take linear time. What they propose is verified one by one (check digits, numbering plans), and
    that is what a hostile text makes long. After the budget, nothing is verified any more, and every longer
    number is removed: a text that takes too long loses too much, never too little.

    Args:
        seconds: until it is spent.
        clock: seconds that only grow.

    """

    def __init__(self, seconds: float = 0.5, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._end = clock() + seconds

    @property
    def spent(self) -> bool:
        """Whether nothing is verified any more."""
        return self._clock() >= self._end
