"""Novel inputs, the far slice, and what the signals say of them."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from tunepoint import Example
from tunepoint.stats.disagreements import PoolScores
from tunepoint.stats.novelty import MAX_COMPARED_INPUTS
from tunepoint.study.facts import Nearness, _far, input_novelty
from tunepoint.study.labelling.inputs import PoolInputs
from tunepoint.trials.tabulation import tabulate
from tunepoint.trials.trial import Trial

RNG = np.random.default_rng


class Directions:
    """An encoder whose vectors are given: the input is an angle in degrees."""

    def embed(self, inputs: list[str]) -> np.ndarray[Any, Any]:
        angles = np.radians(np.array([float(text) for text in inputs]))
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def near(train: list[float], test: list[float], pool: PoolInputs | None = None) -> Nearness | None:
    def examples(angles: list[float]) -> tuple[Example, ...]:
        return tuple(Example(str(i), str(angle), "x") for i, angle in enumerate(angles))

    prepared = SimpleNamespace(split=SimpleNamespace(train=examples(train), test=examples(test)))
    return input_novelty(cast(Any, Directions()), cast(Any, prepared), RNG(0), pool)


def test_inputs_like_those_of_train_are_not_novel_and_others_are() -> None:
    rng = RNG(1)
    train = rng.uniform(0, 20, 200).tolist()
    usual, strange = (
        near(train, rng.uniform(0, 20, 300).tolist()),
        near(train, rng.uniform(90, 110, 300).tolist()),
    )
    assert usual is not None and strange is not None
    assert usual.novelty == pytest.approx(0.05, abs=0.05) and strange.novelty == 1.0
    half = near(train, [*rng.uniform(0, 20, 150).tolist(), *rng.uniform(90, 110, 150).tolist()])
    assert half is not None and half.novelty == pytest.approx(0.5, abs=0.06)
    assert min(half.similarity.values()) < 0.5 < max(half.similarity.values())


def test_large_sets_are_compared_by_a_sample_and_one_input_by_none() -> None:
    many = RNG(2).uniform(0, 90, MAX_COMPARED_INPUTS + 500).tolist()
    novelty = near(many, many)
    assert novelty is not None and len(novelty.similarity) == MAX_COMPARED_INPUTS
    assert near([1.0], [2.0]) is None


def test_a_pool_tells_what_looks_new_with_what_the_study_knows_of_it() -> None:
    rng = RNG(1)
    train, test = rng.uniform(0, 20, 200).tolist(), rng.uniform(0, 20, 100).tolist()

    def examples(angles: list[float]) -> tuple[Example, ...]:
        return tuple(Example(f"pool:{angle}", str(angle), "") for angle in angles)

    new, known = examples(rng.uniform(90, 110, 60).tolist()), examples(rng.uniform(0, 20, 140).tolist())
    whole = near(train, test, PoolInputs(new, known))
    assert whole is not None and whole.traffic and whole.inputs == 200
    assert whole.novelty == pytest.approx(0.3 + 0.7 * 0.05, abs=0.05)  # of `new` alone: 1
    assert len(whole.similarity) == 300
    few = near(train, test, PoolInputs(new[:10], known[:10]))
    assert few is not None and not few.traffic and few.inputs == 100


def test_the_far_slice_is_the_least_familiar_fifth_and_what_of_the_pool_is_no_more_familiar() -> None:
    trials = [Trial(arm=arm, item=str(i), score=1, cluster=f"c{i // 2}") for i in range(20) for arm in "ab"]
    similarity = {str(i): i / 20 for i in range(20)}
    table = tabulate(trials)
    assert set(_far(table, similarity).items) == {"0", "1", "2", "3"}
    assert _far(tabulate(trials[:8]), similarity).items == ()
    pool = PoolScores(
        strata=np.array([1, 0, 1, 0]),
        labelled=np.array([0, 2]),
        scores=np.array([[1.0, 0.0], [0.0, 1.0]]),
        inputs=("p0", "p1", "p2", "p3"),
    )
    far = _far(replace(table, pool=pool), similarity | {"p0": 0.9, "p1": 0.1, "p2": 0.15, "p3": 0.2}).pool
    assert far is not None and far.inputs == ("p1", "p2")
    assert far.strata.tolist() == [0, 1] and far.labelled.tolist() == [1]
    assert far.scores.tolist() == [[0.0, 1.0]]
