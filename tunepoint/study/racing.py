"""Arms that cost money race on the validation set: hopeless ones stop early, the best one is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from tunepoint.arms.contract import Arm
from tunepoint.data.examples import Example
from tunepoint.stats.arrays import Floats
from tunepoint.stats.racing import FIRST_LOOK_ITEMS, RACE_ERROR_RATE, Race, look_sizes
from tunepoint.study.records import RaceResult
from tunepoint.trials.trial import Trial

MIN_READABLE_SHARE = 0.5
"""Of the answers of an arm that goes on."""


def answers(arms: int, items: int) -> tuple[float, float, float]:
    """Answers that a race takes: if all stop at the first look, midway, and if none stops."""
    least = float((arms - 1) * min(FIRST_LOOK_ITEMS, items) + items)
    return least, (least + arms * items) / 2, float(arms * items)


def race(
    arms: Sequence[Arm],
    dev: Sequence[Example],
    measure: Callable[[Arm, Sequence[Example]], None],
    trials: Callable[[str], Sequence[Trial]],
    clusters: Mapping[str, str],
    *,
    error: float = RACE_ERROR_RATE,
    stop_unreadable: bool = True,
) -> tuple[Arm | None, list[RaceResult]]:
    """Return the winner, measured on all of dev, and how far every arm came; None if none can be read.

    Args:
        arms: what differs between them is not the price of an answer, so the score decides.
        dev: in an order that says nothing about the items, items of a cluster side by side.
        measure: records the trials of an arm on some items.
        trials: the trials of an arm, by its name.
        clusters: id of an item -> its cluster; an item that is missing is one of its own.
        error: highest probability of stopping the best arm.
        stop_unreadable: stop arms whose answers cannot be read.

    """
    units = [list(group) for _, group in groupby(dev, key=lambda item: clusters.get(item.id, item.id))]
    ends = np.cumsum([len(unit) for unit in units]).tolist()
    codes: NDArray[np.intp] = np.repeat(np.arange(len(units)), [len(unit) for unit in units])
    state = Race([arm.name for arm in arms], max(len(unit) for unit in units), error)
    by_name = {arm.name: arm for arm in arms}
    results: dict[str, RaceResult] = {}
    for size in look_sizes(len(dev)):
        end = next(stop for stop in ends if stop >= size)  # whole clusters only
        if len(state.running) == 1:
            end = len(dev)  # a winner without rivals still needs a score over all of dev
        for name in list(state.running):
            measure(by_name[name], dev[:end])
            reply = unreadable_reply(trials(name), dev[:end]) if stop_unreadable else None
            if reply is not None:
                results[name] = RaceResult(arm=name, items=end, stopped_by=None, unreadable=reply)
                state.running.remove(name)
        if not state.running:
            return None, [results[arm.name] for arm in arms]
        scores = {name: item_scores(trials(name), dev[:end]) for name in state.running}
        graded = ~np.any([np.isnan(values) for values in scores.values()], axis=0)  # a judge may fail
        if graded.any():
            state.eliminate({name: values[graded] for name, values in scores.items()}, codes[:end][graded])
        for name in scores:
            results[name] = RaceResult(arm=name, items=end, stopped_by=state.stopped.get(name))
        if end == len(dev):
            break
    winner = max(state.running, key=lambda name: float(scores[name][graded].sum()))
    return by_name[winner], [results[arm.name] for arm in arms]


def unreadable_reply(trials: Sequence[Trial], items: Sequence[Example]) -> str | None:
    """Return a reply of an arm that is not worth its calls: too few of its answers can be read.

    That is none of the first 16, or under half of the first 32 or more. None for an arm that goes on.
    """
    answered = {trial.item: trial for trial in trials}
    looked_at = [answered[item.id] for item in items if item.id in answered]
    unreadable = [trial for trial in looked_at if not trial.format_ok]
    share = len(unreadable) / max(1, len(looked_at))
    hopeless = len(looked_at) >= FIRST_LOOK_ITEMS and share == 1
    hopeless |= len(looked_at) >= 2 * FIRST_LOOK_ITEMS and share > 1 - MIN_READABLE_SHARE
    return (unreadable[0].answer or unreadable[0].error or "") if hopeless else None


def item_scores(trials: Sequence[Trial], items: Sequence[Example]) -> Floats:
    """Return the (n,) mean scores of the items over their trials; NaN where an item has none."""
    scores: dict[str, list[float]] = {}
    for trial in trials:
        scores.setdefault(trial.item, []).append(trial.score)
    return np.array([np.mean(scores[item.id]) if item.id in scores else np.nan for item in items])
