"""The label of the nearest examples: of a few fixed ones, or of those that are most similar to the input."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from tunepoint.arms.baselines.nearest_label import NearestLabel
from tunepoint.arms.contract import Built, Input, LocalFittedArm
from tunepoint.arms.similarity import nearest_rows
from tunepoint.data.examples import Example, labels_of
from tunepoint.models.chat import Demonstration, Prompt, Reply
from tunepoint.task.task import Task
from tunepoint.trials.trial import ArmKind

if TYPE_CHECKING:
    from tunepoint.models.encoder import Encoder


@dataclass
class FixedExamples:
    """k fixed examples of every label, drawn from the training set."""

    model: Encoder
    k: int
    weight: float = 0.7
    kind: ArmKind = "baseline"
    remote: ClassVar[bool] = False
    seeds: int = 1
    family: str = "few-shot"
    base_model: ClassVar[None] = None
    name: str = field(init=False)

    def __post_init__(self) -> None:
        self.name = f"few-shot, {self.k} per label"

    @property
    def label(self) -> str:
        """What is compared with every input."""
        return f"nearest of {self.k} examples per label (no language model)"

    def fit(self, task: Task, train: Sequence[Example], rng: Generator) -> NearestLabel:
        """Draw the demonstrations with `rng`; a label with fewer than k examples gives all of them."""
        labels = labels_of(task, train)
        by_label: dict[str, list[Example]] = defaultdict(list)
        for example in train:
            by_label[example.target].append(example)
        demonstrations: list[Demonstration] = []
        for label in labels:
            members = by_label[label]
            order = rng.permutation(len(members))[: self.k]
            demonstrations += [Demonstration(members[i].input, label) for i in order]
        # Each input is compared with all of them.
        self.model.cache_vectors([demonstration.input for demonstration in demonstrations])
        template = Prompt(
            "",
            task.instruction,
            labels,
            dict(task.answer.labels or {}),
            tuple(demonstrations),
            self.weight,
        )
        return NearestLabel(self.model, template, Built(examples=len(demonstrations)))


@dataclass
class Retrieved(LocalFittedArm):
    """A fitted baseline that retrieves: each input is compared with examples of its own."""

    concurrent: ClassVar[bool] = True
    model: Encoder
    template: Prompt
    inputs: list[str]
    targets: list[str]
    vectors: NDArray[np.float32]
    k: int
    built: Built

    def answer(self, inputs: Sequence[Input]) -> list[Reply]:
        """Return one reply for each input, in their order."""
        with self.model.cached_vectors(inputs) as vectors:  # to retrieve by, and again to answer by
            near = nearest_rows(self.vectors, vectors, self.k)
            prompts = [self._prompt(text, rows) for text, rows in zip(inputs, near, strict=True)]
            return self.model.answer(prompts)

    def _prompt(self, text: Input, rows: NDArray[np.intp]) -> Prompt:
        demonstrations = tuple(Demonstration(self.inputs[i], self.targets[i]) for i in rows.tolist())
        return replace(self.template, input=text, demonstrations=demonstrations)


@dataclass
class NearestExamples:
    """The k training examples most similar to the input, weighed against the label names."""

    model: Encoder
    k: int
    weight: float
    kind: ArmKind = "baseline"
    remote: ClassVar[bool] = False
    seeds: int = 1
    family: str = "retrieved few-shot"
    label: ClassVar[str] = "nearest examples (no language model)"
    base_model: ClassVar[None] = None
    name: str = field(init=False)

    def __post_init__(self) -> None:
        self.name = f"retrieved few-shot, {self.k} similar, weight {self.weight:g}"

    def fit(self, task: Task, train: Sequence[Example], rng: Generator) -> Retrieved:
        """Embed the training examples; nothing else is learned."""
        inputs = [example.input for example in train]
        self.model.cache_vectors(inputs)
        template = Prompt(
            "",
            task.instruction,
            labels_of(task, train),
            dict(task.answer.labels or {}),
            demonstration_weight=self.weight,
        )
        targets = [example.target for example in train]
        vectors = self.model.embed(inputs)
        return Retrieved(self.model, template, inputs, targets, vectors, self.k, Built(examples=len(train)))
