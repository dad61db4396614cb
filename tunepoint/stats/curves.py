"""Learning curves: how the score grows with training examples, extrapolated with an interval.

No single family of curves is right. A power law fitted to the early part of a many-class curve predicts
that learning is nearly over when it has hardly begun. So several families are averaged, some of which
still accelerate, each weighted by its marginal likelihood (Bayesian model averaging: Hoeting, Madigan,
Raftery and Volinsky 1999; the families: Viering and Loog 2023, "The shape of learning curves: a review").
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from tunepoint.errors import EvidenceError
from tunepoint.stats.arrays import Floats
from tunepoint.stats.intervals import Interval

CURVE_DRAWS = 4_000
"""Draws of whole curves that stand for the distribution."""
MAX_ROUNDS = 40
"""Rounds of CURVE_DRAWS draws, most of which may be rejected because they fall."""
MIN_CURVE_DRAWS = 500
"""Accepted draws, of 160,000, below which the curve counts as falling."""
MISFIT = 0.02
"""Standard deviation by which a smooth family misses the true curve at a size; an assumption."""
MIN_CURVE_SIZES = 3
"""Sizes needed to fit a curve: level, gap and one parameter of the shape."""


@dataclass(frozen=True)
class Family:
    """Curves score = level - gap * shape(size): linear in level and gap for given shape parameters."""

    name: str
    shape: Callable[[Floats, Floats], Floats]
    """((K,) sizes over the largest measured one, parameters) -> (K,) values that fall with size."""
    grid: tuple[tuple[float, ...], ...]
    """Parameters of the shape, equally likely a priori."""
    bounded: bool = True
    """Whether `level` is an asymptote, which cannot exceed a score of 1."""


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
class _FamilyDraws:
    """Draws of D curves of one family."""

    family: Family
    shapes: Floats
    """(D, P) parameters of the shape."""
    levels: Floats
    """(D,)"""
    gaps: Floats
    """(D,)"""

    def at(self, relative: float) -> Floats:
        """Return the (D,) scores at a size over the largest measured one."""
        point = np.array([relative])
        # Draws share a few hundred shapes of the grid: each is computed once.
        distinct, rows = np.unique(self.shapes, axis=0, return_inverse=True)
        shape = np.array([self.family.shape(point, parameters)[0] for parameters in distinct])
        return np.asarray((self.levels - self.gaps * shape[rows.ravel()]).clip(0.0, 1.0))


@dataclass(frozen=True)
class Curve:
    """The distribution of score by training examples, as draws of whole curves."""

    largest: int
    """The largest measured size."""
    weights: Mapping[str, float]
    """Posterior weight of each family, by its name."""
    _families: tuple[_FamilyDraws, ...]

    def draws(self, size: float) -> Floats:
        """Return (D,) possible mean scores at a size, over training runs and test items."""
        if size <= 0:
            raise EvidenceError(f"a learning curve starts at 1 training example, got {size:g}")
        return np.concatenate([family.at(size / self.largest) for family in self._families])

    def at(self, size: float, level: float = 0.9) -> Interval:
        """Return the mean score at a size, with its interval."""
        return _interval(self.draws(size), level)

    def gain(self, size: float, to: float, level: float = 0.95) -> Interval:
        """Return the gain in score from one size to another, with its interval."""
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
        errors: (K,) standard errors of the scores, over training seeds and items.
        rng: source of the draws.
        misfit: standard deviation by which a family misses the true curve.

    For a given shape a family is a linear regression, whose level and gap have a normal posterior under
    a flat prior (Gelman et al. 2013, "Bayesian Data Analysis", section 14.2). Shapes are weighted by
    their marginal likelihood; draws that fall with more examples or whose asymptote exceeds 1 are
    rejected. Where no family explains the scores, the errors are scaled up by the square root of the
    reduced chi-square (Birge 1932, "The calculation of errors by the method of least squares").

    Raises:
        EvidenceError: fewer than 3 sizes, equal ones, scores without errors, or a falling score.

    """
    if len(set(sizes)) < MIN_CURVE_SIZES or len(set(sizes)) != len(sizes):
        raise EvidenceError(f"a learning curve needs {MIN_CURVE_SIZES} different sizes, got {list(sizes)}")
    size, score = np.asarray(sizes, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    spread = np.hypot(np.asarray(errors, dtype=np.float64), misfit)
    if not (len(size) == len(score) == len(spread)) or not np.isfinite(spread).all():
        raise EvidenceError("every size of a learning curve needs a score and its standard error")
    relative = size / size.max()
    fits = [
        _Fit.of(family, np.array(parameters), relative, score, spread)
        for family in FAMILIES
        for parameters in family.grid
    ]
    degrees = len(size) - 3
    reduced_chi_square = min(fit.squares for fit in fits) / degrees if degrees > 0 else 1.0
    scale = max(1.0, reduced_chi_square)
    evidence = np.array([fit.log_evidence(scale) for fit in fits])
    odds = np.exp(evidence - evidence.max())  # the largest is 1, so that none overflows
    return _draw_curve(int(size.max()), fits, odds / odds.sum(), scale, rng)


@dataclass(frozen=True)
class _Fit:
    """A family with one shape, fitted by weighted least squares."""

    family: Family
    shape: Floats
    """(P,) parameters of the shape."""
    mean: Floats
    """(2,) level and gap."""
    covariance: Floats
    """(2, 2) of level and gap."""
    squares: float
    """Weighted residual sum of squares (chi-square)."""

    @classmethod
    def of(cls, family: Family, shape: Floats, relative: Floats, score: Floats, spread: Floats) -> _Fit:
        design = np.stack([np.ones_like(relative), -family.shape(relative, shape)], axis=1)
        weighted = design / spread[:, None]
        covariance: Floats = np.linalg.pinv(weighted.T @ weighted).astype(np.float64)
        mean = covariance @ weighted.T @ (score / spread)
        residuals = (score - design @ mean) / spread
        return cls(family, shape, mean, covariance, float(residuals @ residuals))

    def log_evidence(self, scale: float) -> float:
        """Return the log marginal likelihood up to a constant, for equally likely families."""
        volume = float(np.linalg.slogdet(self.covariance * scale)[1]) / 2
        return -self.squares / (2 * scale) + volume - float(np.log(len(self.family.grid)))


def _draw_curve(
    largest: int, fits: Sequence[_Fit], odds: Floats, scale: float, rng: np.random.Generator
) -> Curve:
    """Draw shapes by their odds, then level and gap; keep draws that a learning curve can have."""
    accepted: dict[str, list[tuple[Floats, float, float]]] = {}
    count = 0
    for _ in range(MAX_ROUNDS):
        for number, size in enumerate(rng.multinomial(CURVE_DRAWS, odds).tolist()):
            fit = fits[number]
            if not size:
                continue
            # Unlike "cholesky", "eigh" takes the singular covariance of a shape that is flat over the sizes.
            values = rng.multivariate_normal(fit.mean, fit.covariance * scale, size, method="eigh")
            for level, gap in values.tolist():
                if gap >= 0 and (level <= 1.0 or not fit.family.bounded):
                    accepted.setdefault(fit.family.name, []).append((fit.shape, level, gap))
                    count += 1
        if count >= CURVE_DRAWS:
            break
    if count < MIN_CURVE_DRAWS:
        raise EvidenceError("the score falls as training examples are added: look at the training runs")
    by_name = {family.name: family for family in FAMILIES}
    families = tuple(
        _FamilyDraws(
            by_name[name],
            np.stack([shape for shape, _, _ in draws]),
            np.array([level for _, level, _ in draws]),
            np.array([gap for _, _, gap in draws]),
        )
        for name, draws in accepted.items()
    )
    return Curve(largest, {name: len(draws) / count for name, draws in accepted.items()}, families)
