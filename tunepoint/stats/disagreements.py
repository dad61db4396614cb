"""Differences of arms from labels where their answers disagree, and from inputs without a label.

Two arms that give the same answer to an input score the same on it, whatever the right answer is. So a
pool of inputs that the arms have answered shows, without any label, how often their scores can differ, and
labels are needed on those inputs only. This is sampling in two phases with strata (Neyman 1938,
"Contribution to the theory of sampling human populations"; Cochran 1977, "Sampling Techniques", section
12.2): the pool is the first phase, who agrees with whom is the stratum, and in a stratum the inputs are
labelled in random order. Inputs on which all agree are a stratum whose difference is known to be 0.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import scipy
from numpy.typing import NDArray

from tunepoint.errors import EvidenceError
from tunepoint.stats.arrays import Floats, Integers
from tunepoint.stats.paired import JointScores, cluster_covariance

AGREED = 0
"""Stratum of the inputs on which all arms give the same answer."""
MIN_LABELS = 2
"""Labels of a stratum from which it has a variance of its own."""
EXPECTED_LABELS = 5
"""Labels that a stratum would get by its share, from which it stands alone; smaller ones are joined."""
MIN_LABELLED_GROUPS = 10
"""Groups with labels from which the normal approximation may speak: before, the pool does not count."""
PSEUDO_LABELS = 2.0
"""Labels on which options differ, added to their variance: the first few may all favor the same one."""
LOOKS_ERROR = 0.05
"""Probability with which the widened bounds ever fail, however often one looks."""
TUNED_LABELS = 60
"""Labels at which the widened bounds are narrowest."""
OTHERS_WEIGHT = 0.25
"""How much less often an input is labelled on which the likely winner differs from none that may beat it."""


@dataclass(frozen=True)
class PoolScores:
    """What a pool shows of the differences between A arms."""

    strata: Integers
    """(N,) of each input: `AGREED`, or a number from 1 for who agrees with whom."""
    labelled: Integers
    """(m,) positions of the labelled inputs on which arms disagree."""
    scores: Floats
    """(m, A) scores of the arms on them, averaged over runs, 0..1; NaN for arms that were not asked."""
    clusters: Integers | None = None
    """(N,) cluster of each input; None if inputs are independent."""
    weights: Floats | None = None
    """(N,) how often an input is labelled, relative to others, equal within a stratum; None if all alike."""
    reliability: float = 1.0
    """Share of a true difference that labels show, in (0, 1]: wrong labels make arms look alike."""
    inputs: tuple[str, ...] = ()
    """Names of the inputs, if they are told apart."""
    slices: tuple[str | None, ...] = ()
    """Slice of each input, if slices are known."""

    def __post_init__(self) -> None:
        if len(self.labelled) != len(self.scores):
            raise EvidenceError(f"{len(self.labelled)} inputs are labeled and {len(self.scores)} have scores")
        if (self.strata[self.labelled] == AGREED).any():
            raise EvidenceError(
                "an input on which all arms agree needs no label, and its label says nothing here"
            )

    def part(self, keep: NDArray[np.bool_]) -> PoolScores:
        """Return the inputs where `keep` is true; within a stratum, their labels are as random as before."""
        kept, labelled = np.flatnonzero(keep), keep[self.labelled]
        return replace(
            self,
            strata=self.strata[keep],
            labelled=np.searchsorted(kept, self.labelled[labelled]),
            scores=self.scores[labelled],
            clusters=None if self.clusters is None else self.clusters[keep],
            weights=None if self.weights is None else self.weights[keep],
            inputs=tuple(self.inputs[i] for i in kept.tolist()) if self.inputs else (),
            slices=tuple(self.slices[i] for i in kept.tolist()) if self.slices else (),
        )

    @property
    def asked(self) -> Integers:
        """Positions of the arms that answered the pool."""
        return np.flatnonzero(~np.isnan(self.scores).any(axis=0))

    @cached_property
    def codes(self) -> Integers:
        """(N,) cluster of each input, from 0; an input of its own where none are given."""
        if self.clusters is None:
            return np.arange(len(self.strata))
        return np.unique(self.clusters, return_inverse=True)[1]

    @property
    def labelled_groups(self) -> int:
        """Clusters with a label."""
        return len(np.unique(self.codes[self.labelled]))

    @property
    def disagreement(self) -> float:
        """Share of the inputs on which arms disagree."""
        return float((self.strata != AGREED).mean())


def with_pool(joint: JointScores, pool: PoolScores) -> JointScores:
    """Return the scores of a test set, sharpened by what a pool shows of their differences.

    The mean scores m of the test set, with covariance S, and the differences c that the pool shows (each arm
    less the mean of those that answered it), with covariance V, are combined by generalized least squares:
    m + G (c - C m), with C the projection on differences and G = S C' (C S C' + V)^+, the update of Kalman
    1960 ("A new approach to linear filtering and prediction problems"). What an arm scores
    absolutely still comes from the test set; the pool moves it only as its differences do.

    The result has one row for every input of test set and pool: its contribution to the estimate. The mean of
    the contributions is the estimate, and their cluster-robust covariance is the estimate's. People look
    after each batch of labels and stop when it suits: `at_all_looks` is the same with V widened to the
    bounds of a confidence sequence, so that its intervals hold at all looks together.

    Args:
        joint: of the test set, with the scores of its items.
        pool: of other inputs, whose clusters share nothing with those of the test set.

    Raises:
        EvidenceError: the distribution comes without the items' scores, or the pool has other arms.

    """
    arms = len(joint.estimates)
    if joint.means is None or joint.codes is None:
        raise EvidenceError("a pool needs the scores of the test items, not only their distribution")
    if pool.scores.shape[1:] != (arms,):
        raise EvidenceError(f"the pool has {pool.scores.shape[1:]} arms, the test set {arms}")
    if pool.labelled_groups < MIN_LABELLED_GROUPS:
        return joint
    shown, widening = contributions(pool), looks_widening(len(pool.labelled))
    # one gain for both, between those that either would choose: the wider bounds have the same center
    gain = _gain(joint, pool, pool_covariance(pool, shown, widening**0.5))
    combined = _combined(joint, pool, shown, gain, widening=1.0)
    return replace(combined, at_all_looks=_combined(joint, pool, shown, gain, widening=widening))


def pool_covariance(pool: PoolScores, shown: Floats, widening: float = 1.0) -> Floats:
    """Return the (A, A) covariance of the pool's differences.

    Args:
        pool: with labels.
        shown: (N, A) as `contributions` returns them.
        widening: how many times wider than the errors of sampling, for people who look again and again.

    """
    sampling = cluster_covariance(shown - shown.mean(axis=0), pool.codes) / pool.reliability**2
    return np.asarray((sampling + _pseudo_covariance(pool)) * widening**2 + _noise_covariance(pool, shown))


def _noise_covariance(pool: PoolScores, shown: Floats) -> Floats:
    """Return the (A, A) square of the bias of wrong labels: they show `reliability` times a difference."""
    bias = shown.mean(axis=0) * (1 / pool.reliability - 1)
    return np.outer(bias, bias)


def _pseudo_covariance(pool: PoolScores) -> Floats:
    """Return the (A, A) covariance that `PSEUDO_LABELS` add to the differences of the pool."""
    variance = pool.disagreement**2 * PSEUDO_LABELS / (len(pool.labelled) + 2) ** 2
    return variance * _projection(pool.asked, pool.scores.shape[1])


def _gain(joint: JointScores, pool: PoolScores, variance: Floats) -> Floats:
    """Return the (A, A) weight of the pool's differences, of this covariance, beside the test set's."""
    projection = _projection(pool.asked, len(joint.estimates))
    of_test = projection @ joint.item_covariance @ projection
    inverse = np.linalg.pinv(of_test + variance, rcond=1e-9, hermitian=True)
    return np.asarray(joint.item_covariance @ projection @ inverse)


def _combined(
    joint: JointScores, pool: PoolScores, shown: Floats, gain: Floats, *, widening: float
) -> JointScores:
    """Combine test set and pool, the errors of the pool taken as `widening` times what they are."""
    arms = len(joint.estimates)
    projection, differences = _projection(pool.asked, arms), shown.mean(axis=0)
    kept = np.eye(arms) - gain @ projection
    estimates = joint.estimates + gain @ (differences - projection @ joint.estimates)
    deviations = (shown - differences) * widening / pool.reliability
    combined = _stacked(joint, estimates, (kept, gain), (deviations, pool.codes))
    pseudo = joint.pseudo_variance * kept @ kept.T
    pseudo += gain @ _pseudo_covariance(pool) @ gain.T * widening**2
    combined.item_covariance[...] += pseudo + gain @ _noise_covariance(pool, shown) @ gain.T
    degrees = _degrees(
        projection,
        (kept @ joint.item_covariance @ kept.T, joint.degrees),
        (gain @ pool_covariance(pool, shown, widening) @ gain.T, pool.labelled_groups - 1),
    )
    return replace(
        combined,
        pseudo=float(np.trace(pseudo)) / arms,
        graded_groups=min(degrees + 1, combined.groups),
        tested=joint,
        labelled_groups=_differing_groups(pool),
    )


def _differing_groups(pool: PoolScores) -> Integers:
    """Return (A, A) labelled groups in which two arms score differently on some input."""
    arms = pool.scores.shape[1]
    counts = np.zeros((arms, arms), dtype=np.intp)
    for arm, other in itertools.combinations(pool.asked.tolist(), 2):
        differing = pool.scores[:, arm] != pool.scores[:, other]
        groups = len(np.unique(pool.codes[pool.labelled[differing]]))
        counts[arm, other] = counts[other, arm] = groups
    return counts


def difference_p_value(joint: JointScores, pool: PoolScores) -> float:
    """Return the p-value of "test set and pool show the same differences" (a Wald test with an F reference).

    Args:
        joint: of the test set alone.
        pool: of other inputs.

    """
    shown, projection = contributions(pool), _projection(pool.asked, len(joint.estimates))
    gap = shown.mean(axis=0) - projection @ joint.estimates
    covariance = projection @ joint.covariance @ projection + _noise_covariance(pool, shown)
    covariance = covariance + cluster_covariance(shown - shown.mean(axis=0), pool.codes)
    rank = len(pool.asked) - 1
    statistic = float(gap @ np.linalg.pinv(covariance, rcond=1e-9, hermitian=True) @ gap) / rank
    degrees = max(1, pool.labelled_groups - 1)
    return float(scipy.stats.f.sf(statistic, rank, min(degrees, joint.degrees)))


def _projection(places: Integers, arms: int) -> Floats:
    """Return the (A, A) matrix that takes from each arm that answered the mean of those, else 0."""
    projection = np.zeros((arms, arms))
    projection[np.ix_(places, places)] = np.eye(len(places)) - 1 / len(places)
    return projection


def _degrees(projection: Floats, *parts: tuple[Floats, int]) -> int:
    """Return the degrees of freedom of a sum of two covariances (Welch 1947), as differences see them."""
    sizes = [float(np.trace(projection @ covariance @ projection)) for covariance, _ in parts]
    spread = sum(size**2 / degrees for size, (_, degrees) in zip(sizes, parts, strict=True))
    return max(1, int(sum(sizes) ** 2 / spread)) if spread > 0 else min(degrees for _, degrees in parts)


def _stacked(
    joint: JointScores, estimates: Floats, weights: tuple[Floats, Floats], pool: tuple[Floats, Integers]
) -> JointScores:
    """Return the combined distribution, with the contributions of test items and pool inputs as rows."""
    assert joint.means is not None and joint.codes is not None
    (kept, gain), (deviations, codes) = weights, pool
    tested = len(joint.means)
    rows = tested + len(deviations)
    own = rows / tested * (joint.means - joint.means.mean(axis=0)) @ kept.T
    others = rows / len(deviations) * deviations @ gain.T
    means = estimates + np.concatenate([own, others])
    all_codes = np.concatenate([joint.codes, codes + joint.groups])
    return replace(
        joint,
        estimates=estimates,
        item_covariance=cluster_covariance(means - estimates, all_codes),
        groups=joint.groups + int(codes.max()) + 1,
        means=means,
        codes=all_codes,
    )


def contributions(pool: PoolScores) -> Floats:
    """Return (N, A) contributions of the inputs to the differences, each arm less the mean of all.

    In stratum h with N_h inputs, n_h of them labelled with mean difference y_h, every input contributes
    y_h, and a labelled one N_h / n_h (y - y_h) as well, times sqrt(n_h / (n_h - 1)) because y_h comes from
    the same labels. Their mean is the sum over strata of N_h / N y_h.
    """
    columns = pool.asked
    leads = np.zeros_like(pool.scores)
    leads[:, columns] = pool.scores[:, columns] - pool.scores[:, columns].mean(axis=1, keepdims=True)
    strata = _joined(pool)
    shown = np.zeros((len(strata), leads.shape[1]))
    for stratum in np.unique(strata[pool.labelled]).tolist():
        inside, own = np.flatnonzero(strata == stratum), strata[pool.labelled] == stratum
        labels = int(own.sum())
        mean = leads[own].mean(axis=0)
        shown[inside] = mean
        if labels > 1:
            share = len(inside) / labels * np.sqrt(labels / (labels - 1))
            shown[pool.labelled[own]] += share * (leads[own] - mean)
    return shown


def _joined(pool: PoolScores) -> Integers:
    """Return the strata, small ones joined so that each has labels enough.

    Those that are labelled equally often are joined where their share of the labels is expected to be small:
    which inputs have been labelled plays no part. Only what then has fewer than two labels is joined by
    that, with the next larger stratum.
    """
    strata = pool.strata.copy()
    weights = np.ones(len(strata)) if pool.weights is None else pool.weights
    disputed = strata != AGREED
    expected = len(pool.labelled) * weights / weights[disputed].sum()
    for weight in np.unique(weights[disputed]).tolist():
        alike = disputed & (weights == weight)
        numbers = np.unique(strata[alike])
        shares = np.array([expected[strata == number].sum() for number in numbers])
        small = numbers[shares < EXPECTED_LABELS]
        if len(small):
            strata[np.isin(strata, small)] = small[0]
    while True:
        numbers = np.unique(strata[disputed])
        counts = np.array([(strata[pool.labelled] == number).sum() for number in numbers])
        if len(numbers) == 1 or counts.min() >= MIN_LABELS:
            return strata
        few = counts.argmin()
        sizes = np.array([(strata == number).sum() for number in numbers], dtype=float)
        sizes[few] = np.inf
        strata[strata == numbers[few]] = numbers[sizes.argmin()]


def looks_widening(labels: int) -> float:
    """Return the half-width of a bound that holds at all looks, over that of a single one.

    The asymptotic confidence sequence of Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas 2024 ("Time-uniform
    central limit theory and asymptotic confidence sequences", equation 2), narrowest at `TUNED_LABELS`.
    """
    log = -2 * np.log(LOOKS_ERROR)
    rate = labels * (log + np.log(log) + 1) / TUNED_LABELS
    width = np.sqrt(2 * (rate + 1) / rate * np.log(np.sqrt(rate + 1) / LOOKS_ERROR))
    return float(width / 1.959964)
