"""How far a study is, for whoever watches it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """What a study does now, and what is behind it."""

    what: str
    """The arm that was measured, or the step that begins."""
    done: float
    """Work that is done, in the unit of `planned`."""
    planned: float
    """All work planned so far: estimated seconds of a study, or steps of a training."""
    calls: int = 0
    """Calls of paid models in this run."""
    calls_usd: float = 0.0
    """Dollars of all calls, those of earlier runs included."""

    @property
    def share(self) -> float | None:
        """Share of the planned work that is done; None where nothing is planned yet."""
        return min(1.0, self.done / self.planned) if self.planned else None

    def seconds_left(self, elapsed_seconds: float) -> float | None:
        """Return how long the rest takes at the pace so far; None where nobody knows."""
        return elapsed_seconds * (1 - self.share) / self.share if self.share else None


ShowProgress = Callable[[Progress], None]
"""Called with what is done, as often as something is."""


def silent(progress: Progress) -> None:
    """Show no progress."""
