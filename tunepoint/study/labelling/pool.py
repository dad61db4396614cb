"""What a study's pool shows: who agrees with whom on every input, and the scores where they disagree."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from tunepoint.data.examples import Example
from tunepoint.stats.arrays import Integers
from tunepoint.stats.disagreements import AGREED, PoolScores
from tunepoint.study.labelling.inputs import POOL_TRIALS, read_pool
from tunepoint.study.labelling.labels import PoolLabel, by_item, read_labels
from tunepoint.trials.table import Table
from tunepoint.trials.trial import read_trials

Pattern = tuple[tuple[int, ...], ...]
"""For each arm, which of the different answers each of its runs gave."""


@dataclass(frozen=True)
class Pool:
    """The inputs that all arms asked have answered, with the answers of every run."""

    inputs: tuple[Example, ...]
    arms: tuple[str, ...]
    """Names of the arms that were asked."""
    answers: tuple[tuple[tuple[str, ...], ...], ...]
    """For each input and each arm, the answers of its runs, without what spreadsheets change."""
    labels: tuple[PoolLabel, ...] = ()

    @cached_property
    def patterns(self) -> tuple[Pattern, ...]:
        """Who agrees with whom on each input."""
        return tuple(_pattern(answers) for answers in self.answers)

    @cached_property
    def disputed(self) -> tuple[int, ...]:
        """Positions of the inputs on which not all answers are the same."""
        return tuple(i for i, pattern in enumerate(self.patterns) if _differ(pattern))

    @property
    def labelled(self) -> tuple[int, ...]:
        """Positions of the disputed inputs that somebody has labelled."""
        known = by_item(self.labels)
        return tuple(i for i in self.disputed if self.inputs[i].id in known)

    @cached_property
    def strata(self) -> Integers:
        """(N,) of each input: `AGREED`, or a number for who agrees with whom."""
        numbers: dict[Pattern, int] = {}
        strata = np.full(len(self.inputs), AGREED)
        for i in self.disputed:
            strata[i] = numbers.setdefault(_of_first_runs(self.patterns[i]), len(numbers) + 1)
        return strata

    def scores(self, names: Sequence[str]) -> PoolScores:
        """Return strata and scores for the arms of a table; those that were not asked have NaN."""
        opinions, labelled = by_item(self.labels), self.labelled
        scores = np.full((len(labelled), len(names)), np.nan)
        for row, i in enumerate(labelled):
            for arm, runs in zip(self.arms, self.answers[i], strict=True):
                given = [
                    label.scores.get(answer, 0.0) for label in opinions[self.inputs[i].id] for answer in runs
                ]
                scores[row, list(names).index(arm)] = float(np.mean(given))
        return PoolScores(self.strata, np.array(labelled, dtype=np.intp), scores, self._clusters())

    def _clusters(self) -> Integers | None:
        if not any(example.group for example in self.inputs):
            return None
        groups = [example.group or f"input {example.id}" for example in self.inputs]
        return np.unique(groups, return_inverse=True)[1]


def _pattern(answers: Sequence[Sequence[str]]) -> Pattern:
    numbers: dict[str, int] = {}
    return tuple(tuple(numbers.setdefault(answer, len(numbers)) for answer in runs) for runs in answers)


def _differ(pattern: Pattern) -> bool:
    return any(number for runs in pattern for number in runs)


def _of_first_runs(pattern: Pattern) -> Pattern:
    """Return who agrees with whom by the first runs, and whether only the other runs differ."""
    first = tuple((runs[0],) for runs in pattern)
    return first if _differ(first) else ((-1,),)


def open_pool(folder: Path, arms: Sequence[str]) -> Pool | None:
    """Return the pool of a study; None if no two of these arms have answered one.

    Raises:
        StudyError: a file is damaged.

    """
    path, inputs = folder / POOL_TRIALS, read_pool(folder)
    if not inputs or not path.exists() or not path.stat().st_size:
        return None
    runs: dict[str, dict[tuple[str | None, str | None], dict[str, str]]] = defaultdict(
        lambda: defaultdict(dict)
    )
    for trial in read_trials(path):
        runs[trial.arm][trial.seed, trial.decode][trial.item] = trial.plain_answer
    asked = [arm for arm in arms if arm in runs]
    if len(asked) < 2:
        return None
    whole = [e for e in inputs if all(e.id in run for arm in asked for run in runs[arm].values())]
    answers = tuple(
        tuple(tuple(run[example.id] for run in runs[arm].values()) for arm in asked) for example in whole
    )
    return Pool(tuple(whole), tuple(asked), answers, tuple(read_labels(folder))) if whole else None


def pooled(table: Table, folder: Path) -> Table:
    """Return a study's table with what its pool shows, once inputs of it are labelled."""
    pool = open_pool(folder, table.names)
    if pool is None or not pool.labelled:
        return table
    return replace(table, pool=pool.scores(table.names))
