"""A pool makes the gap between an option and itself trained on less surer, and its interval stays true."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tunepoint.stats.disagreements import PoolScores
from tunepoint.stats.paired import cluster_covariance
from tunepoint.stats.poststratified import (
    ASKED,
    SAME,
    UNASKED,
    LabelledItems,
    PooledDifference,
    pooled_difference,
)

RNG = np.random.default_rng
Array = np.ndarray[Any, Any]


def drawn(rng: np.random.Generator, count: int) -> tuple[Array, Array, Array]:
    """Kinds of inputs, patterns of the finalists' answers, and scores (whole, part).

    The two differ on 18%: on 10% where finalists disagree too, the whole right in .5 and the part in .3
    (never both), and on 8% where none do, the whole right in .8 and the part in .1: a gap of .02 + .056.
    """
    kinds = rng.choice([SAME, UNASKED, ASKED], count, p=[0.82, 0.08, 0.10])
    luck = rng.random(count)
    ahead = np.where(kinds == ASKED, 0.5, 0.8)
    behind = np.where(kinds == ASKED, 0.3, 0.1)
    same = (luck < 0.9).astype(float)
    whole = np.where(kinds == SAME, same, luck < ahead)
    part = np.where(kinds == SAME, same, (luck >= ahead) & (luck < ahead + behind))
    return kinds, rng.integers(1, 4, count), np.stack([whole, part], axis=1).astype(float)


TRUTH = 0.10 * 0.2 + 0.08 * 0.7


def study(seed: int, labels: int, items: int = 400) -> tuple[LabelledItems, PooledDifference | None]:
    """A validation set, and what a pool of 2,000 with labels makes of it."""
    rng = RNG(seed)
    kinds, _, scores = drawn(rng, items)
    known = LabelledItems(scores[:, 0] - scores[:, 1], kinds, np.arange(items))
    kinds, patterns, scores = drawn(rng, 2_000)
    strata = np.where(kinds == ASKED, patterns, 0)
    labelled = np.sort(rng.permutation(np.flatnonzero(strata))[:labels])
    return known, pooled_difference(known, PoolScores(strata, labelled, scores[labelled]), kinds == UNASKED)


@pytest.mark.parametrize(("labels", "narrower"), [(0, 0.97), (60, 0.8)])
def test_the_gap_is_unbiased_and_its_error_true(labels: int, narrower: float) -> None:
    gaps, errors, alone = [], [], []
    for seed in range(300):
        known, gap = study(seed, labels)
        assert gap is not None
        gaps.append(gap.estimate)
        errors.append(gap.error)
        lead = known.differences
        alone.append(float(cluster_covariance((lead - lead.mean())[:, None], known.codes)[0, 0]) ** 0.5)
    assert np.mean(gaps) == pytest.approx(TRUTH, abs=0.003)
    covered = np.mean(np.abs(np.array(gaps) - TRUTH) < 1.96 * np.array(errors))
    assert 0.92 <= covered <= 0.985
    assert np.mean(errors) < narrower * np.mean(alone)


def test_too_few_items_of_a_kind_tell_nothing_and_labels_stand_in_for_those_that_people_are_asked() -> None:
    known, _ = study(0, 0)
    few = LabelledItems(known.differences, np.where(known.kinds == ASKED, SAME, known.kinds), known.codes)
    kinds, patterns, scores = drawn(RNG(1), 2_000)
    strata = np.where(kinds == ASKED, patterns, 0)
    for labels, expected in ((0, False), (60, True)):
        labelled = np.sort(RNG(2).permutation(np.flatnonzero(strata))[:labels])
        pool = PoolScores(strata, labelled, scores[labelled])
        assert (pooled_difference(few, pool, kinds == UNASKED) is not None) == expected
    without = LabelledItems(known.differences, np.zeros_like(known.kinds), known.codes)
    assert pooled_difference(without, pool, kinds == UNASKED) is None


def test_clusters_are_kept_whole() -> None:
    known, _ = study(0, 0)
    twice = LabelledItems(np.tile(known.differences, 2), np.tile(known.kinds, 2), np.tile(known.codes, 2))
    kinds, patterns, scores = drawn(RNG(1), 2_000)
    strata = np.where(kinds == ASKED, patterns, 0)
    pool = PoolScores(strata, np.zeros(0, dtype=np.intp), scores[:0])
    once, copied = (pooled_difference(items, pool, kinds == UNASKED) for items in (known, twice))
    assert once is not None and copied is not None
    assert copied.error == pytest.approx(once.error, rel=0.08)  # copies bring no evidence
