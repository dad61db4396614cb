"""A study's own curve against its verdict: what it adds, and when it keeps quiet."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from tunepoint.stats.curves import fit_curve
from tunepoint.stats.intervals import Interval
from tunepoint.study.learning_curve import LearningCurve, still_rising

RNG = np.random.default_rng


def learning(scores: list[float]) -> LearningCurve:
    sizes = [50, 100, 200, 400]
    curve = fit_curve(sizes, scores, [0.01] * 4, RNG(0))
    rows = tuple((size, Interval(s, s - 0.02, s + 0.02)) for size, s in zip(sizes, scores, strict=True))
    return LearningCurve(rows, 20, curve)


def decision(tuned: float, prompted: float) -> Any:
    finalists = [
        SimpleNamespace(arm=name, score=Interval(score, score, score))
        for name, score in (("tuned", tuned), ("prompted", prompted))
    ]
    return cast(
        Any, SimpleNamespace(winner="prompted", finalists=finalists, titles={"tuned": "tuned MiniLM"})
    )


RISING = [0.3, 0.45, 0.58, 0.68]


def test_an_early_curve_does_not_let_a_verdict_rule_tuning_out() -> None:
    (caveat,) = still_rising(decision(0.68, 0.75), learning(RISING), ["tuned"], 0.02)
    assert (
        caveat.startswith("tuned MiniLM learned")
        and "learned from 400 examples (20 per label)" in caveat
        and "0.070 behind" in caveat
    )
    assert "does not rule tuning out" in caveat


def test_it_keeps_quiet_where_the_score_did_not_decide_or_will_not() -> None:
    assert still_rising(decision(0.78, 0.75), learning(RISING), ["tuned"], 0.02) == []  # lost on cost
    flat = learning([0.60, 0.60, 0.60, 0.60])
    assert still_rising(decision(0.60, 0.95), flat, ["tuned"], 0.02) == []
    assert still_rising(decision(0.68, 0.75), None, ["tuned"], 0.02) == []


def test_growth_is_that_of_the_curve_at_every_doubling() -> None:
    gain = learning(RISING).growth(["tuned"])
    assert gain is not None and gain.gains["tuned"].estimate > 0
    assert gain.doublings[0] == 1.0 and list(gain.doublings) == sorted(gain.doublings)
    assert gain.doublings[2] < 3  # curves flatten
    assert gain.soon is not None and 0 < gain.soon < 1
