"""Arms that cost money race on the validation set: hopeless ones stop early, the best one is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from tunepoint.arms.contract import Arm
from tunepoint.data.examples import Example
from tunepoint.stats.arrays import Floats
from tunepoint.stats.racing import (
    FAR_BEHIND,
    FIRST_LOOK_ITEMS,
    LOOK_GROWTH,
    RACE_ERROR_RATE,
    Race,
    look_sizes,
)
from tunepoint.study.records import RaceResult
from tunepoint.task.task import Task
from tunepoint.trials.trial import Trial

MIN_READABLE_SHARE = 0.5
"""Of the answers of an arm that goes on."""
LAST_LOOK_ALONE = 2 * FIRST_LOOK_ITEMS
"""Items up to which an arm without rivals in its family is still compared with the standing winner."""
MIN_OPTIONS = 2
"""Winners of families before an arm stops for being far behind: a verdict compares two."""


def stops_far_behind(task: Task) -> bool:
    """Return whether a score far behind rules an arm out: not if a price or a limit could make up for it."""
    limited = any(limit is not None for limit in task.limits.model_dump(exclude={"margin"}).values())
    return not limited and task.value.error_usd is None


def answers(arms: int, items: int, *, one_goes_on: bool = True) -> tuple[float, float, float]:
    """Answers that a race takes: if all stop at the first look, midway, and if none stops.

    Args:
        arms: that race.
        items: of the validation set.
        one_goes_on: whether one arm at least is measured to the end.

    """
    least = float((arms - one_goes_on) * min(FIRST_LOOK_ITEMS, items) + one_goes_on * items)
    return least, (least + arms * items) / 2, float(arms * items)


@dataclass(frozen=True)
class Standing:
    """The best winner of a model's earlier families, behind which arms of its later ones may stop."""

    arm: str
    """Its name."""
    trials: Sequence[Trial]
    """Its answers to the validation set."""
    distance: float = FAR_BEHIND
    """In mean score; an arm that is further behind stops."""
    error: float = RACE_ERROR_RATE
    """Highest probability of stopping an arm that is not so far behind."""


@dataclass
class _Heat:
    """The race of one family, look by look."""

    arms: Mapping[str, Arm]
    dev: Sequence[Example]
    codes: NDArray[np.intp]
    """(n,) cluster of each item."""
    state: Race
    measure: Callable[[Sequence[Arm], Sequence[Example]], None]
    trials: Callable[[str], Sequence[Trial]]
    standing: Standing | None
    results: dict[str, RaceResult] = field(default_factory=dict)
    totals: dict[str, float] = field(default_factory=dict)
    """Name of an arm that ran to the last look -> its score there."""

    def look(self, end: int) -> None:
        """Measure what still runs on the first items, and stop what is hopeless."""
        items = self.dev[:end]
        self.measure([self.arms[name] for name in self.state.running], items)
        for name in list(self.state.running):
            reply = unreadable_reply(self.trials(name), items)
            if reply is not None:
                self.results[name] = RaceResult(arm=name, items=end, stopped_by=None, unreadable=reply)
                self.state.running.remove(name)
        scores = {name: item_scores(self.trials(name), items) for name in self.state.running}
        if not scores:
            return
        graded = ~np.any([np.isnan(values) for values in scores.values()], axis=0)  # a judge may fail
        if graded.any():
            self.state.eliminate(
                {name: values[graded] for name, values in scores.items()}, self._codes(graded)
            )
        if self.standing is not None:
            best = item_scores(self.standing.trials, items)
            known = graded & ~np.isnan(best)
            if known.any():
                running = {name: scores[name][known] for name in self.state.running}
                standing, codes = self.standing, self._codes(known)
                self.state.stop_far_behind(
                    standing.arm, best[known], running, codes, standing.distance, standing.error
                )
        for name in scores:
            self.results[name] = RaceResult(arm=name, items=end, stopped_by=self.state.stopped.get(name))
        self.totals = {name: float(scores[name][graded].sum()) for name in self.state.running}

    def _codes(self, keep: NDArray[np.bool_]) -> NDArray[np.intp]:
        return self.codes[: len(keep)][keep]


def race(
    arms: Sequence[Arm],
    dev: Sequence[Example],
    measure: Callable[[Sequence[Arm], Sequence[Example]], None],
    trials: Callable[[str], Sequence[Trial]],
    clusters: Mapping[str, str],
    *,
    error: float = RACE_ERROR_RATE,
    standing: Standing | None = None,
    growth: float = LOOK_GROWTH,
) -> tuple[Arm | None, list[RaceResult]]:
    """Return the winner, measured on all of dev, and how far every arm came; None if all were stopped.

    Args:
        arms: what differs between them is not the price of an answer, so the score decides.
        dev: in an order that says nothing about the items, items of a cluster side by side.
        measure: records the trials of arms on some items.
        trials: the trials of an arm, by its name.
        clusters: id of an item -> its cluster; an item that is missing is one of its own.
        error: highest probability of stopping the best arm.
        standing: whom to stop far behind; None to stop none so.
        growth: items at a look over those at the look before.

    """
    sizes = [len(list(group)) for _, group in groupby(dev, key=lambda item: clusters.get(item.id, item.id))]
    ends = np.cumsum(sizes).tolist()
    codes: NDArray[np.intp] = np.repeat(np.arange(len(sizes)), sizes)
    state = Race([arm.name for arm in arms], max(sizes), error)
    by_name = {arm.name: arm for arm in arms}
    heat = _Heat(by_name, dev, codes, state, measure, trials, standing)
    for size in look_sizes(len(dev), growth):
        end = next(stop for stop in ends if stop >= size)  # whole clusters only
        if len(state.running) == 1 and (standing is None or size > LAST_LOOK_ALONE):
            end = len(dev)  # a winner without rivals still needs a score over all of dev
        heat.look(end)
        if not state.running or end == len(dev):
            break
    winner = max(state.running, key=lambda name: heat.totals[name], default=None)
    return None if winner is None else by_name[winner], [heat.results[arm.name] for arm in arms]


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
