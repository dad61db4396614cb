"""Arms that cost money race on dev: the hopeless ones stop early, and the best one is not lost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from tunepoint.arms.contract import Arm
from tunepoint.data.examples import Example
from tunepoint.stats.arrays import Floats
from tunepoint.stats.racing import ERROR, FIRST, Race, looks
from tunepoint.trials.trial import Trial


@dataclass(frozen=True)
class RaceResult:
    """How far an arm came."""

    arm: str
    items: int
    """Dev items that it answered."""
    stopped_by: str | None
    """The arm that was ahead when it was stopped; None for those that stayed to the end."""


def answers(arms: int, items: int) -> tuple[float, float, float]:
    """Answers that a race takes: if all stop at the first look, midway, and if none stops."""
    least = float((arms - 1) * min(FIRST, items) + items)
    return least, (least + arms * items) / 2, float(arms * items)


def race(
    arms: Sequence[Arm],
    dev: Sequence[Example],
    measure: Callable[[Arm, Sequence[Example]], None],
    trials: Callable[[str], Sequence[Trial]],
    clusters: Mapping[str, str],
    *,
    error: float = ERROR,
) -> tuple[Arm, list[RaceResult]]:
    """The winner, measured on all of dev, and how far every arm came.

    Args:
        arms: what differs between them is not the price of an answer, so the score decides.
        dev: in an order that says nothing about the items, items of a cluster side by side.
        measure: records the trials of an arm on some items.
        trials: the trials of an arm, by its name.
        clusters: id of an item -> its cluster; an item that is missing is one of its own.
        error: probability that the best arm is stopped, at most.

    """
    units = [list(group) for _, group in groupby(dev, key=lambda one: clusters.get(one.id, one.id))]
    ends = np.cumsum([len(unit) for unit in units]).tolist()
    codes: NDArray[np.intp] = np.repeat(np.arange(len(units)), [len(unit) for unit in units])
    course = Race([arm.name for arm in arms], max(len(unit) for unit in units), error)
    named = {arm.name: arm for arm in arms}
    places: dict[str, RaceResult] = {}
    for size in looks(len(dev)):
        end = next(stop for stop in ends if stop >= size)  # whole clusters only
        if len(course.running) == 1:
            end = len(dev)
        for name in course.running:
            measure(named[name], dev[:end])
        scores = {name: item_scores(trials(name), dev[:end]) for name in course.running}
        here = ~np.any([np.isnan(values) for values in scores.values()], axis=0)  # a judge may fail
        if here.any():
            course.look({name: values[here] for name, values in scores.items()}, codes[:end][here])
        places |= {name: RaceResult(name, end, course.stopped.get(name)) for name in scores}
        if end == len(dev):
            break
    winner = max(course.running, key=lambda name: float(scores[name][here].sum()))
    return named[winner], [places[arm.name] for arm in arms]


def item_scores(trials: Sequence[Trial], items: Sequence[Example]) -> Floats:
    """(n,) mean score of each item over its trials; NaN where it has none."""
    found: dict[str, list[float]] = {}
    for trial in trials:
        found.setdefault(trial.item, []).append(trial.score)
    return np.array([np.mean(found[item.id]) if item.id in found else np.nan for item in items])
