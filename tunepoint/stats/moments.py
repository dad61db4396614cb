"""A mean of measured values, its standard error and its skewness."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tunepoint.stats.arrays import Floats

MAX_NORMAL_SKEW = 1e-3
"""Skewness of a mean below which the normal distribution is used: 4 / skew^2 has no limit."""


@dataclass(frozen=True)
class Mean:
    """A mean with the moments of its sampling distribution."""

    value: float = 0.0
    error: float = 0.0
    """Standard error."""
    skew: float = 0.0
    """Skewness of the mean: that of the values over sqrt(n). A few long answers raise it."""

    def __mul__(self, factor: float) -> Mean:
        """Return the mean in another unit; `factor` is positive."""
        return Mean(self.value * factor, self.error * factor, self.skew)


def mean_of(values: Floats) -> Mean:
    """Return mean, standard error and skewness of (n,) values.

    All are 0 without values: a declared price then takes the place of the measured one.
    """
    count = len(values)
    if not count:
        return Mean()
    mean = float(values.mean())
    spread = float(values.std(ddof=1)) if count > 1 else 0.0
    # A spread of rounding errors alone would make the skewness a quotient of two of them.
    if spread <= 1e-12 * abs(mean) or count < 3:
        return Mean(mean, spread / math.sqrt(count))
    skew = float((((values - mean) / spread) ** 3).mean())
    return Mean(mean, spread / math.sqrt(count), skew / math.sqrt(count))


def sum_of(means: Sequence[Mean]) -> Mean:
    """Return the sum of independent means: third central moments (cumulants) add up as variances do."""
    variance = sum(mean.error**2 for mean in means)
    if variance <= 0:
        return Mean(sum(mean.value for mean in means))
    third_moment = sum(mean.skew * mean.error**3 for mean in means)
    return Mean(sum(mean.value for mean in means), math.sqrt(variance), third_moment / variance**1.5)


def deviations(error: float, skew: float, draws: int, rng: np.random.Generator) -> Floats:
    """Return (D,) deviations of a mean from its estimate, with this standard error and skewness.

    A shifted gamma distribution (Pearson's type III: Johnson, Kotz and Balakrishnan 1994, "Continuous
    Univariate Distributions", volume 1, chapter 17) has the first three moments of the bootstrap of the
    mean and costs one draw; its shape is k = 4 / skew^2.
    """
    if abs(skew) < MAX_NORMAL_SKEW:
        return rng.normal(0.0, error, draws)
    shape = 4.0 / skew**2
    standard = (rng.gamma(shape, 1.0, draws) - shape) / np.sqrt(shape)
    return np.asarray(error * standard * np.sign(skew))
