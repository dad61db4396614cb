from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tunepoint.errors import EvidenceError
from tunepoint.stats.comparisons import compare, score_intervals
from tunepoint.stats.intervals import Interval, score_interval
from tunepoint.stats.paired import draw_scores, joint_scores
from tunepoint.stats.ranges import Range

RNG = np.random.default_rng


def test_range_parses_numbers_and_triples() -> None:
    assert Range.parse(3) == Range(3, 3, 3)
    assert Range.parse([1, 2, 4]) == Range(1, 2, 4)
    assert Range.parse(Range(1, 2, 3)).mean == 2


@pytest.mark.parametrize("bad", ["3", True, [1, 2], [1, "2", 3], [3, 2, 1], None, float("nan")])
def test_range_refuses_what_is_not_one(bad: object) -> None:
    with pytest.raises(EvidenceError):
        Range.parse(bad)


@given(st.floats(0, 10), st.floats(0, 10), st.floats(0, 10), st.floats(0, 1))
def test_range_quantile_is_the_inverse_of_scipys_triangular(a: float, b: float, c: float, u: float) -> None:
    low, likely, high = sorted((a, b, c))
    value = Range(low, likely, high).quantile(np.array([u]))[0]
    assert low - 1e-9 <= value <= high + 1e-9
    if high - low > 1e-3:
        triangular = stats.triang(c=(likely - low) / (high - low), loc=low, scale=high - low)
        assert value == pytest.approx(triangular.ppf(u), abs=1e-6)


def test_range_sample_has_the_published_mean_and_variance() -> None:
    # Triangular distribution: mean (a+b+c)/3, variance (a2+b2+c2-ab-ac-bc)/18 (Johnson 1997).
    draws = Range(0, 1, 5).sample(200_000, RNG(0))
    assert draws.mean() == pytest.approx(2.0, abs=0.02)
    assert draws.var() == pytest.approx((0 + 1 + 25 - 0 - 0 - 5) / 18, rel=0.02)


def test_score_interval_is_wilsons_in_the_simple_case() -> None:
    # Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I,
    # method 3 (Wilson score): 81 of 263 gives .2553 to .3662.
    mean = 81 / 263
    interval = score_interval(mean, mean * (1 - mean) / 263, 263, stats.norm.ppf(0.975))
    assert interval.low == pytest.approx(0.2553, abs=5e-5)
    assert interval.high == pytest.approx(0.3662, abs=5e-5)


def test_score_interval_of_all_wrong_and_of_few() -> None:
    # The same table: 0 of 20 gives 0 to .1611; 1 of 29 gives .0061 to .1718.
    all_wrong = score_interval(0.0, 0.0, 20, stats.norm.ppf(0.975))
    assert (all_wrong.low, all_wrong.high) == (0.0, pytest.approx(0.1611, abs=5e-5))
    one_right = score_interval(1 / 29, 1 / 29 * 28 / 29 / 29, 29, stats.norm.ppf(0.975))
    assert one_right.low == pytest.approx(0.0061, abs=5e-5)
    assert one_right.high == pytest.approx(0.1718, abs=5e-5)
    all_right = score_interval(1.0, 0.0, 20, 1.96)
    assert all_right.high == 1.0 > all_right.low


def test_score_interval_refuses_nonsense() -> None:
    with pytest.raises(EvidenceError, match=r"0\.\.1"):
        score_interval(1.2, 0.1, 10, 2)
    with pytest.raises(EvidenceError, match="at least 1"):
        score_interval(0.5, 0.1, 0, 2)


def test_paired_difference_matches_students_published_sleep_data() -> None:
    # Student 1908, table of the additional hours of sleep: mean difference 1.58, 95% interval
    # 0.70 to 2.46 (as in every textbook's paired t-test). Scaled by 1/10 into 0..1.
    first = np.array([0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]) / 10 + 0.2
    second = np.array([1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]) / 10 + 0.2
    joint = joint_scores([second[None], first[None]])
    difference = compare(joint, [(0, 1)], RNG(0))[0].difference
    assert difference.estimate == pytest.approx(0.158)
    plain = 0.08778  # half width without the half pseudo-observation of Agresti and Min
    error = np.sqrt((plain / stats.t.ppf(0.975, 9)) ** 2 + 1 / 12**2)
    assert difference.high - difference.estimate == pytest.approx(stats.t.ppf(0.975, 9) * error, rel=1e-3)


def test_clusters_of_one_are_no_clusters_and_larger_ones_widen() -> None:
    rng = RNG(1)
    base = rng.random((1, 200)).round()
    alone = joint_scores([base], np.arange(200))
    assert alone.item_covariance == pytest.approx(joint_scores([base]).item_covariance)
    doubled = np.repeat(base, 2, axis=1)
    twice = joint_scores([doubled], np.repeat(np.arange(200), 2))
    assert twice.covariance[0, 0] == pytest.approx(alone.covariance[0, 0], rel=0.1)
    naive = joint_scores([doubled])
    assert twice.covariance[0, 0] > 1.7 * naive.covariance[0, 0]


def test_cluster_variance_by_hand() -> None:
    # Two clusters of two: sums of deviations are +1 and -1, so the variance is
    # (1 + 1) / 4^2 x 2 / (2 - 1) = 0.25, plus 0.5 / 6^2.
    scores = np.array([[1.0, 1.0, 0.0, 0.0]])
    joint = joint_scores([scores], np.array([0, 0, 1, 1]))
    assert joint.covariance[0, 0] == pytest.approx(0.25 + 0.5 / 36)


def test_seed_variance_pairs_seeds_of_the_same_name() -> None:
    rng = RNG(2)
    shift = np.array([0.0, 0.1, 0.2])[:, None]
    first = 0.3 + shift + 0.1 * rng.random((3, 400))
    second = 0.5 + shift + 0.1 * rng.random((3, 400))
    names = [("a", "b", "c"), ("a", "b", "c")]
    joint = joint_scores([first, second], seeds=names)
    assert np.sqrt(joint.seed_covariance[0, 0]) == pytest.approx(0.1 / np.sqrt(3), rel=0.05)
    together = compare(joint, [(0, 1)], RNG(0))[0].difference
    apart = joint_scores([first, second], seeds=[("a", "b", "c"), ("x", "y", "z")])
    unpaired = compare(apart, [(0, 1)], RNG(0))[0].difference
    assert together.high - together.low < 0.2 * (unpaired.high - unpaired.low)


def test_arms_that_never_differ_do_not_claim_that_they_never_will() -> None:
    same = np.ones((1, 50))
    difference = compare(joint_scores([same, same]), [(0, 1)], RNG(0))[0].difference
    assert difference.low < 0 < difference.high


def test_simultaneous_intervals_are_wider_than_single_ones() -> None:
    rng = RNG(3)
    arms = [(rng.random((1, 300)) < 0.8).astype(float) for _ in range(5)]
    joint = joint_scores(arms)
    single = compare(joint, [(0, 1)], RNG(0))[0].difference
    pairs = [(i, j) for i in range(5) for j in range(i)]
    simultaneous = next(c for c in compare(joint, pairs, RNG(0)) if (c.arm, c.against) == (1, 0)).difference
    assert simultaneous.high - simultaneous.low > 1.2 * (single.high - single.low)
    # Tukey's studentised range for 5 means and many degrees of freedom is 3.858 (published
    # tables), so the multiplier tends to 3.858 / sqrt(2) = 2.728 for independent arms.
    ratio = (simultaneous.high - simultaneous.low) / (single.high - single.low)
    assert ratio == pytest.approx(2.728 / stats.t.ppf(0.975, 299), rel=0.06)
    assert compare(joint, [], RNG(0)) == []


def test_draws_have_the_moments_they_should() -> None:
    rng = RNG(4)
    arms = [(rng.random((1, 500)) < p).astype(float) for p in (0.4, 0.6)]
    joint = joint_scores(arms)
    draws = draw_scores(joint, 40_000, RNG(0))
    assert draws.mean(axis=0) == pytest.approx(joint.estimates, abs=0.001)
    assert np.cov(draws.T) == pytest.approx(joint.covariance, rel=0.05, abs=1e-5)


def test_too_little_data_is_an_error_and_never_zero() -> None:
    with pytest.raises(EvidenceError, match="nothing to compare"):
        joint_scores([np.zeros((1, 0))])
    with pytest.raises(EvidenceError, match="share their items"):
        joint_scores([np.ones((1, 3)), np.ones((1, 4))])
    with pytest.raises(EvidenceError, match="1 group"):
        joint_scores([np.ones((1, 3))], np.zeros(3, dtype=int))


def test_an_interval_knows_what_is_in_it() -> None:
    assert 0.5 in Interval(0.5, 0.4, 0.6)
    assert 0.7 not in Interval(0.5, 0.4, 0.6)
    assert "x" not in Interval(0.5, 0.4, 0.6)


def study(rng: np.random.Generator, items: int, seeds: int, size: int, seed_sd: float):
    """Two arms on items in clusters of `size`; the first has a training-seed effect."""
    codes = np.repeat(np.arange(-(-items // size)), size)[:items]
    hard = rng.normal(0, 1, items) + 0.7 * (size > 1) * rng.normal(0, 1, codes.max() + 1)[codes]
    own = [hard + rng.normal(0, 0.4, items) for _ in range(2)]
    runs = [
        own[0] + rng.normal(0, seed_sd) * (seeds > 1) + rng.normal(0, 0.25, items) * (seeds > 1)
        for _ in range(seeds)
    ]
    return [np.stack([(run + 1.0 > 0) for run in runs]) * 1.0, (own[1:2] + np.array(1.2) > 0) * 1.0], codes


def truth(size: int, seeds: int, seed_sd: float) -> np.ndarray:
    variance = 1 + 0.4**2 + 0.49 * (size > 1)
    noisy = variance + (0.25**2 + seed_sd**2) * (seeds > 1)
    return stats.norm.cdf([1.0 / np.sqrt(noisy), 1.2 / np.sqrt(variance)])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("items", "seeds", "size", "seed_sd"),
    [
        (300, 1, 1, 0.0),
        (1000, 1, 1, 0.0),
        (300, 1, 3, 0.0),
        (600, 3, 1, 0.05),
        (1000, 3, 2, 0.1),
        (300, 3, 1, 0.2),
        (1000, 3, 1, 0.3),
    ],
)
def test_coverage_of_the_intervals(items: int, seeds: int, size: int, seed_sd: float) -> None:
    right = truth(size, seeds, seed_sd)
    studies = 1_500
    covered = np.zeros((studies, 2))
    for number in range(studies):
        rng = RNG(number)
        scores, codes = study(rng, items, seeds, size, seed_sd)
        joint = joint_scores(scores, codes)
        difference = compare(joint, [(0, 1)], rng, draws=4_000)[0].difference
        both = score_intervals(joint, rng, draws=4_000)
        covered[number] = (
            float(right[0] - right[1]) in difference,
            all(float(r) in interval for r, interval in zip(right, both, strict=True)),
        )
    difference_rate, simultaneous_rate = covered.mean(axis=0)
    assert 0.93 <= difference_rate <= 0.97, difference_rate
    assert 0.93 <= simultaneous_rate <= 0.97, simultaneous_rate
