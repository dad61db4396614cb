"""Hybrids: a fine-tuned encoder that also reads a prompt."""

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
from tunepoint.models.encoder import Vectors, softmax
from tunepoint.task.task import Task
from tunepoint.trials.trial import ArmKind


@dataclass
class LightPrompted(LocalFittedArm):
    """A tuned encoder that also reads a prompt: label names, or retrieved demonstrations."""

    concurrent: ClassVar[bool] = True
    tuned: Classifier
    weight: float
    built: Built
    template: Prompt
    k: int = 0
    inputs: tuple[str, ...] = ()
    targets: tuple[int, ...] = ()
    vectors: Vectors | None = None

    def answer(self, inputs: Sequence[Input]) -> list[Reply]:
        """Replies from the head's odds and the prompt's, mixed by `weight`."""
        vectors = self.tuned.encoder.embed(inputs)
        head = self.tuned.probabilities(vectors)
        read = self._named(vectors) if self.vectors is None else self._voted(vectors)
        odds = (1 - self.weight) * head + self.weight * read
        return [self.tuned.encoder.reply(self.template, row) for row in odds]

    def _named(self, vectors: Vectors) -> Vectors:
        encoder = self.tuned.encoder
        return np.stack([encoder.probabilities(self.template, vector) for vector in vectors])

    def _voted(self, vectors: Vectors) -> Vectors:
        """(n, labels) votes of the k most similar training examples."""
        assert self.vectors is not None
        similarity = vectors @ self.vectors.T
        near = np.argsort(-similarity, axis=1, kind="stable")[:, : self.k]
        weights = softmax(np.take_along_axis(similarity, near, axis=1) / 0.05)
        voted = np.zeros((len(vectors), len(self.tuned.labels)), np.float32)
        targets = np.array(self.targets)[near]
        np.add.at(voted, (np.arange(len(vectors))[:, None], targets), weights)
        return voted


@dataclass
class TunedWithNames:
    """Hybrid: the fine-tuned encoder, prompted with the label names."""

    base: FineTuned
    weight: float
    kind: ArmKind = "hybrid"
    remote: ClassVar[bool] = False
    family: str = "tuned + label names"

    def __post_init__(self) -> None:
        self.name = f"tuned + label names, weight {self.weight:g}"
        self.seeds = self.base.seeds
        self.alone = self.base.name

    def fit(self, task: Task, train: Sequence[Example], rng: Generator) -> LightPrompted:
        """Fine-tune as the base does, then add the prompt."""
        return self.prompt(task, train, self.base.fit(task, train, rng))

    def prompt(self, task: Task, train: Sequence[Example], tuned: Classifier) -> LightPrompted:
        """Add the light prompt to a tuned encoder."""
        template = Prompt("", task.instruction, tuned.labels)
        return LightPrompted(tuned, self.weight, tuned.built, template)


@dataclass
class TunedWithRetrieval:
    """Hybrid: the fine-tuned encoder, prompted with the most similar examples."""

    base: FineTuned
    k: int
    weight: float
    kind: ArmKind = "hybrid"
    remote: ClassVar[bool] = False
    family: str = "tuned + retrieved"

    def __post_init__(self) -> None:
        self.name = f"tuned + retrieved, {self.k} similar, weight {self.weight:g}"
        self.seeds = self.base.seeds
        self.alone = self.base.name

    def fit(self, task: Task, train: Sequence[Example], rng: Generator) -> LightPrompted:
        """Fine-tune as the base does, then add the prompt."""
        return self.prompt(task, train, self.base.fit(task, train, rng))

    def prompt(self, task: Task, train: Sequence[Example], tuned: Classifier) -> LightPrompted:
        """Add the light prompt to a tuned encoder."""
        inputs = tuple(example.input for example in train)
        position = {label: i for i, label in enumerate(tuned.labels)}
        tuned.encoder.remember(inputs)
        return replace(
            LightPrompted(tuned, self.weight, tuned.built, Prompt("", labels=tuned.labels)),
            k=self.k,
            inputs=inputs,
            targets=tuple(position[example.target] for example in train),
            vectors=tuned.encoder.embed(inputs),
        )
