"""A quantity that is known as low, likely and high: the triangular distribution."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tunepoint.errors import EvidenceError
from tunepoint.stats.arrays import Floats


@dataclass(frozen=True)
class Quantiles:
    """5%, 50% and 95% of a distribution."""

    low: float
    likely: float
    high: float


def quantiles(values: Floats) -> Quantiles:
    """The 90% band of draws with its median."""
    low, likely, high = np.quantile(values, [0.05, 0.5, 0.95]).tolist()
    return Quantiles(low, likely, high)


MOST = 1e12
"""Beyond any quantity that a task has; larger ones are typing errors."""


@dataclass(frozen=True)
class Range:
    """Low, likely and high value of an uncertain quantity, in its own unit.

    It stands for the triangular distribution with these as minimum, mode and maximum
    (Johnson 1997, "The triangular distribution as a proxy for the beta distribution in
    risk analysis"). A single number is the range that never varies.
    """

    low: float
    likely: float
    high: float

    def __post_init__(self) -> None:
        values = (self.low, self.likely, self.high)
        if not all(math.isfinite(value) for value in values):
            raise EvidenceError(f"a range needs finite numbers, got {values}")
        if max(map(abs, values)) > MOST:
            raise EvidenceError(f"a range ends at {MOST:g}, got {values}")
        if not self.low <= self.likely <= self.high:
            raise EvidenceError(
                f"a range is [low, likely, high] in rising order, got "
                f"[{self.low:g}, {self.likely:g}, {self.high:g}]"
            )

    @classmethod
    def parse(cls, value: Any) -> Range:
        """A number, or a sequence of low, likely and high."""
        if isinstance(value, Range):
            return value
        if isinstance(value, bool) or not isinstance(value, (int, float, Sequence)):
            raise EvidenceError(f"expected a number or [low, likely, high], got {value!r}")
        if isinstance(value, (int, float)):
            return cls(float(value), float(value), float(value))
        numbers = [number for number in value if isinstance(number, (int, float))]
        if len(value) != 3 or len(numbers) != 3 or isinstance(value, str):
            raise EvidenceError(f"expected a number or [low, likely, high], got {value!r}")
        return cls(*(float(number) for number in numbers))

    @property
    def mean(self) -> float:
        """Mean of the distribution."""
        return (self.low + self.likely + self.high) / 3

    def quantile(self, u: Floats) -> Floats:
        """Values at the probabilities `u` in [0, 1]; the same shape as `u`.

        Arms that share a cause (one hourly rate, one traffic) share one `u`.
        """
        width = self.high - self.low
        if width == 0:
            return np.full_like(u, self.likely, dtype=np.float64)
        rising = self.likely - self.low
        left = self.low + np.sqrt(u * width * rising)
        right = self.high - np.sqrt((1 - u) * width * (self.high - self.likely))
        return np.where(u < rising / width, left, right)

    def sample(self, size: int, rng: np.random.Generator) -> Floats:
        """`size` independent draws."""
        return self.quantile(rng.random(size))
