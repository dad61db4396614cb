"""Differences by slice hold their false discoveries down; routing is suggested only where it wins."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from test_power import table

from tunepoint.decision.slices import by_slice, routing_words
from tunepoint.stats.disagreements import PoolScores
from tunepoint.trials.table import Table

RNG = np.random.default_rng
KINDS: Any = ("prompt", "tuned")


def sliced(chances: dict[str, tuple[float, float]], each: int, seed: int = 0) -> Table:
    """Prompted and tuned, each with its own chance of being right in every slice."""
    rng = RNG(seed)
    prompted = np.concatenate([rng.random(each) < chance for chance, _ in chances.values()])
    tuned = np.concatenate([rng.random(each) < other for _, other in chances.values()])
    whole = table({"prompted": prompted[None].astype(float), "tuned": tuned[None].astype(float)})
    return replace(whole, slices=tuple(name for name in chances for _ in range(each)))


def test_each_slice_names_the_arm_that_is_better_there() -> None:
    arms = sliced({"bills": (0.6, 0.9), "refunds": (0.9, 0.6), "same": (0.8, 0.8)}, 200)
    compared = by_slice(arms, KINDS, RNG(0))
    assert compared is not None and (compared.arm, compared.against, compared.by) == (
        "tuned",
        "prompted",
        "slice",
    )
    assert {part.name: part.better for part in compared.slices} == {
        "bills": "tuned",
        "refunds": "prompted",
        "same": None,
    }
    routing = compared.routing
    assert routing is not None and routing.wins and routing.gain.estimate > 0.1
    assert "bills" in routing.arms["tuned"] and "refunds" in routing.arms["prompted"]
    words = routing_words(compared)
    assert words is not None and "on held-out items" in words


def test_equal_arms_are_called_different_in_few_slices_and_are_not_routed() -> None:
    called = tried = suggested = optimistic = 0
    for seed in range(60):
        arms = sliced({str(i): (0.8, 0.8) for i in range(10)}, 60, seed)
        compared = by_slice(arms, KINDS, RNG(seed))
        assert compared is not None
        called += any(part.better for part in compared.slices)
        if compared.routing is not None:
            tried += 1
            suggested += compared.routing.wins
            optimistic += compared.routing.optimism > 0
            assert (routing_words(compared) is not None) == compared.routing.wins
    assert tried >= 50 and called / 60 <= 0.12
    assert suggested / tried <= 0.05 and optimistic / tried > 0.8


def test_labels_are_slices_and_a_router_sees_only_what_was_answered() -> None:
    arms = replace(sliced({"a": (0.5, 0.95), "b": (0.95, 0.5)}, 150), slices=(None,) * 300)
    labels = {item: "a" if int(item) < 150 else "b" for item in arms.items}
    informed = by_slice(arms, KINDS, RNG(0), labels=labels, answered=labels)
    assert (
        informed is not None
        and informed.by == "label"
        and informed.routing is not None
        and informed.routing.wins
    )
    useless = {item: str(int(item) % 2) for item in arms.items}
    blind = by_slice(arms, KINDS, RNG(0), labels=labels, answered=useless)
    assert blind is not None and {part.better for part in blind.slices} == {"tuned", "prompted"}
    assert blind.routing is None or not blind.routing.wins
    assert by_slice(arms, KINDS, RNG(0)) is None  # no column, no labels: no slices


def test_slices_of_a_few_items_are_named_and_not_compared() -> None:
    arms = sliced({"large": (0.8, 0.9), "also": (0.8, 0.9)}, 100)
    arms = replace(arms, slices=(*["tiny"] * 3, *arms.slices[3:]))
    compared = by_slice(arms, KINDS, RNG(0))
    assert compared is not None and compared.too_small == ("tiny",) and len(compared.slices) == 2


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.permutations(["a", "b", "c", "d"]))
def test_the_names_of_labels_change_nothing(seed: int, names: list[str]) -> None:
    arms = replace(sliced({"a": (0.5, 0.95), "b": (0.95, 0.5), "c": (0.8, 0.8), "d": (0.7, 0.9)}, 60, seed))
    labels = dict(zip(arms.items, map(str, arms.slices), strict=True))
    arms = replace(arms, slices=(None,) * len(arms.items))
    other = dict(zip(["a", "b", "c", "d"], names, strict=True))
    renamed = {item: other[label] for item, label in labels.items()}
    original = by_slice(arms, KINDS, RNG(0), labels=labels, answered=labels)
    two = by_slice(arms, KINDS, RNG(0), labels=renamed, answered=renamed)
    assert (
        original is not None
        and two is not None
        and (original.arm, original.against) == (two.arm, two.against)
    )
    here = {other[slice.name]: (slice.difference.estimate, slice.better) for slice in original.slices}
    assert here == {slice.name: (slice.difference.estimate, slice.better) for slice in two.slices}
    assert original.routing is not None and two.routing is not None
    assert original.routing.gain == two.routing.gain
    for kind, routed in original.routing.arms.items():
        assert {other[name] for name in routed} == set(two.routing.arms[kind])


def test_a_pool_narrows_the_slices_that_a_column_names_and_stays_true() -> None:
    """Prompted is right in .7 of either slice; tuned in .7 of one and in .8 of the other."""
    truth = {"same": 0.0, "bills": 0.1}
    covered = 0
    widths: dict[bool, list[float]] = {True: [], False: []}
    for seed in range(40):
        rng = RNG(seed)
        arms = with_answers_to_a_pool({"same": (0.7, 0.7), "bills": (0.7, 0.8)}, rng, labels=120)
        compared = by_slice(arms, KINDS, rng)
        alone = by_slice(replace(arms, pool=None), KINDS, RNG(seed))
        assert compared is not None and alone is not None
        for part, without in zip(compared.slices, alone.slices, strict=True):
            assert part.labels > 20 and without.labels == 0 and part.items == without.items == 60
            covered += part.difference.low <= truth[part.name] <= part.difference.high
            widths[True].append(part.difference.high - part.difference.low)
            widths[False].append(without.difference.high - without.difference.low)
    assert covered >= 74  # of 80; nominal 76, and the bounds hold at all looks
    assert np.mean(widths[True]) < 0.8 * np.mean(widths[False])


def test_slices_by_label_leave_the_pool_out() -> None:
    arms = with_answers_to_a_pool({"same": (0.7, 0.7), "bills": (0.7, 0.8)}, RNG(0), labels=120)
    labels = {item: str(i % 2) for i, item in enumerate(arms.items)}
    compared = by_slice(replace(arms, slices=(None,) * len(arms.items)), KINDS, RNG(0), labels=labels)
    assert compared is not None and [part.labels for part in compared.slices] == [0, 0]


def with_answers_to_a_pool(
    chances: dict[str, tuple[float, float]], rng: np.random.Generator, *, labels: int
) -> Table:
    """60 test items and 1,000 inputs of a pool in each slice, which two options answer much alike."""

    def scores(each: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], list[str]]:
        names = [name for name in chances for _ in range(each)]
        luck = rng.random(len(names))  # shared: an input that is easy for one is easy for the other
        own = rng.random(len(names)) < 0.15
        prompted = luck < np.array([chances[name][0] for name in names])
        tuned = np.where(own, rng.random(len(names)), luck) < np.array([chances[name][1] for name in names])
        return prompted.astype(float), tuned.astype(float), names

    prompted, tuned, names = scores(60)
    whole = replace(table({"prompted": prompted[None], "tuned": tuned[None]}), slices=tuple(names))
    prompted, tuned, names = scores(1_000)
    strata = (prompted != tuned).astype(int)
    labelled = np.sort(rng.permutation(np.flatnonzero(strata))[:labels])
    shown = np.stack([prompted, tuned], axis=1)[labelled]
    return replace(whole, pool=PoolScores(strata, labelled, shown, slices=tuple(names)))
