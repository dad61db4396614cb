"""What a study's pool shows: who agrees with whom on every input, and the scores where they disagree."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path

import numpy as np

from tunepoint.data.examples import Example
from tunepoint.stats.arrays import Floats, Integers
from tunepoint.stats.disagreements import AGREED, OTHERS_WEIGHT, PoolScores
from tunepoint.study.labelling.inputs import POOL_TRIALS, read_pool
from tunepoint.study.labelling.labels import PoolLabel, by_item, read_labels, reliability
from tunepoint.study.manifest import read_manifest
from tunepoint.study.records import LabelOrder
from tunepoint.trials.trial import UNREADABLE, read_trials

Pattern = tuple[tuple[int, ...], ...]
"""For each arm, which of the different answers each of its runs gave."""

WEIGHTS = (1.0, 0.5, OTHERS_WEIGHT)
"""How often inputs are labelled, by what depends on them: three classes, so that each has labels enough."""


@dataclass(frozen=True)
class Pool:
    """The inputs that all arms asked have answered, with the answers of every run."""

    inputs: tuple[Example, ...]
    arms: tuple[str, ...]
    """Names of the arms that were asked."""
    answers: tuple[tuple[tuple[str, ...], ...], ...]
    """For each input and each arm, the answers of its runs, without what spreadsheets change."""
    labels: tuple[PoolLabel, ...] = ()
    order: LabelOrder | None = None
    """Which inputs are labelled first; None labels all alike."""
    judged: tuple[tuple[float, ...], ...] | None = None
    """For each input, the judge's mean score of each arm's answers; None where no judge scores."""
    of_parts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Name of a finalist trained on part of the examples -> item -> its answer."""

    @cached_property
    def patterns(self) -> tuple[Pattern, ...]:
        """Who agrees with whom on each input."""
        return tuple(_pattern(answers) for answers in self.answers)

    @cached_property
    def disputed(self) -> tuple[int, ...]:
        """Positions of the inputs on which not all answers are the same."""
        return tuple(i for i, pattern in enumerate(self.patterns) if _differ(pattern))

    @cached_property
    def opinions(self) -> dict[str, list[PoolLabel]]:
        """Item -> the labels that score all its answers, one from each person."""
        answers = {e.id: set(chain(*own)) for e, own in zip(self.inputs, self.answers, strict=True)}
        whole = [label for label in self.labels if answers.get(label.item, {None}) <= label.scores.keys()]
        return by_item(whole)

    @cached_property
    def labelled(self) -> tuple[int, ...]:
        """Positions of the disputed inputs that somebody has labelled."""
        return tuple(i for i in self.disputed if self.inputs[i].id in self.opinions)

    @cached_property
    def weights(self) -> Floats:
        """(N,) how often an input is labelled: 1, 1/2 or 1/4, equal within a stratum."""
        weights = np.ones(len(self.inputs))
        if self.order is None or self.order.winner not in self.arms:
            return weights
        winner = self.arms.index(self.order.winner)
        doubts = np.array([self.order.doubts.get(arm, 0.0) for arm in self.arms])
        doubts /= max(float(np.delete(doubts, winner).max()), 1e-12)
        for stratum in np.unique(self.strata[self.strata != AGREED]).tolist():
            inside = np.flatnonzero(self.strata == stratum)
            first = self._standing(inside[0])
            if first.any():  # else only later runs differ, or the judge sees no difference
                doubt = doubts[first != first[winner]].max(initial=0.0)
                weights[inside] = max(weight for weight in WEIGHTS if weight <= max(doubt, WEIGHTS[-1]))
            elif self.judged is not None:
                weights[inside] = WEIGHTS[-1]
        return weights

    def _standing(self, position: int) -> Integers:
        """(A,) numbers of which equal ones mean: no difference between these arms, as far as is known.

        Which answer each arm's first run gave; where a judge scores, the rank of its scores.
        """
        if self.judged is None:
            return np.array([runs[0] for runs in self.patterns[position]])
        return np.unique(np.round(self.judged[position], 2), return_inverse=True)[1]

    @cached_property
    def strata(self) -> Integers:
        """(N,) of each input: `AGREED`, or a number for who agrees with whom."""
        numbers: dict[object, int] = {}
        strata = np.full(len(self.inputs), AGREED)
        for i in self.disputed:
            known = _of_first_runs(self.patterns[i]) if self.judged is None else tuple(self._standing(i))
            strata[i] = numbers.setdefault(known, len(numbers) + 1)
        return strata

    def scores(self, names: Sequence[str]) -> PoolScores:
        """Return strata and scores for the arms of a table; those that were not asked have NaN."""
        scores = np.full((len(self.labelled), len(names)), np.nan)
        for row, i in enumerate(self.labelled):
            labels = self.opinions[self.inputs[i].id]
            for arm, runs in zip(self.arms, self.answers[i], strict=True):
                given = [label.scores[answer] for label in labels for answer in runs]
                scores[row, list(names).index(arm)] = float(np.mean(given))
        labelled = np.array(self.labelled, dtype=np.intp)
        # labels of two people who agree by chance do not count at all, so any number does
        seen = reliability(self.labels) or 1.0
        items, slices = tuple(e.id for e in self.inputs), tuple(e.slice for e in self.inputs)
        return PoolScores(
            self.strata, labelled, scores, self._clusters(), self.weights, seen, inputs=items, slices=slices
        )

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
    path, inputs = folder / POOL_TRIALS, read_pool(folder).asked
    if not inputs or not path.exists() or not path.stat().st_size:
        return None
    runs: dict[str, dict[tuple[str | None, str | None], dict[str, str]]] = defaultdict(
        lambda: defaultdict(dict)
    )
    judged: dict[tuple[str, str], list[float]] = defaultdict(list)
    for trial in read_trials(path):
        runs[trial.arm][trial.seed, trial.decode][trial.item] = trial.plain_answer
        if trial.grades or trial.plain_answer == UNREADABLE:
            judged[trial.arm, trial.item].append(trial.score)
    answering = [arm for arm in arms if arm in runs]
    if len(answering) < 2:
        return None
    whole = [e for e in inputs if all(e.id in run for arm in answering for run in runs[arm].values())]
    answers = tuple(
        tuple(tuple(run[example.id] for run in runs[arm].values()) for arm in answering) for example in whole
    )
    if not whole:
        return None
    manifest, scores = read_manifest(folder), None
    if all((arm, example.id) in judged for arm in answering for example in whole):
        scores = tuple(
            tuple(float(np.mean(judged[arm, example.id])) for arm in answering) for example in whole
        )
    of_parts = {
        point.arm: run for point in manifest.curve if point.arm in runs for run in runs[point.arm].values()
    }
    labels, order = tuple(read_labels(folder)), manifest.label_order
    return Pool(tuple(whole), tuple(answering), answers, labels, order, scores, of_parts)
