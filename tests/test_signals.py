"""Novel inputs, the far slice, and what the signals say of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from tunepoint import Example
from tunepoint.stats.novelty import MAX_COMPARED_INPUTS
from tunepoint.study.facts import _far, input_novelty
from tunepoint.trials.trial import Trial

RNG = np.random.default_rng


class Directions:
    """An encoder whose vectors are given: the input is an angle in degrees."""

    def embed(self, inputs: list[str]) -> np.ndarray[Any, Any]:
        angles = np.radians(np.array([float(text) for text in inputs]))
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def near(train: list[float], test: list[float]) -> tuple[float, dict[str, float]] | None:
    def examples(angles: list[float]) -> tuple[Example, ...]:
        return tuple(Example(str(i), str(angle), "x") for i, angle in enumerate(angles))

    prepared = SimpleNamespace(split=SimpleNamespace(train=examples(train), test=examples(test)))
    return input_novelty(cast(Any, Directions()), cast(Any, prepared), RNG(0))


def test_inputs_like_those_of_train_are_not_novel_and_others_are() -> None:
    rng = RNG(1)
    train = rng.uniform(0, 20, 200).tolist()
    usual, strange = (
        near(train, rng.uniform(0, 20, 300).tolist()),
        near(train, rng.uniform(90, 110, 300).tolist()),
    )
    assert usual is not None and strange is not None
    assert usual[0] == pytest.approx(0.05, abs=0.05) and strange[0] == 1.0
    half = near(train, [*rng.uniform(0, 20, 150).tolist(), *rng.uniform(90, 110, 150).tolist()])
    assert half is not None and half[0] == pytest.approx(0.5, abs=0.06)
    assert min(half[1].values()) < 0.5 < max(half[1].values())


def test_large_sets_are_compared_by_a_sample_and_one_input_by_none() -> None:
    many = RNG(2).uniform(0, 90, MAX_COMPARED_INPUTS + 500).tolist()
    novelty = near(many, many)
    assert novelty is not None and len(novelty[1]) == MAX_COMPARED_INPUTS
    assert near([1.0], [2.0]) is None


def test_the_far_slice_is_the_least_familiar_fifth_and_never_one_cluster() -> None:
    trials = [Trial(arm=arm, item=str(i), score=1, cluster=f"c{i // 2}") for i in range(20) for arm in "ab"]
    similarity = {str(i): i / 20 for i in range(20)}
    assert {trial.item for trial in _far(trials, similarity)} == {"0", "1", "2", "3"}
    same_cluster = [trial.model_copy(update={"cluster": "c"}) for trial in trials]
    assert _far(same_cluster, similarity) == [] and _far(trials[:4], similarity) == []
