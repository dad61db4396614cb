"""Evidence by betting: it may be looked at after every item, and it is exact for five."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunepoint.errors import EvidenceError
from tunepoint.stats.racing import Race
from tunepoint.stats.sequential import betting_interval, log_e_value


def test_looking_after_every_item_does_not_break_the_promise() -> None:
    rng = np.random.default_rng(5)
    ever = 0
    for _ in range(300):
        values = rng.choice([-1.0, 0.0, 1.0], p=[0.15, 0.7, 0.15], size=300)
        ever += any(log_e_value(values[:n]) >= math.log(10) for n in range(5, 301, 5))
    assert ever / 300 <= 0.10 + 0.03


def test_a_true_difference_is_found_at_about_the_sample_size_that_theory_says() -> None:
    rng = np.random.default_rng(6)
    needed = []
    for _ in range(100):
        values = rng.choice([-1.0, 0.0, 1.0], p=[0.2, 0.7, 0.1], size=600)
        needed.append(next((n for n in range(5, 601, 5) if log_e_value(values[:n]) >= math.log(10)), 600))
    assert 2 * math.log(10) * 0.29 / 0.01 * 0.5 < np.median(needed) < 2 * math.log(10) * 0.29 / 0.01 * 2.2


def test_clusters_are_one_bet_each() -> None:
    rng = np.random.default_rng(7)
    ignoring = respecting = 0
    for _ in range(300):
        tables = rng.choice([-1.0, 1.0], size=20)
        values, clusters = np.repeat(tables, 10), np.repeat(np.arange(20), 10)
        ignoring += log_e_value(values) >= math.log(10)
        respecting += log_e_value(values, clusters, 10) >= math.log(10)
    assert respecting / 300 <= 0.1 < ignoring / 300
    with pytest.raises(EvidenceError, match="a cluster has 10 items, more than the announced 5"):
        log_e_value(values, clusters, 5)


def test_five_items_have_an_exact_interval() -> None:
    for low, high in ((0.0, 1.0), (-1.0, 1.0)):
        right = betting_interval(np.full(5, high), low=low, high=high)
        wrong = betting_interval(np.full(5, low), low=low, high=high)
        assert right.high == high and wrong.low == low
        assert low < right.low < high - 0.4 * (high - low)
        assert wrong.high - low == pytest.approx(high - right.low, abs=1e-4)
    rng = np.random.default_rng(8)
    for chance in (0.05, 0.5, 0.9):
        held = sum(
            chance in betting_interval((rng.random(5) < chance).astype(float), low=0.0) for _ in range(400)
        )
        assert held / 400 >= 0.95 - 0.02
    with pytest.raises(EvidenceError, match="at least 1 item"):
        betting_interval(np.array([]))
    with pytest.raises(EvidenceError, match=r"must lie in 0\.\.1"):
        betting_interval(np.array([0.5, 1.5]), low=0.0)


def test_the_exact_interval_keeps_clusters_whole() -> None:
    values = np.array([1.0, 1, 0, 0, 1, 1, 1, 1])
    independent = betting_interval(values, low=0.0)
    clustered = betting_interval(values, np.array([0, 0, 1, 1, 2, 2, 3, 3]), low=0.0)
    assert clustered.estimate == independent.estimate and clustered.low < independent.low


@given(st.lists(st.sampled_from([-1.0, -0.5, 0.0, 1.0]), min_size=1, max_size=40), st.randoms())
def test_the_order_of_items_does_not_matter_at_a_look(values: list[float], shuffler: object) -> None:
    shuffled = list(values)
    shuffler.shuffle(shuffled)  # type: ignore[attr-defined]
    assert log_e_value(np.array(values)) == pytest.approx(log_e_value(np.array(shuffled)))
    interval, mirrored = betting_interval(np.array(values)), betting_interval(-np.array(values))
    assert interval.low <= interval.estimate <= interval.high
    assert interval.low == pytest.approx(-mirrored.high, abs=1e-4)


def test_the_best_arm_is_seldom_lost_and_equal_arms_stay() -> None:
    rng = np.random.default_rng(9)
    lost = stayed = 0
    for _ in range(150):
        skills = [0.7, 0.7, 0.68, 0.5, 0.3]
        race = Race([str(i) for i in range(5)])
        answers = {str(i): (rng.random(300) < skill).astype(float) for i, skill in enumerate(skills)}
        for size in (16, 24, 36, 54, 81, 120, 180, 300):
            race.eliminate({name: answers[name][:size] for name in race.running})
        lost += "0" not in race.running and "1" not in race.running
        stayed += {"0", "1"} <= set(race.running)
        assert "4" not in race.running
    assert lost / 150 <= 0.1 and stayed / 150 >= 0.75


def looked_at_until_stopped(skill: float, best: float, rng: np.random.Generator) -> int | None:
    """Items after which an arm is found far behind one of another family; None if it never is."""
    items = 300
    # half of the items decide alike for both, as they do for two prompts of one model
    luck, shared = rng.random((2, items)), rng.random(items) < 0.5
    luck[1, shared] = luck[0, shared]
    scores = (luck < np.array([[skill], [best]])).astype(float)
    race = Race(["arm"])
    for n in range(16, items + 1, 16):
        race.stop_far_behind("best", scores[1, :n], {"arm": scores[0, :n]})
        if not race.running:
            assert race.stopped == {"arm": "best"}
            return n
    return None


def test_an_arm_that_is_not_far_behind_another_family_is_rarely_stopped() -> None:
    rng = np.random.default_rng(9)
    stopped = [looked_at_until_stopped(0.8, 0.9, rng) for _ in range(300)]
    assert sum(n is not None for n in stopped) / 300 <= 0.10 + 0.03


def test_an_arm_that_is_far_behind_another_family_is_stopped_early() -> None:
    rng = np.random.default_rng(10)
    stopped = [looked_at_until_stopped(0.3, 0.9, rng) or 300 for _ in range(100)]
    assert np.median(stopped) <= 48
