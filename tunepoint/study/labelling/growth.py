"""What a pool shows of the learning curve: how far the option trained on part of the examples is behind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tunepoint.stats.arrays import Flags, Floats, Integers
from tunepoint.stats.disagreements import AGREED, PoolScores
from tunepoint.stats.poststratified import (
    ASKED,
    SAME,
    UNASKED,
    LabelledItems,
    PooledDifference,
    pooled_difference,
)
from tunepoint.study.directory import Study
from tunepoint.study.labelling.pool import Pool
from tunepoint.trials.trial import Trial


@dataclass(frozen=True)
class _Known:
    """The answers to one input of the validation set or of the pool."""

    part: str
    """Of the option trained on part of the examples."""
    whole: Sequence[str]
    """Of the runs of the option trained on all of them."""
    others: Sequence[str]
    """Of the first run of each finalist."""

    @property
    def kind(self) -> int:
        """Whether the two give the same answer, and else whether people are asked about such inputs."""
        if set(self.whole) == {self.part}:
            return SAME
        return ASKED if len(set(self.others)) > 1 else UNASKED


def gaps_of_parts(study: Study, pool: Pool, whole: str, parts: Sequence[str]) -> dict[str, PooledDifference]:
    """Return how much an option scores above itself when trained on parts of the examples.

    Args:
        study: with the validation set's trials of the finalists and of the parts.
        pool: answered by the option and its parts, with labels that count. The labels of a judge's pool
            are grades of the answers that people saw, so it says nothing here.
        whole: name of the option, a finalist.
        parts: names of the option trained on parts, as in curve.jsonl.

    Returns:
        Name of a part -> the gap; parts that too few items tell of are missing.

    """
    runs = _runs(study.dev.of(whole))
    if pool.judged is not None or whole not in pool.arms or not runs:
        return {}
    first = {arm: _runs(study.dev.of(arm)) for arm in pool.arms}
    if not all(first.values()) or len(runs) > len(pool.answers[0][pool.arms.index(whole)]):
        return {}
    gaps = {}
    for part in parts:
        answers = pool.of_parts.get(part, {})
        if not all(example.id in answers for example in pool.inputs):
            continue
        items = _labelled(study.curve.of(part), runs, [own[0] for own in first.values()])
        known = list(_of_pool(pool, pool.arms.index(whole), len(runs), answers))
        scores, unasked = _pair(pool, known)
        gap = None if items is None else pooled_difference(items, scores, unasked)
        if gap is not None:
            gaps[part] = gap
    return gaps


def _runs(trials: Sequence[Trial]) -> list[dict[str, Trial]]:
    """Item -> trial for each run of an option, in their order."""
    runs: dict[tuple[str | None, str | None], dict[str, Trial]] = {}
    for trial in trials:
        runs.setdefault((trial.seed, trial.decode), {})[trial.item] = trial
    return list(runs.values())


def _labelled(
    part: Sequence[Trial], whole: Sequence[dict[str, Trial]], finalists: Sequence[dict[str, Trial]]
) -> LabelledItems | None:
    """Return the validation items that all of them have answered; None for fewer than two groups."""
    everyone = [*whole, *finalists]
    rows = []
    for trial in part:
        if all(trial.item in run for run in everyone):
            own = [run[trial.item] for run in whole]
            answers = [other.plain_answer for other in own]
            others = [run[trial.item].plain_answer for run in finalists]
            known = _Known(trial.plain_answer, answers, others)
            lead = float(np.mean([other.score for other in own])) - trial.score
            rows.append((lead, known.kind, trial.cluster or trial.item))
    if len({cluster for *_, cluster in rows}) < 2:
        return None
    leads, kinds, clusters = zip(*rows, strict=True)
    codes = np.unique(clusters, return_inverse=True)[1]
    return LabelledItems(np.array(leads), np.array(kinds, dtype=np.intp), codes)


def _of_pool(pool: Pool, whole: int, runs: int, part: Mapping[str, str]) -> Iterator[_Known]:
    for example, answers in zip(pool.inputs, pool.answers, strict=True):
        yield _Known(part[example.id], answers[whole][:runs], [own[0] for own in answers])


def _pair(pool: Pool, known: Sequence[_Known]) -> tuple[PoolScores, Flags]:
    """Return the pool as the two options see it, and the inputs on which they differ but no finalists do."""
    kinds = np.array([each.kind for each in known])
    strata: Integers = np.where(kinds == ASKED, pool.strata, AGREED)
    labelled = [i for i in pool.labelled if kinds[i] == ASKED]
    scores: Floats = np.array([_scores(pool, i, known[i]) for i in labelled]).reshape(-1, 2)
    whole = pool.scores(pool.arms)
    two = PoolScores(
        strata, np.array(labelled, dtype=np.intp), scores, whole.clusters, pool.weights, whole.reliability
    )
    return two, kinds == UNASKED


def _scores(pool: Pool, position: int, known: _Known) -> tuple[float, float]:
    """Return the mean scores of the whole and of the part, by everybody's label.

    An answer that nobody saw counts as wrong where none of those shown is right.
    """
    labels = pool.opinions[pool.inputs[position].id]
    whole = [label.scores.get(answer, 0.0) for label in labels for answer in known.whole]
    return float(np.mean(whole)), float(np.mean([label.scores.get(known.part, 0.0) for label in labels]))
