"""The label that is nearest by name or description: the embedded encoder compares vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from numpy.random import Generator

from tunepoint.arms.contract import Built, Concurrent, Input, LocalFittedArm
from tunepoint.data.examples import Example, labels_of
from tunepoint.models.chat import ChatModel, Prompt, Reply
from tunepoint.task.task import Task
from tunepoint.trials.trial import ArmKind


@dataclass
class NearestLabel(LocalFittedArm):
    """A fitted baseline: every input is compared with the same texts."""

    model: ChatModel
    template: Prompt
    built: Built

    @property
    def concurrent(self) -> bool:
        """Whether the model may be asked by several threads at once."""
        return isinstance(self.model, Concurrent) and self.model.concurrent

    def answer(self, inputs: Sequence[Input]) -> list[Reply]:
        """Return one reply for each input, in their order."""
        return self.model.answer([replace(self.template, input=text) for text in inputs])


@dataclass
class NearestLabelName:
    """The label whose name is most similar to the input; `name` is a key of studies on disk."""

    model: ChatModel
    name: str = "zero-shot"
    family: str = "zero-shot"
    label: ClassVar[str] = "nearest label name (no language model)"
    base_model: ClassVar[None] = None
    kind: ArmKind = "baseline"
    remote: ClassVar[bool] = False
    seeds: int = 1

    def fit(self, task: Task, train: Sequence[Example], rng: Generator) -> NearestLabel:
        """Learn nothing; `train` only gives the labels."""
        template = Prompt("", task.instruction, labels_of(task, train))
        return NearestLabel(self.model, template, Built(examples=0))


@dataclass
class NearestLabelDescription:
    """The label whose name and description are most similar to the input."""

    model: ChatModel
    name: str = "described"
    family: str = "described"
    label: ClassVar[str] = "nearest label description (no language model)"
    base_model: ClassVar[None] = None
    kind: ArmKind = "baseline"
    remote: ClassVar[bool] = False
    seeds: int = 1

    def fit(self, task: Task, train: Sequence[Example], rng: Generator) -> NearestLabel:
        """Learn nothing; the descriptions come from the task."""
        descriptions = dict(task.answer.labels or {})
        template = Prompt("", task.instruction, labels_of(task, train), descriptions)
        return NearestLabel(self.model, template, Built(examples=0))
