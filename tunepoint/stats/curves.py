"""Learning curves: what more training examples would bring, several families averaged.

No family is right. A power law fitted to the early part of a many-class curve says that it is nearly
over when it has hardly begun, so families that still accelerate take part, each weighted by how well
it explains what was measured (Bayesian model averaging; Viering and Loog 2023, "The shape of learning
curves", for the families).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from tunepoint.errors import EvidenceError
from tunepoint.stats.arrays import Floats
from tunepoint.stats.intervals import Interval

DRAWS = 4_000
MISFIT = 0.02
"""Standard deviation by which a smooth family misses the true curve at a size."""
LEAST_DRAWS = 500
"""Of 160,000 draws, those that may rise with the examples: fewer are no distribution."""
FEWEST = 3
"""Sizes that a curve takes."""


@dataclass(frozen=True)
class Family:
    """Curves score = level - gap * shape(size), straight in level and gap once the shape is fixed."""

    name: str
    shape: Callable[[Floats, Floats], Floats]
    """((K,) sizes relative to the largest measured, parameters) -> (K,) values that fall with size."""
    grid: tuple[tuple[float, ...], ...]
    """Parameters of the shape that are tried, all equally likely beforehand."""
    bounded: bool = True
    """Whether `level` is the score that no number of examples passes."""


def _grid(*axes: Floats) -> tuple[tuple[float, ...], ...]:
    return tuple(product(*(axis.tolist() for axis in axes)))


FAMILIES = (
    Family("power law", lambda n, p: n ** -p[0], _grid(np.geomspace(0.1, 2.0, 24))),
    Family("exponential", lambda n, p: np.exp(-p[0] * n), _grid(np.geomspace(0.2, 8.0, 16))),
    Family("logarithmic", lambda n, p: -np.log(n), _grid(np.array([1.0])), bounded=False),
    Family(
        "logistic in the logarithm",
        lambda n, p: 1 / (1 + (n / p[1]) ** p[0]),
        _grid(np.geomspace(0.4, 2.5, 12), np.geomspace(0.02, 8.0, 20)),
    ),
)


@dataclass(frozen=True)
class _Part:
    """Draws of one family."""

    family: Family
    shapes: Floats
    """(D, P) parameters of the shape."""
    levels: Floats
    gaps: Floats

    def at(self, relative: float) -> Floats:
        """(D,) scores at a size relative to the largest measured."""
        point = np.array([relative])
        tried, rows = np.unique(self.shapes, axis=0, return_inverse=True)
        shape = np.array([self.family.shape(point, row)[0] for row in tried])
        return np.asarray((self.levels - self.gaps * shape[rows.ravel()]).clip(0.0, 1.0))


@dataclass(frozen=True)
class Curve:
    """What is known of score by training examples, as draws of whole curves."""

    largest: int
    """The largest size that was measured."""
    weights: Mapping[str, float]
    """How much each family counts."""
    _parts: tuple[_Part, ...]

    def draws(self, size: float) -> Floats:
        """(D,) possible mean scores at a size, over training runs and test items."""
        if size <= 0:
            raise EvidenceError(f"a curve is read at 1 training example or more, got {size:g}")
        return np.concatenate([part.at(size / self.largest) for part in self._parts])

    def at(self, size: float, level: float = 0.9) -> Interval:
        """Mean score at a size, with its interval."""
        return _interval(self.draws(size), level)

    def gain(self, size: float, to: float, level: float = 0.95) -> Interval:
        """What going from one size to another brings."""
        return _interval(self.draws(to) - self.draws(size), level)


def _interval(draws: Floats, level: float) -> Interval:
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(draws.mean()), float(low), float(high))


def fit_curve(
    sizes: Sequence[int],
    scores: Sequence[float],
    errors: Sequence[float],
    rng: np.random.Generator,
    *,
    misfit: float = MISFIT,
) -> Curve:
    """Fit all families and average them.

    Args:
        sizes: (K,) training examples, K at least 3, all different.
        scores: (K,) mean scores in [0, 1].
        errors: (K,) standard errors of the scores, training seeds and items together.
        misfit: standard deviation by which a family misses the true curve.

    Given its shape a family is a straight line, whose level and gap have a normal posterior under a
    flat prior; shapes count by their marginal likelihood, and draws that fall with more examples or
    pass 1 are rejected. Errors are scaled up where no family explains what was measured (Birge 1932).

    Raises:
        EvidenceError: fewer than 3 sizes, equal ones, or scores without errors.

    """
    size, score = np.asarray(sizes, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    if len(set(sizes)) < FEWEST or len(set(sizes)) != len(sizes):
        raise EvidenceError(f"a learning curve takes {FEWEST} different sizes, got {list(sizes)}")
    spread = np.hypot(np.asarray(errors, dtype=np.float64), misfit)
    if not (len(size) == len(score) == len(spread)) or not np.isfinite(spread).all():
        raise EvidenceError("every size of a learning curve needs a score and its standard error")
    relative = size / size.max()
    fits = [
        _Fit.of(family, np.array(row), relative, score, spread) for family in FAMILIES for row in family.grid
    ]
    left = len(size) - 3
    spare = min(fit.squares for fit in fits) / left if left > 0 else 1.0
    scale = max(1.0, spare)
    evidence = np.array([fit.evidence(scale) for fit in fits])
    odds = np.exp(evidence - evidence.max())
    return _drawn(int(size.max()), fits, odds / odds.sum(), scale, rng)


@dataclass(frozen=True)
class _Fit:
    """A family with one shape, fitted."""

    family: Family
    shape: Floats
    mean: Floats
    """(2,) level and gap."""
    covariance: Floats
    squares: float
    """Weighted sum of squares that is left."""

    @classmethod
    def of(cls, family: Family, shape: Floats, relative: Floats, score: Floats, spread: Floats) -> _Fit:
        design = np.stack([np.ones_like(relative), -family.shape(relative, shape)], axis=1)
        weighted = design / spread[:, None]
        covariance: Floats = np.linalg.pinv(weighted.T @ weighted).astype(np.float64)
        mean = covariance @ weighted.T @ (score / spread)
        left = (score - design @ mean) / spread
        return cls(family, shape, mean, covariance, float(left @ left))

    def evidence(self, scale: float) -> float:
        """Log marginal likelihood, families equally likely beforehand, up to a constant."""
        volume = float(np.linalg.slogdet(self.covariance * scale)[1]) / 2
        return -self.squares / (2 * scale) + volume - float(np.log(len(self.family.grid)))


def _drawn(largest: int, fits: Sequence[_Fit], odds: Floats, scale: float, rng: np.random.Generator) -> Curve:
    """Draws of level, gap and shape that a learning curve can have."""
    kept: dict[str, list[tuple[Floats, float, float]]] = {}
    found = 0
    for _ in range(40):
        for number, count in enumerate(rng.multinomial(DRAWS, odds).tolist()):
            fit = fits[number]
            if not count:
                continue
            values = rng.multivariate_normal(fit.mean, fit.covariance * scale, count, method="eigh")
            for level, gap in values.tolist():
                if gap >= 0 and (level <= 1.0 or not fit.family.bounded):
                    kept.setdefault(fit.family.name, []).append((fit.shape, level, gap))
                    found += 1
        if found >= DRAWS:
            break
    if found < LEAST_DRAWS:
        raise EvidenceError("the score falls as training examples are added: look at the training runs")
    named = {family.name: family for family in FAMILIES}
    parts = tuple(
        _Part(
            named[name],
            np.stack([shape for shape, _, _ in rows]),
            np.array([level for _, level, _ in rows]),
            np.array([gap for _, _, gap in rows]),
        )
        for name, rows in kept.items()
    )
    return Curve(largest, {name: len(rows) / found for name, rows in kept.items()}, parts)
