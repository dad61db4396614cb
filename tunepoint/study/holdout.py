"""The sealed test: opened once for the finalists, measured whole or as far as it is worth its price."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from tunepoint.arms.contract import Arm, Resamplable
from tunepoint.arms.incumbent import Incumbent
from tunepoint.data.examples import Example
from tunepoint.errors import BudgetReached
from tunepoint.stats.streams import Stream
from tunepoint.study.expected_calls import ITEMS_ASKED_AT_ONCE
from tunepoint.study.ordering import shuffled
from tunepoint.study.planning import (
    ANSWERS_PER_SECOND,
    SECONDS_PER_REQUEST,
    TIMED_ITEMS,
    decodes_of,
    expected_seconds,
)
from tunepoint.study.records import Purchase
from tunepoint.study.runner import Runner
from tunepoint.study.selection import Selection
from tunepoint.trials.trial import Trial, TrialKey

Buy = Callable[[Sequence[Example], int], Purchase | None]
"""(test items measured, training seeds bought on top) -> what to buy next; None for nothing."""
MAX_MORE_SEEDS = 3
"""Training seeds that are bought on top of an arm's own, at most: they take hours, not only dollars."""
FIRST_ROUND, NEXT_ROUND = 200, 100
"""Test items before the first purchase, and in each purchase."""


def open_test(runner: Runner, selection: Selection, buy: Buy | None = None) -> None:
    """Open the sealed test: time single requests first, then ask for the rest.

    Args:
        buy: what to measure next, after 200 items and every purchase; all finalists answer the same
            items. All items are measured if None, and before the first purchase where no call is paid for.

    """
    study, split = runner.study, runner.prepared.split
    study.unseal([arm.name for arm in selection.finalists], len(split.test))
    in_rounds = buy is not None and bool(runner.prices)
    test = shuffled(runner, split.test, Stream.TEST_ORDER) if in_rounds else list(split.test)
    _time_requests(runner, selection, test)
    ends = rounds(test, split.clusters) if in_rounds else [len(test)]
    _measure_test(runner, selection, test[: ends[0]], 0)
    if study.manifest.bought is not None and study.manifest.bought.capped is not None:
        study.update(bought=study.manifest.bought.without_cap())
    try:
        end = _buy_evidence(runner, selection, test, ends, buy) if buy is not None else ends[0]
    except BudgetReached as reached:
        # the study is decided on what it has, if a decision of this purchase is there to carry the reason
        if study.manifest.bought is None:
            raise
        study.update(bought=study.manifest.bought.model_copy(update={"capped": str(reached)}))
        return
    _complete(runner, selection, test[:end])
    study.update(decodes=decodes_of(runner.task))


def _buy_evidence(
    runner: Runner, selection: Selection, test: Sequence[Example], ends: Sequence[int], buy: Buy
) -> int:
    """Buy evidence until nothing is worth its price; return how many test items are measured then."""
    place = more_seeds = 0
    while True:
        bought = buy(test[: ends[place]], more_seeds)
        if bought is None or (bought == "test_items" and place + 1 == len(ends)):
            return ends[place]
        place += bought == "test_items"
        more_seeds += bought == "training_seeds"
        _measure_test(runner, selection, test[: ends[place]], more_seeds)


def _complete(runner: Runner, selection: Selection, items: Sequence[Example]) -> None:
    """Have every finalist answer in full what all of them answered in an earlier run.

    That run had a reason to stop later, or fewer decodes; a run that lacks items would cost all arms theirs.
    """
    answered = [{t.item for t in runner.study.test.of(arm.name)} for arm in selection.finalists]
    ids = set.intersection(*answered) | {example.id for example in items}
    _measure_test(runner, selection, [e for e in runner.prepared.split.test if e.id in ids], 0)


def usable(trials: Sequence[Trial], finalists: Sequence[Arm]) -> list[Trial]:
    """Return the trials of the runs that a task asks for, and of further seeds that are complete.

    A run that was killed in the middle, or that the task no longer asks for, would leave its missing
    items out for every arm.
    """
    counted: list[Trial] = []
    for arm in finalists:
        decodes = arm.decodes if isinstance(arm, Resamplable) else 1
        seeds: dict[int, list[Trial]] = {}
        for trial in trials:
            if trial.arm == arm.name and int(trial.decode or 0) < decodes:
                seeds.setdefault(int(trial.seed or 0), []).append(trial)
        own = [{t.item for t in seeds.get(number, [])} for number in range(arm.seeds)]
        required = set.intersection(*own)
        for number, of_seed in seeds.items():
            if number < arm.seeds or required <= {trial.item for trial in of_seed}:
                counted += of_seed
    return counted


def _time_requests(runner: Runner, selection: Selection, test: Sequence[Example]) -> None:
    """Ask the arms of this machine one input at a time, and prepare them for all.

    Arms whose calls go by batch answer some items at once.
    """
    split, timed = runner.prepared.split, test[:TIMED_ITEMS]
    log, expected = runner.study.test, SECONDS_PER_REQUEST * len(timed)
    for arm in selection.finalists:
        if not arm.remote:
            runner.measure(arm, log, timed, split.train, one_by_one=True, seeds=1, expected=expected)
    if runner.models.batches is not None:  # what goes by batch has no seconds
        with runner.models.asking_at_once():
            for arm in selection.finalists:
                if arm.remote and not isinstance(arm, Incumbent):
                    runner.measure(arm, log, test[:ITEMS_ASKED_AT_ONCE], split.train)
    # only after the timing: a remembered input is answered faster than a new one
    inputs = [example.input for example in test]
    candidates = selection.candidates
    if candidates.encoder is not None and candidates.fine_tuned is not None:
        candidates.encoder.cache_states(inputs)
        candidates.encoder.cache_vectors(inputs)
        candidates.fine_tuned.cache_vectors(inputs)


def _measure_test(runner: Runner, selection: Selection, items: Sequence[Example], more_seeds: int) -> None:
    """Record every missing answer of every finalist to these items."""
    log, train = runner.study.test, runner.prepared.split.train
    steps = []
    for arm in selection.finalists:
        seeds = arm.seeds + more_seeds if arm.seeds > 1 else arm.seeds
        covered = arm.covered(items) if isinstance(arm, Incumbent) else items
        expected = 0.0
        if not arm.remote:
            done = {trial.key for trial in log.of(arm.name)}
            expected = _seconds_of_missing(arm, covered, seeds, done, len(train))
            runner.plan(expected if more_seeds else 0.0)
        steps.append(partial(runner.measure, arm, log, covered, train, seeds=seeds, expected=expected))
    runner.models.gather(steps)


def _seconds_of_missing(
    arm: Arm, items: Sequence[Example], seeds: int, done: set[TrialKey], train: int
) -> float:
    """Seconds that the missing answers of an arm take, with the training that its new seeds need."""
    seconds = 0.0
    for number in range(seeds):
        seed = str(number) if arm.seeds > 1 else None
        missing = sum((arm.name, example.id, seed, None) not in done for example in items)
        new = number >= arm.seeds and missing == len(items)
        seconds += missing / ANSWERS_PER_SECOND
        seconds += expected_seconds(arm, train) / arm.seeds if new else 0.0
    return seconds


def rounds(test: Sequence[Example], clusters: Mapping[str, str]) -> list[int]:
    """Numbers of test items after which to decide on more; whole clusters only, the last one all items."""
    ends = [
        i for i in range(1, len(test)) if clusters.get(test[i].id, i) != clusters.get(test[i - 1].id, i - 1)
    ]
    stops: list[int] = []
    for end in ends:
        if end >= (stops[-1] + NEXT_ROUND if stops else FIRST_ROUND):
            stops.append(end)
    return [*stops, len(test)]
