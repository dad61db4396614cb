"""Several arms on the same items: the joint sampling distribution of their mean scores.

Items are a sample, perhaps in clusters; training seeds are a sample too. The joint distribution has
one part for each, and every interval and probability of the decision comes from it.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tunepoint.errors import EvidenceError
from tunepoint.stats.arrays import Floats, Integers


@dataclass(frozen=True)
class JointScores:
    """Mean scores of A arms on the same n items, with the covariance of their errors."""

    estimates: Floats
    """(A,) mean score of each arm over items and seeds."""
    item_covariance: Floats
    """(A, A) sampling covariance from the items, clusters kept whole."""
    groups: int
    """Independent groups of items; the item part has groups - 1 degrees of freedom."""
    seed_covariance: Floats
    """(A, A) sampling covariance from training seeds and decodes; block-diagonal by `blocks`."""
    blocks: tuple[tuple[Integers, int], ...]
    """(positions of arms, number of seeds) for each set of arms with the same seeds, paired seed by seed."""
    items: int
    """Items behind every estimate."""
    graded_groups: int | None = None
    """Groups that people graded, if their grades correct a judge's scores; fewer than `groups`."""
    means: Floats | None = None
    """(n, A) score of each item, averaged over seeds; None if only the distribution is known."""
    codes: Integers | None = None
    """(n,) group of each item."""
    decoded: frozenset[int] = frozenset()
    """Positions of arms whose runs are decodes of one model or prompt, not training seeds."""
    pseudo: float | None = None
    """Variance that half a pseudo-observation per arm adds, where a pool has changed it."""
    tested: JointScores | None = None
    """Of the test set alone, where a pool sharpens this: then `means` are contributions, not scores."""
    at_all_looks: JointScores | None = None
    """Where people look after each batch of labels: the same, as wide as bounds that hold at all looks."""
    labelled_groups: Integers | None = None
    """(A, A) groups of the pool with labels that show two arms to score differently, if there is a pool."""

    @property
    def max_seeds(self) -> int:
        """Number of training seeds of the arm that has the most; 0 if none has two."""
        counts = [count for arms, count in self.blocks if not self.decoded.issuperset(arms.tolist())]
        return max(counts, default=0)

    @property
    def test_groups(self) -> int:
        """Independent groups of test items, without those of a pool."""
        return self.groups if self.tested is None else self.tested.groups

    @property
    def worth_items(self) -> float:
        """Test items that would show differences as precisely as test set and pool together."""
        if self.tested is None:
            return float(self.items)
        projection = np.eye(len(self.estimates)) - 1 / len(self.estimates)
        alone, both = (
            float(np.trace(projection @ covariance @ projection))
            for covariance in (self.tested.item_covariance, self.item_covariance)
        )
        return self.items * alone / both

    @property
    def degrees(self) -> int:
        """Degrees of freedom of the item part."""
        return min(self.groups, self.graded_groups or self.groups) - 1

    @property
    def pseudo_variance(self) -> float:
        """Variance that half a pseudo-observation per arm adds (Agresti and Min 2005); see `joint_scores`."""
        if self.pseudo is not None:
            return self.pseudo
        return float(0.5 / (min(self.items, self.graded_groups or self.items) + 2) ** 2)

    @property
    def covariance(self) -> Floats:
        """(A, A) covariance of the estimates, items and seeds together."""
        return self.item_covariance + self.seed_covariance


def joint_scores(
    scores: Sequence[Floats],
    clusters: NDArray[np.intp] | None = None,
    seeds: Sequence[Sequence[Hashable]] | None = None,
    graded_groups: int | None = None,
    decoded: frozenset[int] = frozenset(),
) -> JointScores:
    """Return the joint sampling distribution of the mean scores of several arms.

    Args:
        scores: for each arm an array (S_a, n) of training seeds by items, with values in [0, 1]; S_a
            may be 1. All arms have the same n items in the same order.
        clusters: (n,) cluster of each item; None if items are independent.
        seeds: names of each arm's seeds; arms with equal names are paired seed by seed.
        graded_groups: groups of items behind a correction by people's grades; None without one.
        decoded: positions of arms whose rows are decodes: repeated answers of one model or prompt.

    The item part is the cluster-robust covariance of the means with the G / (G - 1) correction (Liang
    and Zeger 1986; Cameron and Miller 2015, equation 11). Half an observation is added per arm, as in
    Agresti and Min 2005 ("Simple improved confidence intervals for comparing matched proportions"), so
    that a sample in which two arms never differ does not claim that they never will.

    The seed part is the covariance of the seed means over the number of seeds, less what the interaction
    of seed and item alone contributes, which the item part already contains. The noise of a decode on a
    single item is in the item part; what shifts a whole run is in the seed part.

    Raises:
        EvidenceError: fewer than two independent groups, or arms of unequal length.

    """
    items = _common_length(scores)
    codes = _group_codes(clusters, items)
    groups = int(codes.max()) + 1
    means = np.stack([arm.mean(axis=0) for arm in scores], axis=1)
    estimates = means.mean(axis=0)
    item_covariance = cluster_covariance(means - estimates, codes)
    seed_covariance, blocks = _seed_part(scores, codes, seeds)
    joint = JointScores(estimates, item_covariance, groups, seed_covariance, blocks, items, graded_groups)
    item_covariance += np.eye(len(scores)) * joint.pseudo_variance  # in place: `joint` holds this array
    return replace(joint, means=means, codes=codes, decoded=decoded)


def _common_length(scores: Sequence[Floats]) -> int:
    """Return the number of items, which must be the same for every arm."""
    lengths = {arm.shape[1] for arm in scores}
    if not lengths or lengths == {0}:
        raise EvidenceError("no scores: there is nothing to compare")
    if len(lengths) > 1:
        raise EvidenceError(f"arms must share their items, got {sorted(lengths)} items")
    return int(lengths.pop())


def _group_codes(clusters: NDArray[np.intp] | None, items: int) -> Integers:
    """Return the (n,) group of each item as a number from 0; there must be at least two groups."""
    codes: Integers = np.arange(items)
    if clusters is not None:
        codes = np.unique(np.asarray(clusters), return_inverse=True)[1]
    groups = int(codes.max()) + 1
    if groups < 2:
        raise EvidenceError(
            f"{items} test items in {groups} group say nothing about new items: "
            "at least 2 independent groups are needed, and some hundreds to decide"
        )
    return codes


def cluster_covariance(deviations: Floats, codes: Integers) -> Floats:
    """Return the (A, A) cluster-robust covariance of means (Cameron and Miller 2015, equation 11).

    Args:
        deviations: (n, A) scores less their means.
        codes: (n,) group of each item, from 0.

    """
    groups = int(codes.max()) + 1
    sums = np.zeros((groups, deviations.shape[1]))
    np.add.at(sums, codes, deviations)
    return np.asarray(sums.T @ sums / len(deviations) ** 2 * groups / (groups - 1))


def _seed_part(
    scores: Sequence[Floats], codes: Integers, seeds: Sequence[Sequence[Hashable]] | None
) -> tuple[Floats, tuple[tuple[Integers, int], ...]]:
    """Return the (A, A) covariance of the arms' means over training seeds, and `JointScores.blocks`."""
    names = seeds or [tuple(range(arm.shape[0])) for arm in scores]
    arms_by_seeds: dict[tuple[Hashable, ...], list[int]] = {}
    for arm, seed_names in enumerate(names):
        if len(seed_names) > 1:
            arms_by_seeds.setdefault(tuple(seed_names), []).append(arm)
    covariance = np.zeros((len(scores), len(scores)))
    blocks = []
    for seed_names, arms in arms_by_seeds.items():
        index = np.array(arms)
        count = len(seed_names)
        cube = np.stack([scores[arm] for arm in arms], axis=2)
        covariance[np.ix_(index, index)] = _between_seeds(cube, codes) / count
        blocks.append((index, count))
    return covariance, tuple(blocks)


def _between_seeds(cube: Floats, codes: Integers) -> Floats:
    """Return the (A, A) covariance of the seed effects of A arms.

    The covariance of the seed means, less the part that the sampling of items alone explains (the
    interaction of seed and item, clusters kept whole): the analysis-of-variance estimator of Searle,
    Casella and McCulloch 1992, "Variance Components", section 4.4.

    Args:
        cube: (S, n, A) scores by seed, item and arm.
        codes: (n,) group of each item, from 0.

    """
    count, items, _ = cube.shape
    effects = cube.mean(axis=1)
    centered = effects - effects.mean(axis=0)
    between = centered.T @ centered / (count - 1)
    interaction = cube - effects[:, None] - cube.mean(axis=0)[None] + cube.mean(axis=(0, 1))
    groups = int(codes.max()) + 1
    noise = np.zeros_like(between)
    for seed in range(count):
        sums = np.zeros((groups, cube.shape[2]))
        np.add.at(sums, codes, interaction[seed])
        noise += sums.T @ sums
    noise /= items**2 * (count - 1) * (groups - 1) / groups
    # The difference of two estimates can have negative eigenvalues. They become 0, and the others shrink so
    # that the total variance stays unbiased.
    values, vectors = np.linalg.eigh(between - noise)
    positive = np.clip(values, 0.0, None)
    if (total := positive.sum()) > 0:
        positive *= max(0.0, values.sum()) / total
    return np.asarray(vectors * positive @ vectors.T)


def draw_scores(joint: JointScores, size: int, rng: np.random.Generator) -> Floats:
    """Return (size, A) draws of the true mean scores given the sample.

    The item part follows a multivariate t with `degrees` degrees of freedom, and each block of seeds one
    with seeds - 1: the fiducial distribution of Behrens and Fisher (Fisher 1935, "The fiducial argument
    in statistical inference"), whose intervals hold their level without a common variance.

    Draws are not cut off at 0 and 1; otherwise two arms that are always right would hardly differ in any
    draw. They have half a pseudo-observation more per arm than the intervals. That makes probabilities as
    careful as the exact test where the arms hardly differ: after 100 items on which they agree, a
    difference of more than .02 still has a probability of 8%, not 2%.
    """
    errors = draw_errors(joint, size, rng)
    pseudo_errors = rng.normal(0.0, np.sqrt(joint.pseudo_variance), errors.shape)
    return np.asarray(joint.estimates + errors + pseudo_errors)


def draw_errors(joint: JointScores, size: int, rng: np.random.Generator) -> Floats:
    """Return (size, A) draws of the errors of the estimates, from items and seeds."""
    items = _multivariate_t(joint.item_covariance, joint.degrees, size, rng)
    return items + seed_errors(joint, size, rng)


def seed_errors(joint: JointScores, size: int, rng: np.random.Generator) -> Floats:
    """Return (size, A) draws of the errors that come from training seeds."""
    errors = np.zeros((size, len(joint.estimates)))
    for arms, count in joint.blocks:
        block = joint.seed_covariance[np.ix_(arms, arms)]
        errors[:, arms] += _multivariate_t(block, count - 1, size, rng)
    return errors


def _multivariate_t(covariance: Floats, degrees: int, size: int, rng: np.random.Generator) -> Floats:
    """Return (size, A) draws of a multivariate t around 0 whose scale matrix is `covariance`."""
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.clip(values, 0.0, None))
    normal = rng.standard_normal((size, len(covariance))) @ root.T
    scale = np.sqrt(degrees / rng.chisquare(degrees, size))
    return np.asarray(normal * scale[:, None])
