"""The mean of what was measured, answer by answer, and how far it may be off."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tunepoint.stats.arrays import Floats

SYMMETRIC = 1e-3
"""Skewness of a mean under which it is drawn from a normal distribution."""


@dataclass(frozen=True)
class Mean:
    """A mean with what its sampling distribution needs."""

    value: float = 0.0
    error: float = 0.0
    """Standard error."""
    skew: float = 0.0
    """Skewness of the mean, that of the values / sqrt(n): a few long answers pull it up."""

    def __mul__(self, factor: float) -> Mean:
        """The mean in another unit; `factor` is positive."""
        return Mean(self.value * factor, self.error * factor, self.skew)


def mean_of(values: Floats) -> Mean:
    """Mean, standard error and skewness; all 0 when there are no values (a declared price rules)."""
    count = len(values)
    if not count:
        return Mean()
    middle = float(values.mean())
    spread = float(values.std(ddof=1)) if count > 1 else 0.0
    if spread <= 1e-12 * abs(middle) or count < 3:
        return Mean(middle, spread / math.sqrt(count))
    third = float((((values - middle) / spread) ** 3).mean())
    return Mean(middle, spread / math.sqrt(count), third / math.sqrt(count))


def sum_of(means: Sequence[Mean]) -> Mean:
    """The sum of independent means; third moments add up as variances do."""
    variance = sum(one.error**2 for one in means)
    if variance <= 0:
        return Mean(sum(one.value for one in means))
    third = sum(one.skew * one.error**3 for one in means)
    return Mean(sum(one.value for one in means), math.sqrt(variance), third / variance**1.5)


def deviations(error: float, skew: float, draws: int, rng: np.random.Generator) -> Floats:
    """(D,) deviations of a mean from its estimate, with this standard error and skewness.

    A shifted gamma distribution (Pearson's type III) has the first three moments that the bootstrap of
    the mean has, at none of its cost: k = 4 / skew^2 is its shape.
    """
    if abs(skew) < SYMMETRIC:
        return rng.normal(0.0, error, draws)
    shape = 4.0 / skew**2
    standard = (rng.gamma(shape, 1.0, draws) - shape) / np.sqrt(shape)
    return np.asarray(error * standard * np.sign(skew))
