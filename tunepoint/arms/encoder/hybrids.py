"""Hybrid arms: a fine-tuned encoder that also reads a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

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
class LightPrompted(LocalFittedArm):
    """A fitted hybrid: the odds of the tuned encoder's head, mixed with those of a prompt.

    The prompt is the label names, or the k training examples that are most similar to the input.
    """

    concurrent: ClassVar[bool] = True
    tuned: Classifier
    weight: float
    """Share of the prompt's odds in the mixture."""
    built: Built
    template: Prompt
    k: int = 0
    inputs: tuple[str, ...] = ()
    targets: tuple[int, ...] = ()
    """Number of the label of each training example."""
    vectors: Vectors | None = None
    """(examples, width) vectors of the training examples; None for a prompt of label names."""

    def answer(self, inputs: Sequence[Input]) -> list[Reply]:
        """Return the most probable label of each input under the mixture."""
        vectors = self.tuned.encoder.embed(inputs)
        head = self.tuned.probabilities(vectors)
        prompted = self._odds_of_names(vectors) if self.vectors is None else self._votes(vectors)
        odds = (1 - self.weight) * head + self.weight * prompted
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
class TunedWithNames:
    """An arm: the fine-tuned encoder, prompted with the label names."""

    base: FineTuned
    weight: float
    kind: ArmKind = "hybrid"
    remote: ClassVar[bool] = False
    family: str = "tuned + label names"
    label: ClassVar[str] = "tuned MiniLM + label names"
    base_model: ClassVar[str | None] = None

    def __post_init__(self) -> None:
        self.name = f"tuned + label names, weight {self.weight:g}"
        self.seeds = self.base.seeds
        self.promptless_name = self.base.name

    def fit(self, task: Task, train: Sequence[Example], rng: Generator) -> LightPrompted:
        """Fine-tune as the base does, then add the prompt."""
        return self.prompt(task, train, self.base.fit(task, train, rng))

    def prompt(self, task: Task, train: Sequence[Example], tuned: Classifier) -> LightPrompted:
        """Add the light prompt to a tuned encoder."""
        template = Prompt("", task.instruction, tuned.labels)
        return LightPrompted(tuned, self.weight, tuned.built, template)


@dataclass
class TunedWithRetrieval:
    """An arm: the fine-tuned encoder, prompted with the most similar examples."""

    base: FineTuned
    k: int
    weight: float
    kind: ArmKind = "hybrid"
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

    def fit(self, task: Task, train: Sequence[Example], rng: Generator) -> LightPrompted:
        """Fine-tune as the base does, then add the prompt."""
        return self.prompt(task, train, self.base.fit(task, train, rng))

    def prompt(self, task: Task, train: Sequence[Example], tuned: Classifier) -> LightPrompted:
        """Add the light prompt to a tuned encoder."""
        inputs = tuple(example.input for example in train)
        position = {label: i for i, label in enumerate(tuned.labels)}
        tuned.encoder.cache_vectors(inputs)
        return replace(
            LightPrompted(tuned, self.weight, tuned.built, Prompt("", labels=tuned.labels)),
            k=self.k,
            inputs=inputs,
            targets=tuple(position[example.target] for example in train),
            vectors=tuned.encoder.embed(inputs),
        )
