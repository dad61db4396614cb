"""Prompts of a chat model: from a bare question to votes over chains of thought."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from tunepoint.arms.contract import Built, Input, LocalFittedArm
from tunepoint.arms.prompting.chat_arm import ChatArm
from tunepoint.arms.prompting.styles import PromptStyle
from tunepoint.arms.similarity import nearest_rows
from tunepoint.arms.templates import base_template
from tunepoint.data.examples import Example
from tunepoint.models.chat import AnswerForm, ChatModel, Demonstration, Embed, Prompt, Reply
from tunepoint.models.repair import answer_with_repair
from tunepoint.task.task import Task

VOTING_TEMPERATURE = 0.7
"""Temperature of samples that vote: at 0 they would all be the same.

Wang et al. 2023, "Self-consistency improves chain of thought reasoning", use 0.5 to 0.7.
"""


@dataclass
class FittedChatPrompt(LocalFittedArm):
    """A style of prompt that answers."""

    model: ChatModel
    style: PromptStyle
    template: Prompt
    built: Built
    pool: tuple[Demonstration, ...] = ()
    vectors: NDArray[np.float32] | None = None
    embed: Embed | None = None

    def answer(self, inputs: Sequence[Input]) -> list[Reply]:
        """Return one reply for each input, in their order; unreadable ones are repaired once."""
        prompts = self.prompts(inputs)
        if self.style.samples == 1:
            return answer_with_repair(self.model, prompts)
        size = self.style.samples
        samples = [
            replace(prompt, temperature=VOTING_TEMPERATURE, sample=sample)
            for prompt in prompts
            for sample in range(size)
        ]
        replies = answer_with_repair(self.model, samples)
        return [vote(replies[i : i + size]) for i in range(0, len(replies), size)]

    def prompts(self, inputs: Sequence[Input]) -> list[Prompt]:
        """Return the prompt of each input, with its demonstrations."""
        if self.vectors is None or self.embed is None:
            return [replace(self.template, input=text) for text in inputs]
        near = nearest_rows(self.vectors, self.embed(inputs), self.style.retrieved)
        ordered = near[:, ::-1] if self.style.nearest_last else near
        return [
            replace(self.template, input=text, demonstrations=tuple(self.pool[i] for i in rows))
            for text, rows in zip(inputs, ordered.tolist(), strict=True)
        ]


def vote(replies: Sequence[Reply]) -> Reply:
    """Return the reply that most samples agree on, the earliest of equals; its share is the confidence."""
    usage = reduce(add, (reply.usage for reply in replies))
    answers = [reply.answer for reply in replies if reply.answer is not None]
    if not answers:
        return replace(replies[0], usage=usage)
    answer, count = Counter(answers).most_common(1)[0]
    first = next(reply for reply in replies if reply.answer == answer)
    return replace(first, usage=usage, confidence=count / len(replies), error=None)


FORM_IN_NAME: Mapping[AnswerForm, str] = {
    "either": "",
    "plain": "",
    "json": ", JSON",
    "letter": ", letters",
}
"""What an arm's name says of the form of its answers."""


@dataclass
class ChatPrompt(ChatArm):
    """An arm: a style of prompt in one prompt template, for one model."""

    style: PromptStyle
    template_name: str
    embed: Embed | None = None
    """What similar means, for a style that retrieves."""
    instruction: str | None = None
    """In place of the task's instruction: one that a prompt search found."""
    form: AnswerForm = "either"
    """How a label is asked for."""

    def __post_init__(self) -> None:
        style, family = self.style.name, self.style.family
        if self.instruction is not None:
            # British: names are keys of studies on disk.
            style, family = f"optimised {style}", "optimised prompt"
        self.family = f"{self.title_in_name} {family}"
        form = FORM_IN_NAME[self.form]
        if self.form == "plain" and self.model.remote:
            form = ", plain label"  # without it, the name is that of a prompt of older versions
        self.name = f"{self.title_in_name} {style}, {self.template_name}{form}"

    @property
    def label(self) -> str:
        """The model and what its prompt shows, without order and template."""
        optimized = "" if self.instruction is None else "optimized prompt, "
        return f"{self.title_in_label}, {optimized}{self.style.label}"

    def opening(self, task: Task) -> str:
        """Return the words that a search begins with: the task's instruction."""
        return task.instruction

    def fit(self, task: Task, train: Sequence[Example], rng: Generator) -> FittedChatPrompt:
        """Choose the demonstrations; nothing else is learned."""
        template = self._template(task, train)
        if self.style.shots:
            demonstrations = tuple(map(_demonstration, balanced_by_label(train, self.style.shots, rng)))
            template = replace(template, demonstrations=demonstrations)
            return FittedChatPrompt(self.model, self.style, template, Built(len(demonstrations)))
        if self.style.answers:
            shown = balanced_by_label(train, self.style.answers, rng)
            template = replace(template, shown_answers=tuple(example.target for example in shown))
            return FittedChatPrompt(self.model, self.style, template, Built(len(shown)))
        if not self.style.retrieved:
            return FittedChatPrompt(self.model, self.style, template, Built(0))
        assert self.embed is not None, "a style that retrieves needs to know what is similar"
        vectors = self.embed([example.input for example in train])
        pool = tuple(map(_demonstration, train))
        return FittedChatPrompt(
            self.model, self.style, template, Built(len(train)), pool, vectors, self.embed
        )

    def _template(self, task: Task, train: Sequence[Example]) -> Prompt:
        template = replace(
            base_template(task, train),
            template_name=self.template_name,
            system=self.style.system,
            reasoning=self.style.reasoning,
            form=self.form,
        )
        if self.instruction is None:
            return template
        return replace(template, instruction=self.instruction)


def _demonstration(example: Example) -> Demonstration:
    return Demonstration(example.input, example.target)


def balanced_by_label(train: Sequence[Example], count: int, rng: Generator) -> list[Example]:
    """Return `count` examples in random order, one of each target before the second of any."""
    shuffled = [train[i] for i in rng.permutation(len(train)).tolist()]
    counts: Counter[str] = Counter()
    turns = []
    for position, example in enumerate(shuffled):
        turns.append((counts[example.target], position))
        counts[example.target] += 1
    return [shuffled[position] for _, position in sorted(turns)[:count]]
