"""The prompting ladder of a chat model: from a bare question to votes over reasoning."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import add

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from tunepoint.arms.contract import Built, Input, LocalFittedArm
from tunepoint.arms.prompting.demonstrations import nearest_rows
from tunepoint.arms.templates import base_template
from tunepoint.data.examples import Example
from tunepoint.models.chat import ChatModel, Demonstration, Embed, Prompt, Reply
from tunepoint.models.endpoints import Resampled
from tunepoint.models.providers import short_names
from tunepoint.models.repair import answer_with_repair
from tunepoint.task.hosting import Dedicated
from tunepoint.task.task import Task
from tunepoint.trials.trial import ArmKind

VARIED = 0.7
"""Temperature of samples that vote."""


@dataclass(frozen=True)
class PromptStyle:
    """One way of asking, apart from its wording."""

    family: str
    system: bool = False
    reasoning: bool = False
    shots: int = 0
    """Demonstrations shown to every input, labels in turn."""
    retrieved: int = 0
    """The most similar training examples, shown to each input."""
    nearest_last: bool = True
    """Order of retrieved demonstrations: the most similar next to the question."""
    samples: int = 1
    """More than one: they vote."""

    @property
    def name(self) -> str:
        """The family with its settings."""
        parts = [self.family]
        if self.shots or self.retrieved:
            parts.append(f"{self.shots or self.retrieved} {'examples' if self.shots else 'similar'}")
        if self.retrieved and not self.nearest_last:
            parts.append("nearest first")
        if self.samples > 1:
            parts.append(f"{self.samples} samples")
        return ", ".join(parts)

    @property
    def label(self) -> str:
        """What it shows the model, in plain words."""
        if self.shots or self.retrieved:
            return f"{self.shots} examples" if self.shots else f"{self.retrieved} similar examples"
        if self.samples > 1:
            return f"self-consistency over {self.samples} answers"
        if self.reasoning:
            return "chain of thought"
        return "no examples, system message" if self.system else "no examples"


PROMPT_STYLES = (
    PromptStyle("zero-shot"),
    PromptStyle("system message", system=True),
    PromptStyle("few-shot", system=True, shots=4),
    PromptStyle("few-shot", system=True, shots=12),
    PromptStyle("retrieved few-shot", system=True, retrieved=6),
    PromptStyle("retrieved few-shot", system=True, retrieved=6, nearest_last=False),
    PromptStyle("retrieved few-shot", system=True, retrieved=16),
    PromptStyle("chain of thought", system=True, reasoning=True),
    PromptStyle("self-consistency", system=True, reasoning=True, samples=5),
)
"""What is tried with every chat model, cheapest first; each in several wordings."""


@dataclass
class FittedChatPrompt(LocalFittedArm):
    """A rung that answers."""

    model: ChatModel
    rung: PromptStyle
    template: Prompt
    built: Built
    pool: tuple[Demonstration, ...] = ()
    vectors: NDArray[np.float32] | None = None
    embed: Embed | None = None

    def answer(self, inputs: Sequence[Input]) -> list[Reply]:
        """Replies in the order of the inputs, unreadable ones repaired once."""
        prompts = self.prompts(inputs)
        if self.rung.samples == 1:
            return answer_with_repair(self.model, prompts)
        many = [
            replace(prompt, temperature=VARIED, sample=sample)
            for prompt in prompts
            for sample in range(self.rung.samples)
        ]
        replies = answer_with_repair(self.model, many)
        size = self.rung.samples
        return [vote(replies[i : i + size]) for i in range(0, len(replies), size)]

    def prompts(self, inputs: Sequence[Input]) -> list[Prompt]:
        """The prompt of each input, with the demonstrations it gets."""
        if self.vectors is None or self.embed is None:
            return [replace(self.template, input=text) for text in inputs]
        near = nearest_rows(self.vectors, self.embed(inputs), self.rung.retrieved)
        ordered = near[:, ::-1] if self.rung.nearest_last else near
        return [
            replace(self.template, input=text, demonstrations=tuple(self.pool[i] for i in rows))
            for text, rows in zip(inputs, ordered.tolist(), strict=True)
        ]


def vote(replies: Sequence[Reply]) -> Reply:
    """The answer that most samples give, first come first served; its share is the confidence."""
    usage = reduce(add, (reply.usage for reply in replies))
    answers = [reply.answer for reply in replies if reply.answer is not None]
    if not answers:
        return replace(replies[0], usage=usage)
    answer, count = Counter(answers).most_common(1)[0]
    first = next(reply for reply in replies if reply.answer == answer)
    return replace(first, usage=usage, confidence=count / len(replies), error=None)


@dataclass
class ChatPrompt:
    """An arm: a rung in one wording, asked of one model."""

    model: ChatModel
    rung: PromptStyle
    wording: str
    embed: Embed | None = None
    instruction: str | None = None
    """In place of the task's: what a search has found."""
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
        way, family, model = self.rung.name, self.rung.family, self.title or self.model.name
        if self.instruction is not None:
            way, family = f"optimised {way}", "optimised prompt"
        self.family = f"{model} {family}"
        self.name = f"{model} {way}, {self.wording}"

    @property
    def label(self) -> str:
        """The model and how it is prompted, without the order and the template."""
        model = self.title or short_names([self.model.name])[0]
        optimized = "" if self.instruction is None else "optimized prompt, "
        return f"{model}, {optimized}{self.rung.label}"

    @property
    def base_model(self) -> str:
        """Its model, as task.toml names it."""
        return self.model.name

    def decoded(self, number: int) -> ChatPrompt:
        """The same arm, answering once more."""
        return replace(self, model=Resampled(self.model, number)) if number else self

    def fit(self, task: Task, train: Sequence[Example], rng: Generator) -> FittedChatPrompt:
        """Choose the demonstrations; nothing else is learnt."""
        rung = self.rung
        template = replace(
            base_template(task, train), wording=self.wording, system=rung.system, reasoning=rung.reasoning
        )
        if self.instruction is not None:
            template = replace(template, instruction=self.instruction)
        if rung.shots:
            shown = balanced_by_label(train, rung.shots, rng)
            template = replace(template, demonstrations=tuple(map(_shown, shown)))
            return FittedChatPrompt(self.model, rung, template, Built(len(shown)))
        if rung.retrieved:
            assert self.embed is not None, "a retrieving arm needs to know what is similar"
            vectors = self.embed([example.input for example in train])
            pool = tuple(map(_shown, train))
            return FittedChatPrompt(self.model, rung, template, Built(len(train)), pool, vectors, self.embed)
        return FittedChatPrompt(self.model, rung, template, Built(0))


def _shown(example: Example) -> Demonstration:
    return Demonstration(example.input, example.target)


def balanced_by_label(train: Sequence[Example], count: int, rng: Generator) -> list[Example]:
    """`count` examples in random order, one of each target before the second of any."""
    order = [train[i] for i in rng.permutation(len(train)).tolist()]
    seen: Counter[str] = Counter()
    turns = []
    for position, example in enumerate(order):
        turns.append((seen[example.target], position))
        seen[example.target] += 1
    return [order[position] for _, position in sorted(turns)[:count]]
