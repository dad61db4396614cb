"""Labels where options disagree: the estimate, its intervals, and how many labels stand for random ones."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from tunepoint.errors import EvidenceError
from tunepoint.stats.comparisons import compare, score_intervals
from tunepoint.stats.disagreements import (
    AGREED,
    PoolScores,
    difference_p_value,
    looks_widening,
    with_pool,
)
from tunepoint.stats.paired import JointScores, joint_scores

Floats = NDArray[np.float64]
DISAGREEMENT, DIFFERENCE = 0.15, 0.04


def drawn(rng: np.random.Generator, count: int, clusters: int = 1) -> tuple[Floats, NDArray[np.intp]]:
    """(count, 2) scores of two options, and the strata: they differ on `DISAGREEMENT` of the inputs."""
    place = np.repeat(rng.random(-(-count // clusters)), clusters)[:count]
    first = (place < (DISAGREEMENT - DIFFERENCE) / 2).astype(float)
    second = ((place >= (DISAGREEMENT - DIFFERENCE) / 2) & (place < DISAGREEMENT)).astype(float)
    same = (rng.random(count) < 0.8) & (place >= DISAGREEMENT)
    strata = np.where(place < DISAGREEMENT, 1, AGREED)
    return np.stack([first + same, second + same], axis=1), strata


def joint(scores: Floats) -> JointScores:
    return joint_scores([column[None] for column in scores.T])


def labelled(rng: np.random.Generator, scores: Floats, strata: NDArray[np.intp], labels: int) -> PoolScores:
    chosen = rng.permutation(np.flatnonzero(strata))[:labels]
    return PoolScores(strata, chosen, scores[chosen])


def lead(joint: JointScores) -> float:
    return float(joint.estimates[1] - joint.estimates[0])


def variance(joint: JointScores) -> float:
    weights = np.array([-1.0, 1.0])
    return float(weights @ joint.item_covariance @ weights)


def test_labels_where_two_options_disagree_stand_for_the_inverse_of_that_share_of_random_ones() -> None:
    rng = np.random.default_rng(0)
    scores, strata = drawn(rng, 40_000)
    test, random = joint(scores[:100]), joint(scores[100:500])
    pooled = with_pool(test, labelled(rng, scores[1_000:], strata[1_000:], 60))
    # 60 labels where they differ are about 60 / .15 = 400 random ones
    apart = 1 / variance(test) + 1 / variance(random)
    assert 1 / variance(pooled) == pytest.approx(apart, rel=0.25)


def test_the_estimate_is_unbiased_and_its_intervals_hold() -> None:
    rng = np.random.default_rng(1)
    leads, holds = [], []
    for _ in range(400):
        scores, strata = drawn(rng, 1_600)
        pooled = with_pool(joint(scores[:100]), labelled(rng, scores[100:], strata[100:], 40))
        fixed = replace(pooled, at_all_looks=None)
        leads.append(lead(pooled))
        holds.append(DIFFERENCE in compare(fixed, [(1, 0)], rng, draws=1_000)[0].difference)
    assert np.mean(leads) == pytest.approx(DIFFERENCE, abs=3 * np.std(leads) / 20)
    assert 0.92 <= np.mean(holds) <= 0.98


def test_intervals_hold_at_all_looks_together() -> None:
    rng = np.random.default_rng(2)
    fixed_fail, wide_fail = 0, 0
    for _ in range(150):
        scores, strata = drawn(rng, 2_100)
        test, pool = joint(scores[:100]), labelled(rng, scores[100:], strata[100:], 250)
        looks = [
            with_pool(test, replace(pool, labelled=pool.labelled[:n], scores=pool.scores[:n]))
            for n in range(25, 251, 25)
        ]
        wide = [compare(look, [(1, 0)], rng, draws=500)[0].difference for look in looks]
        single = [
            compare(replace(look, at_all_looks=None), [(1, 0)], rng, draws=500)[0].difference
            for look in looks
        ]
        wide_fail += any(DIFFERENCE not in interval for interval in wide)
        fixed_fail += any(DIFFERENCE not in interval for interval in single)
    assert wide_fail / 150 <= 0.06 < fixed_fail / 150


def test_wider_bounds_have_the_same_center() -> None:
    rng = np.random.default_rng(10)
    scores, strata = drawn(rng, 2_100)
    pooled = with_pool(joint(scores[:100]), labelled(rng, scores[100:], strata[100:], 40))
    assert pooled.at_all_looks is not None
    assert pooled.at_all_looks.estimates == pytest.approx(pooled.estimates, abs=1e-12)
    assert variance(pooled.at_all_looks) > 1.3 * variance(pooled)


def test_labels_that_all_favor_one_option_at_first_do_not_mislead() -> None:
    rng = np.random.default_rng(11)
    fails = 0
    for _ in range(200):
        place = rng.random(2_100)
        won = np.stack([place < 0.17, (place >= 0.17) & (place < 0.2)], axis=1)  # 85% of those that differ
        scores = won.astype(float) + ((rng.random(2_100) < 0.8) & (place >= 0.2))[:, None]
        strata = np.where(place < 0.2, 1, AGREED)
        test, pool = joint(scores[:100]), labelled(rng, scores[100:], strata[100:], 50)
        looks = [
            with_pool(test, replace(pool, labelled=pool.labelled[:n], scores=pool.scores[:n]))
            for n in (10, 15, 25, 50)
        ]
        intervals = [compare(look, [(0, 1)], rng, draws=500)[0].difference for look in looks]
        fails += any(0.14 not in interval for interval in intervals)
    assert fails / 200 <= 0.07


def test_which_strata_are_joined_does_not_follow_the_labels() -> None:
    rng = np.random.default_rng(12)
    # 3 large strata, 40 tiny ones in which the second option always wins; the weights of the tiny are low
    sizes = [200, 150, 100, *[4] * 40]
    strata = np.repeat(np.arange(1, len(sizes) + 1), sizes)
    strata = np.concatenate([np.zeros(2_000, dtype=int), strata])
    wins = np.where(strata > 3, 0.0, np.where(strata == 3, 0.3, 0.7))
    weights = np.where(strata > 3, 0.25, 1.0)
    errors = []
    for _ in range(400):
        first = rng.random(len(strata)) < wins
        scores = np.where((strata > AGREED)[:, None], np.stack([first, ~first], axis=1), 0.5)
        times = -np.log1p(-rng.random(len(strata))) / weights
        chosen = np.flatnonzero(strata)[np.argsort(times[strata > AGREED])[:40]]
        pool = PoolScores(strata, chosen, scores[chosen], weights=weights)
        test = joint(np.tile([[0.0, 1.0], [1.0, 0.0]], (4, 1)))  # knows next to nothing
        truth = float((scores[:, 1] - scores[:, 0]).mean())
        errors.append(lead(with_pool(test, pool)) - truth)
    assert abs(np.mean(errors)) < 3 * np.std(errors) / 20 + 0.003


def test_clusters_of_the_pool_are_kept_whole() -> None:
    rng = np.random.default_rng(3)
    scores, strata = drawn(rng, 4_000, clusters=8)
    test = joint(drawn(rng, 100)[0])
    pool = labelled(rng, scores, strata, 200)
    clustered = replace(pool, clusters=np.arange(4_000) // 8)
    # the 8 inputs of a cluster differ together: 200 labels are hardly more than their clusters
    assert variance(with_pool(test, clustered)) > 1.3 * variance(with_pool(test, pool))
    assert clustered.labelled_groups < 80 <= pool.labelled_groups


def test_an_option_that_was_not_asked_keeps_its_score_beside_the_others() -> None:
    rng = np.random.default_rng(4)
    scores, strata = drawn(rng, 2_100)
    silent = (rng.random(100) < 0.7).astype(float)
    test = joint(np.column_stack([scores[:100], silent]))
    pool = labelled(rng, scores[100:], strata[100:], 100)
    pool = PoolScores(pool.strata, pool.labelled, np.column_stack([pool.scores, np.full(100, np.nan)]))
    pooled = with_pool(test, pool)
    assert variance_of(pooled, 0, 1) < 0.6 * variance_of(test, 0, 1)
    assert variance_of(pooled, 0, 2) == pytest.approx(variance_of(test, 0, 2), rel=0.25)
    assert pool.asked.tolist() == [0, 1]


def variance_of(joint: JointScores, one: int, other: int) -> float:
    covariance = joint.item_covariance
    return float(covariance[one, one] + covariance[other, other] - 2 * covariance[one, other])


def test_the_mean_level_of_the_scores_still_comes_from_the_test_set() -> None:
    rng = np.random.default_rng(5)
    scores, strata = drawn(rng, 5_100)
    test = joint(scores[:100])
    pooled = with_pool(test, labelled(rng, scores[100:], strata[100:], 300))
    before, after = (
        np.mean([interval.high - interval.low for interval in score_intervals(each, rng)])
        for each in (test, pooled)
    )
    assert after == pytest.approx(before, rel=0.2)  # a pool cannot say how good the options are


def test_few_labels_do_not_count_and_few_strata_are_joined() -> None:
    rng = np.random.default_rng(6)
    scores, strata = drawn(rng, 1_100)
    test = joint(scores[:100])
    assert with_pool(test, labelled(rng, scores[100:], strata[100:], 7)) is test
    split = np.where(strata[100:] == AGREED, AGREED, 1 + rng.integers(40, size=1_000))
    pooled = with_pool(test, labelled(rng, scores[100:], split, 30))  # strata with one label or none
    assert np.isfinite(pooled.item_covariance).all() and variance(pooled) < variance(test)


def test_options_that_differ_on_a_handful_of_labels_get_the_exact_interval() -> None:
    rng = np.random.default_rng(7)
    test = np.ones((100, 2))
    test[:3, 0] = 0.0
    scores = np.ones((400, 2))
    scores[:4, 0] = 0.0
    strata = np.where(np.arange(400) < 20, 1, AGREED)
    pooled = with_pool(joint(test), PoolScores(strata, np.arange(20), scores[:20]))
    assert pooled.labelled_groups is not None and pooled.labelled_groups[0, 1] == 4
    difference = compare(pooled, [(1, 0)], rng)[0].difference
    exact = compare(joint(test), [(1, 0)], rng)[0].difference
    assert difference.low <= exact.low and difference.high >= exact.high


def test_a_pool_with_other_differences_is_noticed() -> None:
    rng = np.random.default_rng(8)
    same, turned = [], []
    for _ in range(200):
        scores, strata = drawn(rng, 2_300)
        test = joint(scores[:300])
        pool = labelled(rng, scores[300:], strata[300:], 150)
        same.append(difference_p_value(test, pool) < 0.05)
        turned.append(difference_p_value(test, replace(pool, scores=pool.scores[:, ::-1])) < 0.05)
    assert np.mean(same) <= 0.1 and np.mean(turned) > 0.6


def test_mistakes_in_a_pool_are_named() -> None:
    test = joint(drawn(np.random.default_rng(9), 100)[0])
    strata = np.array([AGREED, 1, 1])
    with pytest.raises(EvidenceError, match="2 inputs are labeled and 1 have scores"):
        PoolScores(strata, np.array([1, 2]), np.ones((1, 2)))
    with pytest.raises(EvidenceError, match="all arms agree needs no label"):
        PoolScores(strata, np.array([0]), np.ones((1, 2)))
    with pytest.raises(EvidenceError, match=r"the pool has .3,. arms, the test set 2"):
        with_pool(test, PoolScores(strata, np.array([1]), np.ones((1, 3))))
    with pytest.raises(EvidenceError, match="not only their distribution"):
        with_pool(replace(test, means=None), PoolScores(strata, np.array([1]), np.ones((1, 2))))


def test_bounds_at_all_looks_are_narrowest_near_sixty_labels() -> None:
    widths = [looks_widening(labels) for labels in (10, 30, 60, 150, 1_000)]
    assert min(widths) == widths[2] and 1.4 < widths[2] < 1.7
    assert all(later > earlier for earlier, later in itertools.pairwise(widths[2:]))


def test_intervals_hold_with_wrong_labels_once_second_opinions_show_how_many() -> None:
    rng = np.random.default_rng(13)
    holds: dict[float, list[bool]] = {1.0: [], 0.6: []}
    for _ in range(200):
        scores, strata = drawn(rng, 3_100)
        test, pool = joint(scores[:100]), labelled(rng, scores[100:], strata[100:], 250)
        wrong = rng.random(250) < 0.2
        labels = np.where(wrong[:, None], pool.scores[:, ::-1], pool.scores)
        for reliability, held in holds.items():
            pooled = with_pool(test, replace(pool, scores=labels, reliability=reliability))
            fixed = replace(pooled, at_all_looks=None)
            held.append(DIFFERENCE in compare(fixed, [(1, 0)], rng, draws=500)[0].difference)
    assert np.mean(holds[1.0]) < 0.85 and np.mean(holds[0.6]) >= 0.93
