"""An uncertain quantity, given as low, likely and high: the triangular distribution."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunepoint.errors import EvidenceError

if TYPE_CHECKING:  # a gateway that only relays loads no numpy
    import numpy as np

    from tunepoint.stats.arrays import Floats


@dataclass(frozen=True)
class Quantiles:
    """5%, 50% and 95% of a distribution."""

    low: float
    likely: float
    high: float


def quantiles(values: Floats) -> Quantiles:
    """Return the 90% interval of (D,) draws with their median."""
    import numpy as np

    low, likely, high = np.quantile(values, [0.05, 0.5, 0.95]).tolist()
    return Quantiles(low, likely, high)


MAX_QUANTITY = 1e12
"""Above any quantity of a task, in any unit; a larger number is a typing error."""


@dataclass(frozen=True)
class Range:
    """Low, likely and high value of an uncertain quantity, in its own unit.

    A triangular distribution with these as minimum, mode and maximum (Johnson 1997, "The
    triangular distribution as a proxy for the beta distribution in risk analysis"). A single
    number is a range without width.
    """

    low: float
    likely: float
    high: float

    def __post_init__(self) -> None:
        values = (self.low, self.likely, self.high)
        if not all(math.isfinite(value) for value in values):
            raise EvidenceError(f"a range needs finite numbers, got {values}")
        if max(map(abs, values)) > MAX_QUANTITY:
            raise EvidenceError(f"a range must stay within {MAX_QUANTITY:g}, got {values}")
        if not self.low <= self.likely <= self.high:
            raise EvidenceError(
                f"a range is [low, likely, high] in rising order, got "
                f"[{self.low:g}, {self.likely:g}, {self.high:g}]"
            )

    @classmethod
    def parse(cls, value: Any) -> Range:
        """Return the range of a number, or of a sequence of low, likely and high.

        Raises:
            EvidenceError: something else, or numbers that are not in rising order.

        """
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
        """Mean of the triangular distribution (Johnson 1997)."""
        return (self.low + self.likely + self.high) / 3

    def quantile(self, u: Floats) -> Floats:
        """Return the quantiles at the probabilities `u` in [0, 1], in the shape of `u`.

        The inverse of the triangular distribution function (Johnson 1997). Quantities that share a
        cause (one hourly rate, one traffic) take the same `u`, so that they vary together.
        """
        import numpy as np

        width = self.high - self.low
        if width == 0:
            return np.full_like(u, self.likely, dtype=np.float64)
        rising = self.likely - self.low
        below_mode = self.low + np.sqrt(u * width * rising)
        above_mode = self.high - np.sqrt((1 - u) * width * (self.high - self.likely))
        return np.where(u < rising / width, below_mode, above_mode)

    def sample(self, size: int, rng: np.random.Generator) -> Floats:
        """Return (size,) independent draws."""
        return self.quantile(rng.random(size))
