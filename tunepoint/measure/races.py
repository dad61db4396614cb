"""Arms that cost money race on dev: the hopeless ones stop early."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tunepoint.arms import Arm
from tunepoint.data.examples import Example
from tunepoint.measure.trials import Trial, mean_score

FIRST = 16
"""Dev items that every arm answers."""


def stages(arms: int, items: int) -> list[tuple[int, int]]:
    """(arms, items) of each stage: a third of the arms goes on to three times the items.

    Successive halving (Jamieson and Talwalkar 2016) with a rate of three; the last stage
    has one arm and all items.
    """
    plan = []
    size, running = min(FIRST, items), arms
    while running > 1 and size < items:
        plan.append((running, size))
        running, size = max(1, -(-running // 3)), min(items, size * 3)
    return [*plan, (running, items)]


def race(
    arms: Sequence[Arm],
    dev: Sequence[Example],
    measure: Callable[[Arm, Sequence[Example]], None],
    trials: Callable[[str], Sequence[Trial]],
) -> Arm:
    """The arm that wins the race.

    Args:
        arms: of one family: they differ in settings and wording only.
        dev: in an order that says nothing about the items.
        measure: records the trials of an arm on some items.
        trials: the trials of an arm, by its name.

    """
    running = list(arms)
    seen: set[str] = set()

    def score(arm: Arm) -> float:
        return mean_score([trial for trial in trials(arm.name) if trial.item in seen])

    for count, size in stages(len(arms), len(dev)):
        if count < len(running):
            running = sorted(running, key=lambda arm: -score(arm))[:count]
        for arm in running:
            measure(arm, dev[:size])
        seen = {example.id for example in dev[:size]}
    return max(running, key=score)
