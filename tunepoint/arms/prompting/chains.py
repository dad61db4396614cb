"""Chains of prompts: each step reads the input and what the steps before it wrote."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from numpy.random import Generator

from tunepoint.arms.contract import Built, Input, LocalFittedArm
from tunepoint.arms.templates import base_template
from tunepoint.data.examples import Example
from tunepoint.models.chat import ChatModel, Prompt, Reply
from tunepoint.models.endpoints import Resampled
from tunepoint.models.providers import short_names
from tunepoint.models.repair import answer_with_repair
from tunepoint.task.hosting import Dedicated
from tunepoint.task.task import Task
from tunepoint.trials.trial import ArmKind

CHAINS: dict[str, tuple[str, ...]] = {
    "extract then answer": (
        "List, in a few short lines, the facts in the input that matter for this task: {instruction} "
        "Do not do the task yet.",
    ),
    "draft, check and repair": (
        "{instruction} Give your answer in one line, and why in another.",
        "A draft of an answer follows the input. Say in two short lines what speaks against it and what "
        "the right answer is. The task: {instruction}",
    ),
}
"""Steps before the last, which always asks the task itself."""


@dataclass
class FittedChain(LocalFittedArm):
    """A chain that answers: one batch of calls for each step."""

    model: ChatModel
    steps: tuple[str, ...]
    template: Prompt
    built: Built

    def answer(self, inputs: Sequence[Input]) -> list[Reply]:
        """Replies in the order of the inputs; the usage is that of all steps."""
        texts = list(inputs)
        spent: list[Reply] = []
        notes: list[Reply] = []
        for number, step in enumerate(self.steps, start=1):
            asked = [
                Prompt(text, step, kind="text", wording=self.template.wording, system=True) for text in texts
            ]
            notes = self.model.answer(asked)
            texts = [
                f"{text}\n\nNotes, step {number}: {note.text or 'none'}"
                for text, note in zip(texts, notes, strict=True)
            ]
            spent = [_with_usage(note, i, spent) for i, note in enumerate(notes)]
        last = answer_with_repair(self.model, [replace(self.template, input=text) for text in texts])
        return [_with_usage(reply, i, spent) for i, reply in enumerate(last)]


def _with_usage(reply: Reply, position: int, before: Sequence[Reply]) -> Reply:
    """The reply with the usage of the steps before it added."""
    if not before:
        return reply
    return replace(reply, usage=before[position].usage + reply.usage)


@dataclass
class Chain:
    """An arm: steps in one wording, asked of one model."""

    model: ChatModel
    way: str
    """What the chain is called."""
    steps: tuple[str, ...]
    wording: str
    title: str | None = None
    """What the model is called in the arm's name; its own name if None."""
    hosting: Dedicated | None = None
    """Machines that are reserved for its model."""
    kind: ArmKind = "prompt"
    seeds: int = 1
    decodes: int = 1
    name: str = field(init=False)
    family: str = field(init=False)

    @property
    def remote(self) -> bool:
        """Whether its model answers elsewhere."""
        return self.model.remote

    def __post_init__(self) -> None:
        self.family = f"{self.title or self.model.name} {self.way}"
        self.name = f"{self.family}, {self.wording}"

    @property
    def label(self) -> str:
        """The model and what the chain is called."""
        return f"{self.title or short_names([self.model.name])[0]}, {self.way}"

    @property
    def base_model(self) -> str:
        """Its model, as task.toml names it."""
        return self.model.name

    def decoded(self, number: int) -> Chain:
        """The same arm, answering once more."""
        return replace(self, model=Resampled(self.model, number)) if number else self

    def fit(self, task: Task, train: Sequence[Example], rng: Generator) -> FittedChain:
        """Put the task's instruction into the steps; nothing is learnt."""
        template = replace(base_template(task, train), wording=self.wording, system=True)
        steps = tuple(step.replace("{instruction}", task.instruction) for step in self.steps)
        return FittedChain(self.model, steps, template, Built(0))
