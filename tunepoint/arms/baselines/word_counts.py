"""TF-IDF with logistic regression: what a classifier of words alone reaches."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.random import Generator

from tunepoint.arms.contract import Built, Input, LocalFittedArm
from tunepoint.data.examples import Example
from tunepoint.data.licences import trainable
from tunepoint.models.chat import Reply, Usage
from tunepoint.task.task import Task
from tunepoint.trials.trial import ArmKind

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

INVERSE_PENALTY = 10.0
"""Weak, as suits sparse features of short texts; scikit-learn's default of 1 underfits them."""


@dataclass
class WordCounts(LocalFittedArm):
    """A fitted pipeline of scikit-learn; `pipeline` is None where the training set has one label."""

    concurrent: ClassVar[bool] = True
    pipeline: Pipeline | None
    labels: tuple[str, ...]
    built: Built

    def answer(self, inputs: Sequence[Input]) -> list[Reply]:
        """Return the most probable label of each input."""
        usage = Usage("word counts")
        if self.pipeline is None:
            return [Reply(self.labels[0], self.labels[0], usage, confidence=1.0) for _ in inputs]
        rows = np.asarray(self.pipeline.predict_proba(list(inputs)))
        best = rows.argmax(axis=1).tolist()
        return [
            Reply(self.labels[i], self.labels[i], usage, confidence=float(row[i]))
            for i, row in zip(best, rows, strict=True)
        ]


@dataclass
class WordCountsBaseline:
    """An arm: words and pairs of words, weighted by TF-IDF, under a logistic regression."""

    name: str = "TF-IDF + logistic regression"
    family: str = "TF-IDF + logistic regression"
    label: ClassVar[str] = "TF-IDF + logistic regression (no language model)"
    base_model: ClassVar[None] = None
    kind: ArmKind = "baseline"
    remote: ClassVar[bool] = False
    seeds: int = 1

    def fit(self, task: Task, train: Sequence[Example], rng: Generator) -> WordCounts:
        """Fit the pipeline on the examples that may be trained on; it has no randomness."""
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline

        started, examples = time.perf_counter(), trainable(task, train)
        targets = [example.target for example in examples]
        if len(set(targets)) == 1:
            return WordCounts(None, (targets[0],), Built(len(examples)))
        pipeline = make_pipeline(
            # Any run of letters and digits is a word: the default drops those of one character.
            TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b"),
            LogisticRegression(C=INVERSE_PENALTY, max_iter=1_000),
        )
        try:
            pipeline.fit([example.input for example in examples], targets)
        except ValueError:  # no input has a word
            commonest = max(sorted(set(targets)), key=targets.count)
            return WordCounts(None, (commonest,), Built(len(examples)))
        labels = tuple(map(str, pipeline.classes_))
        return WordCounts(pipeline, labels, Built(len(examples), time.perf_counter() - started))
