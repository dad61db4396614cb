"""Several answers to one item: the decoding is a source of variance of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tunepoint import Task, decide, read_trials, tabulate
from tunepoint.costs.declared_costs import guessed_cost
from tunepoint.errors import TrialsError
from tunepoint.stats.comparisons import compare
from tunepoint.trials.table import joint_of
from tunepoint.trials.trial import Trial

RNG = np.random.default_rng


def trials(
    arm: str,
    scores: np.ndarray[Any, Any],
    *,
    decodes: int = 1,
    noise: float = 0.0,
    moved: tuple[float, ...] = (),
    rng: np.random.Generator,
) -> list[Trial]:
    """Answers that flip with a probability, whole runs moved by as much as is said."""
    answers = []
    for decode in range(decodes):
        flips = rng.random(len(scores)) < noise
        worse = rng.random(len(scores)) < (moved[decode] if moved else 0.0)
        right = np.where(worse, 0.0, np.where(flips, 1 - scores, scores))
        answers += [
            Trial(arm=arm, item=str(i), score=float(value), decode=str(decode) if decode else None)
            for i, value in enumerate(right)
        ]
    return answers


def test_a_score_is_the_mean_over_decodes_and_one_decode_changes_nothing() -> None:
    rng, scores = RNG(0), (RNG(1).random(200) < 0.7).astype(float)
    first = trials("a", scores, rng=rng)
    again = [trial.model_copy(update={"decode": "1"}) for trial in first]
    single, two = tabulate(first), tabulate([*first, *again])
    assert two.arms[0].scores.shape == (1, 200) and two.arms[0].decodes[0].shape == (2, 200)
    assert np.array_equal(single.arms[0].scores, two.arms[0].scores)
    assert joint_of(two).item_covariance == pytest.approx(joint_of(single).item_covariance)
    assert joint_of(two).seed_covariance.sum() == 0


def test_more_decodes_narrow_the_interval_by_the_decoding_alone() -> None:
    scores = (RNG(1).random(2_000) < 0.6).astype(float)
    rng = RNG(2)
    single = joint_of(tabulate(trials("a", scores, noise=0.2, rng=rng)))
    many_table = tabulate(trials("a", scores, decodes=4, noise=0.2, rng=rng))
    many = joint_of(many_table)
    within = 0.2 * 0.8
    assert single.item_covariance[0, 0] - many.item_covariance[0, 0] == pytest.approx(
        within * 3 / 4 / 2_000, rel=0.25
    )
    assert many_table.arms[0].decode_variance == pytest.approx(within / 4 / 2_000, rel=0.05)
    assert many.max_seeds == 0 and many.decoded == {0}


def test_a_run_that_is_worse_as_a_whole_widens_the_interval() -> None:
    """A server that answers worse on some days: no number of items tells about other days."""
    rng, scores = RNG(3), (RNG(1).random(2_000) < 0.8).astype(float)
    other = trials("b", scores, noise=0.1, rng=rng)
    steady = trials("a", scores, decodes=3, rng=rng)
    moody = trials("a", scores, decodes=3, moved=(0.0, 0.1, 0.2), rng=rng)
    widths = []
    for arm in (steady, moody):
        difference = compare(joint_of(tabulate([*arm, *other])), [(0, 1)], rng)[0].difference
        widths.append(difference.high - difference.low)
    assert widths[1] > 3 * widths[0]
    task = Task.parse({"name": "t"})
    table = tabulate([*moody, *other])
    decision = decide(table, [guessed_cost(arm) for arm in table.arms], task, RNG(0))
    errors = decision.finalist("a").errors
    assert errors.training_seeds == 0 and errors.decodes is not None and errors.decodes > 0.02
    assert decision.finalist("b").errors.decodes is None
    assert any("can come from the decoding" in caveat for caveat in decision.caveats)
    needed = decision.evidence_needed
    assert needed is None or needed.training_seeds is None  # there is no training to repeat


def test_decodes_of_two_arms_are_not_paired_and_seeds_are() -> None:
    rng, scores = RNG(4), (RNG(1).random(500) < 0.8).astype(float)
    arms = [trials(arm, scores, decodes=3, moved=(0.0, 0.1, 0.2), rng=rng) for arm in "ab"]
    joint = joint_of(tabulate([trial for arm in arms for trial in arm]))
    assert joint.seed_covariance[0, 1] == 0 and joint.seed_covariance[0, 0] > 0
    seeded = [
        trial.model_copy(update={"seed": trial.decode or "0", "decode": None})
        for arm in arms
        for trial in arm
    ]
    assert joint_of(tabulate(seeded)).seed_covariance[0, 1] > 0


def test_seeds_with_several_decodes_each_keep_both(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    lines = [
        {"arm": "a", "item": str(item), "seed": seed, "decode": decode, "score": float((item + seed) % 3 > 0)}
        for seed in (0, 1)
        for decode in (0, 1)
        for item in range(30)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    arm = tabulate(read_trials(path)).arms[0]
    assert arm.scores.shape == (2, 30) and len(arm.decodes) == 2 and not arm.decoded
    path.write_text(path.read_text() + json.dumps(lines[0]) + "\n")
    with pytest.raises(TrialsError, match=r"with seed 0 with decode 0 already on line 1.*different decodes"):
        read_trials(path)
