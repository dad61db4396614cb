"""Arms that only say what is wanted: label names, and what they mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from numpy.random import Generator

from tunepoint.arms.contract import Built, Concurrent, Input, LocalFittedArm
from tunepoint.data.examples import Example, labels_of
from tunepoint.models.chat import ChatModel, Prompt, Reply
from tunepoint.task.task import Task
from tunepoint.trials.trial import ArmKind


@dataclass
class Prompted(LocalFittedArm):
    """A fitted prompt: the same words around every input."""

    model: ChatModel
    template: Prompt
    built: Built

    @property
    def concurrent(self) -> bool:
        """As the model."""
        return isinstance(self.model, Concurrent) and self.model.concurrent

    def answer(self, inputs: Sequence[Input]) -> list[Reply]:
        """Replies in the order of the inputs."""
        return self.model.answer([self.prompt(text) for text in inputs])

    def prompt(self, text: Input) -> Prompt:
        """The prompt for one input."""
        template = self.template
        return Prompt(
            text,
            template.instruction,
            template.labels,
            template.descriptions,
            template.demonstrations,
            template.demonstration_weight,
        )


@dataclass
class ZeroShot:
    """The instruction and the label names, no examples."""

    model: ChatModel
    name: str = "zero-shot"
    family: str = "zero-shot"
    label: ClassVar[str] = "nearest label name (no language model)"
    base_model: ClassVar[None] = None
    kind: ArmKind = "prompt"
    remote: ClassVar[bool] = False
    seeds: int = 1

    def fit(self, task: Task, train: Sequence[Example], rng: Generator) -> Prompted:
        """Nothing is learnt; `train` only says which labels there are."""
        template = Prompt("", task.instruction, labels_of(task, train))
        return Prompted(self.model, template, Built(examples=0))


@dataclass
class Described:
    """The instruction, the label names and what each label means."""

    model: ChatModel
    name: str = "described"
    family: str = "described"
    label: ClassVar[str] = "nearest label description (no language model)"
    base_model: ClassVar[None] = None
    kind: ArmKind = "prompt"
    remote: ClassVar[bool] = False
    seeds: int = 1

    def fit(self, task: Task, train: Sequence[Example], rng: Generator) -> Prompted:
        """Nothing is learnt; the descriptions come from the task."""
        descriptions = dict(task.answer.labels or {})
        template = Prompt("", task.instruction, labels_of(task, train), descriptions)
        return Prompted(self.model, template, Built(examples=0))
