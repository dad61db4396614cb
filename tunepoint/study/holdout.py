"""The sealed test: opened once for the finalists, measured whole or as far as it is worth its price."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from tunepoint.arms.catalog import CandidateArms
from tunepoint.arms.contract import Arm, Resamplable
from tunepoint.arms.incumbent import Incumbent
from tunepoint.data.examples import Example
from tunepoint.errors import BudgetReached
from tunepoint.stats.streams import Stream
from tunepoint.study.bench import TIMED, Runner, shuffled
from tunepoint.study.planning import decodes_of, expected_seconds
from tunepoint.study.selection import Selection
from tunepoint.trials.trial import Key, Trial

Purchase = Literal["test_items", "training_seeds"]
Buy = Callable[[Sequence[Example], int], Purchase | None]
"""(test items measured, training seeds bought on top) -> what to buy next; None for nothing."""
MOST_MORE_SEEDS = 3
"""Training seeds that are bought on top of an arm's own, at most: they take hours, not only dollars."""


def open_test(
    runner: Runner, candidates: CandidateArms, selection: Selection, buy: Buy | None = None
) -> None:
    """Open the sealed test: time single requests first, then ask for the rest in batches.

    Args:
        buy: what to measure next, after 200 items and every purchase; all finalists answer the same
            items. All items are measured if None, and before the first purchase where no call is paid for.

    """
    split = runner.prepared.split
    runner.study.unseal([arm.name for arm in selection.finalists], len(split.test))
    in_rounds = buy is not None and bool(runner.prices)
    test = shuffled(runner, split.test, Stream.TEST_ORDER) if in_rounds else list(split.test)
    _time(runner, candidates, selection, test)
    ends = rounds(test, split.clusters) if in_rounds else [len(test)]
    place = more_seeds = 0
    _measure_test(runner, selection, test[: ends[place]], more_seeds)
    runner.study.manifest.get("bought", {}).pop("capped", None)
    while buy is not None:
        bought = buy(test[: ends[place]], more_seeds)
        if bought is None or (bought == "test_items" and place + 1 == len(ends)):
            break
        place, more_seeds = place + (bought == "test_items"), more_seeds + (bought == "training_seeds")
        try:
            _measure_test(runner, selection, test[: ends[place]], more_seeds)
        except BudgetReached as reached:
            runner.study.manifest["bought"]["capped"] = str(reached)
            return runner.study.save()
    _complete(runner, selection, test[: ends[place]])
    runner.study.manifest["decodes"] = decodes_of(runner.task)
    return runner.study.save()


def _complete(runner: Runner, selection: Selection, items: Sequence[Example]) -> None:
    """Where an earlier run had every finalist answer more items, have them answer those in full as well.

    It had a reason to stop later, or fewer decodes; a run that lacks items would cost all arms theirs.
    """
    first = [{t.item for t in runner.study.test.of(arm.name)} for arm in selection.finalists]
    there = set.intersection(*first) | {example.id for example in items}
    _measure_test(runner, selection, [e for e in runner.prepared.split.test if e.id in there], 0)


def usable(trials: Sequence[Trial], finalists: Sequence[Arm]) -> list[Trial]:
    """The trials of the runs that a task asks for, and of seeds on top that answer all that those do.

    What was killed in the middle, or is not asked for any more, would leave its missing items out for
    every arm.
    """
    found: list[Trial] = []
    for arm in finalists:
        decodes = arm.decodes if isinstance(arm, Resamplable) else 1
        seeds: dict[int, list[Trial]] = {}
        for trial in trials:
            if trial.arm == arm.name and int(trial.decode or 0) < decodes:
                seeds.setdefault(int(trial.seed or 0), []).append(trial)
        own = [{t.item for t in seeds.get(number, [])} for number in range(arm.seeds)]
        needed = set.intersection(*own)
        for number, of_seed in seeds.items():
            if number < arm.seeds or needed <= {trial.item for trial in of_seed}:
                found += of_seed
    return found


def _time(runner: Runner, candidates: CandidateArms, selection: Selection, test: Sequence[Example]) -> None:
    """Ask the arms of this machine one input at a time, and get them ready for all."""
    split, timed = runner.prepared.split, test[:TIMED]
    for arm in selection.finalists:
        if not arm.remote:
            expected = 0.03 * len(timed)
            runner.measure(
                arm, runner.study.test, timed, split.train, one_by_one=True, seeds=1, expected=expected
            )
    inputs = [example.input for example in test]
    if candidates.encoder is not None and candidates.fine_tuned is not None:
        candidates.encoder.warm(inputs)
        candidates.encoder.remember(inputs)
        candidates.fine_tuned.remember(inputs)


def _measure_test(runner: Runner, selection: Selection, items: Sequence[Example], more_seeds: int) -> None:
    """Every missing answer of every finalist to these items."""
    log, train = runner.study.test, runner.prepared.split.train
    for arm in selection.finalists:
        seeds = arm.seeds + more_seeds if arm.seeds > 1 else arm.seeds
        asked = arm.covered(items) if isinstance(arm, Incumbent) else items
        expected = 0.0
        if not arm.remote:
            done = {trial.key for trial in log.of(arm.name)}
            expected = _expected_answers(arm, asked, seeds, done, len(train))
            runner.plan(expected if more_seeds else 0.0)
        runner.measure(arm, log, asked, train, seeds=seeds, expected=expected)


def _expected_answers(arm: Arm, asked: Sequence[Example], seeds: int, done: set[Key], train: int) -> float:
    """Seconds that the missing answers of an arm take, with the training that its new seeds need."""
    seconds = 0.0
    for number in range(seeds):
        seed = str(number) if arm.seeds > 1 else None
        left = sum((arm.name, example.id, seed, None) not in done for example in asked)
        new = number >= arm.seeds and left == len(asked)
        seconds += left / 200 + (expected_seconds(arm, train, 0) / arm.seeds if new else 0.0)
    return seconds


FIRST_ROUND, NEXT_ROUND = 200, 100
"""Test items after which it is asked whether more are worth their price."""


def rounds(test: Sequence[Example], clusters: Mapping[str, str]) -> list[int]:
    """Numbers of test items after which to ask; whole clusters only, the last one all items."""
    ends = [
        i for i in range(1, len(test)) if clusters.get(test[i].id, i) != clusters.get(test[i - 1].id, i - 1)
    ]
    found: list[int] = []
    for end in ends:
        if end >= (found[-1] + NEXT_ROUND if found else FIRST_ROUND):
            found.append(end)
    return [*found, len(test)]
