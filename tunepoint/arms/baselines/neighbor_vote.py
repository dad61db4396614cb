"""The vote of the examples that a retrieved few-shot prompt shows: what its model has to add to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from tunepoint.arms.contract import Built, Input, LocalFittedArm
from tunepoint.arms.similarity import nearest_rows
from tunepoint.data.examples import Example
from tunepoint.models.chat import Embed, Reply, Usage
from tunepoint.task.task import Task
from tunepoint.trials.trial import ArmKind


@dataclass
class Vote(LocalFittedArm):
    """A fitted vote."""

    embed: Embed
    vectors: NDArray[np.float32]
    """(examples, width) of the training inputs."""
    targets: Sequence[str]
    k: int
    built: Built

    def answer(self, inputs: Sequence[Input]) -> list[Reply]:
        """Return the commonest label among the k nearest; of equals, the one with the nearest example."""
        near = nearest_rows(self.vectors, self.embed(inputs), self.k)
        return [self._reply([self.targets[i] for i in row]) for row in near.tolist()]

    def _reply(self, votes: Sequence[str]) -> Reply:
        # Counter keeps the order of first appearance among equals, and the nearest comes first.
        label, count = Counter(votes).most_common(1)[0]
        return Reply(label, label, Usage("vote"), confidence=count / len(votes))


@dataclass
class NeighborVote:
    """An arm: the label that most of the k most similar training examples have."""

    embed: Embed
    k: int
    family: str = "vote of similar examples"
    base_model: ClassVar[None] = None
    kind: ArmKind = "baseline"
    remote: ClassVar[bool] = False
    seeds: int = 1
    name: str = field(init=False)

    def __post_init__(self) -> None:
        self.name = vote_name(self.k)

    @property
    def label(self) -> str:
        """How many examples vote."""
        return f"vote of {self.k} similar examples (no language model)"

    def fit(self, task: Task, train: Sequence[Example], rng: Generator) -> Vote:
        """Embed the training examples; nothing else is learned."""
        vectors = self.embed([example.input for example in train])
        targets = [example.target for example in train]
        return Vote(self.embed, vectors, targets, self.k, Built(examples=len(train)))


def vote_name(k: int) -> str:
    """Return the name of the vote of k examples."""
    return f"vote of {k} similar"
