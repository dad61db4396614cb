"""Each honesty guard has a case that triggers it and one that does not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from test_power import COSTS, table

from tunepoint import Task, decide
from tunepoint.decision.guards import repeats_differ, twins_decide
from tunepoint.study.contamination import Contamination, without_copies
from tunepoint.trials.table import Table

RNG = np.random.default_rng
TASK = Task.parse({"name": "t", "traffic": {"queries_per_month": 10_000}})


def failing(items: int, unread: float, **fields: Any) -> Table:
    """A prompt that is as good as the tuned arm wherever its answer can be read."""
    rng = RNG(2)
    right = rng.random(items) < 0.9
    parsed = rng.random(items) >= unread
    tuned = np.where(rng.random(items) < 0.06, ~right, right)
    arms = table({"prompted": (right & parsed)[None].astype(float), "tuned": tuned[None].astype(float)})
    prompted = replace(arms.arms[0], format_ok=float(parsed.mean()), **fields)
    return replace(arms, arms=(prompted, arms.arms[1]))


def test_an_arm_that_loses_by_its_format_alone_keeps_the_verdict_from_being_confident() -> None:
    lost = decide(failing(3_000, 0.15), COSTS, TASK, RNG(0))
    assert lost.winner == "tuned" and lost.risks.wrong < 0.05 and lost.strength == "leaning"
    assert any("prompted loses by its format: 1" in caveat for caveat in lost.caveats)
    tried = decide(failing(3_000, 0.15, repaired=0.03), COSTS, TASK, RNG(0))
    assert tried.strength == "confident"  # it was repaired, and lost fairly
    assert not any("loses by its format" in caveat for caveat in tried.caveats)
    fine = decide(failing(3_000, 0.0), COSTS, TASK, RNG(0))
    assert fine.winner == "prompted" and fine.strength == "confident"


def test_repeats_of_one_arm_that_differ_are_said_and_noise_is_not() -> None:
    rng, flagged = RNG(5), 0
    for _ in range(40):
        same = table({"tuned": (rng.random((3, 600)) < 0.8).astype(float)})
        flagged += bool(repeats_differ(same, rng))
    assert flagged <= 6
    seeds = np.stack([rng.random(2_000) < chance for chance in (0.8, 0.8, 0.9)]).astype(float)
    caveats = repeats_differ(table({"tuned": seeds}), rng)
    assert len(caveats) == 1 and "and 2 differ by" in caveats[0]
    assert repeats_differ(table({"one": seeds[:1]}), rng) == []


def test_a_verdict_that_rests_on_copies_is_not_confident() -> None:
    fair = decide(failing(3_000, 0.0), COSTS, TASK, RNG(0))
    same = Contamination(1, {}, fair.verdict, fair.winner)
    assert without_copies(fair, same).strength == "confident"
    assert without_copies(fair, Contamination()).caveats == fair.caveats
    other = Contamination(1, {}, "fine-tune", "tuned")
    doubted = without_copies(fair, other)
    assert doubted.strength == "leaning" and "memorized" in doubted.caveats[0]
    assert twins_decide("prompt", "a", "prompt", "b") and not twins_decide("prompt", "a", "prompt", "a")
