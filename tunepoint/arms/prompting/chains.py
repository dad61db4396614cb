"""Chains of prompts: each step reads the input and what the steps before it wrote."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add

from numpy.random import Generator

from tunepoint.arms.contract import Built, Input, LocalFittedArm
from tunepoint.arms.prompting.chat_arm import ChatArm
from tunepoint.arms.templates import base_template
from tunepoint.data.examples import Example
from tunepoint.models.chat import ChatModel, Prompt, Reply
from tunepoint.models.repair import answer_with_repair
from tunepoint.task.task import Task

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
"""Name of a chain -> its steps; a last step, the task itself, follows every one of them."""


@dataclass
class FittedChain(LocalFittedArm):
    """A chain that answers: one batch of calls for each step."""

    model: ChatModel
    steps: tuple[str, ...]
    template: Prompt
    built: Built

    def answer(self, inputs: Sequence[Input]) -> list[Reply]:
        """Return one reply for each input, in their order; its usage is that of all steps."""
        texts = list(inputs)
        steps: list[list[Reply]] = []
        for number, step in enumerate(self.steps, start=1):
            notes = self.model.answer([self._step_prompt(step, text) for text in texts])
            texts = [
                f"{text}\n\nNotes, step {number}: {note.text or 'none'}"
                for text, note in zip(texts, notes, strict=True)
            ]
            steps.append(notes)
        answers = answer_with_repair(self.model, [replace(self.template, input=text) for text in texts])
        return [_with_usage(replies) for replies in zip(*steps, answers, strict=True)]

    def _step_prompt(self, step: str, text: str) -> Prompt:
        return Prompt(text, step, kind="text", template_name=self.template.template_name, system=True)


def _with_usage(replies: Sequence[Reply]) -> Reply:
    """Return the last reply with the usage of all."""
    usage = reduce(add, (reply.usage for reply in replies))
    return replace(replies[-1], usage=usage)


@dataclass
class Chain(ChatArm):
    """An arm: a chain of prompts in one prompt template, for one model."""

    chain: str
    """Name of the chain."""
    steps: tuple[str, ...]
    template_name: str

    def __post_init__(self) -> None:
        self.family = f"{self.title_in_name} {self.chain}"
        self.name = f"{self.family}, {self.template_name}"

    @property
    def label(self) -> str:
        """The model and the name of the chain."""
        return f"{self.title_in_label}, {self.chain}"

    def fit(self, task: Task, train: Sequence[Example], rng: Generator) -> FittedChain:
        """Put the task's instruction into the steps; nothing is learned."""
        template = replace(base_template(task, train), template_name=self.template_name, system=True)
        # Not str.format: steps that users write may hold other braces, as of JSON.
        steps = tuple(step.replace("{instruction}", task.instruction) for step in self.steps)
        return FittedChain(self.model, steps, template, Built(0))
