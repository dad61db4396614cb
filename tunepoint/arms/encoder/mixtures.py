"""A fine-tuned encoder, mixed with what its untuned vectors say of label names or similar examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from numpy.random import Generator

from tunepoint.arms.contract import Built, Input, LocalFittedArm
from tunepoint.arms.encoder.classifier import Classifier, FineTuned
from tunepoint.data.examples import Example
from tunepoint.models.chat import Prompt, Reply
from tunepoint.models.nearest_label import SIMILARITY_TEMPERATURE, Vectors, softmax
from tunepoint.task.task import Task
from tunepoint.trials.trial import ArmKind


@dataclass
class Mixture(LocalFittedArm):
    """The odds of the tuned encoder's head, mixed with those of the nearest labels or examples."""

    concurrent: ClassVar[bool] = True
    tuned: Classifier
    weight: float
    """Share of the nearest labels or examples in the mixture."""
    built: Built
    template: Prompt
    k: int = 0
    inputs: tuple[str, ...] = ()
    targets: tuple[int, ...] = ()
    """Number of the label of each training example."""
    vectors: Vectors | None = None
    """(examples, width) vectors of the training examples; None where label names are compared."""

    def answer(self, inputs: Sequence[Input]) -> list[Reply]:
        """Return the most probable label of each input under the mixture."""
        vectors = self.tuned.encoder.embed(inputs)
        head = self.tuned.probabilities(vectors)
        nearest = self._odds_of_names(vectors) if self.vectors is None else self._votes(vectors)
        odds = (1 - self.weight) * head + self.weight * nearest
        return [self.tuned.encoder.reply(self.template, row) for row in odds]

    def _odds_of_names(self, vectors: Vectors) -> Vectors:
        encoder = self.tuned.encoder
        return np.stack([encoder.probabilities(self.template, vector) for vector in vectors])

    def _votes(self, vectors: Vectors) -> Vectors:
        """Return (n, labels) votes of the k most similar training examples, nearer ones heavier."""
        assert self.vectors is not None
        similarity = vectors @ self.vectors.T
        nearest = np.argsort(-similarity, axis=1, kind="stable")[:, : self.k]
        weights = softmax(np.take_along_axis(similarity, nearest, axis=1) / SIMILARITY_TEMPERATURE)
        votes = np.zeros((len(vectors), len(self.tuned.labels)), np.float32)
        targets = np.array(self.targets)[nearest]
        # Not `votes[rows, targets] += weights`, which counts a label once if several neighbors have it.
        np.add.at(votes, (np.arange(len(vectors))[:, None], targets), weights)
        return votes


@dataclass
class _OnFineTuned:
    """What arms share that use the training runs of a fine-tuned encoder."""

    base: FineTuned

    @property
    def keep(self) -> Path | None:
        """Folder of the training runs."""
        return self.base.keep

    def run_name(self, task: Task, train: Sequence[Example], rng: Generator) -> str:
        """Return the name of the file of the run that `fit` would load or train."""
        return self.base.run_name(task, train, rng)

    def keeping(self, folder: Path) -> Self:
        """Return the same arm with its runs in another folder and none in memory."""
        return replace(self, base=self.base.keeping(folder))


@dataclass
class TunedWithNames(_OnFineTuned):
    """An arm: the fine-tuned encoder, and the nearest label names."""

    weight: float
    kind: ArmKind = "tuned"
    remote: ClassVar[bool] = False
    family: str = "tuned + label names"
    label: ClassVar[str] = "tuned MiniLM + label names"
    base_model: ClassVar[str | None] = None

    def __post_init__(self) -> None:
        self.name = f"tuned + label names, weight {self.weight:g}"
        self.seeds = self.base.seeds
        self.promptless_name = self.base.name

    def fit(self, task: Task, train: Sequence[Example], rng: Generator) -> Mixture:
        """Fine-tune as the base does, then add what is compared."""
        return self.mix(task, train, self.base.fit(task, train, rng))

    def mix(self, task: Task, train: Sequence[Example], tuned: Classifier) -> Mixture:
        """Mix a tuned encoder with what is compared."""
        template = Prompt("", task.instruction, tuned.labels)
        return Mixture(tuned, self.weight, tuned.built, template)


@dataclass
class TunedWithRetrieval(_OnFineTuned):
    """An arm: the fine-tuned encoder, and the most similar examples."""

    k: int
    weight: float
    kind: ArmKind = "tuned"
    remote: ClassVar[bool] = False
    family: str = "tuned + retrieved"
    base_model: ClassVar[str | None] = None

    def __post_init__(self) -> None:
        self.name = f"tuned + retrieved, {self.k} similar, weight {self.weight:g}"
        self.seeds = self.base.seeds
        self.promptless_name = self.base.name

    @property
    def label(self) -> str:
        """The encoder, and how many examples it gets."""
        return f"tuned MiniLM + {self.k} nearest examples"

    def fit(self, task: Task, train: Sequence[Example], rng: Generator) -> Mixture:
        """Fine-tune as the base does, then add what is compared."""
        return self.mix(task, train, self.base.fit(task, train, rng))

    def mix(self, task: Task, train: Sequence[Example], tuned: Classifier) -> Mixture:
        """Mix a tuned encoder with what is compared."""
        inputs = tuple(example.input for example in train)
        position = {label: i for i, label in enumerate(tuned.labels)}
        tuned.encoder.cache_vectors(inputs)
        return replace(
            Mixture(tuned, self.weight, tuned.built, Prompt("", labels=tuned.labels)),
            k=self.k,
            inputs=inputs,
            targets=tuple(position[example.target] for example in train),
            vectors=tuned.encoder.embed(inputs),
        )
