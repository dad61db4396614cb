"""An arm that sends a prompt which somebody wrote, such as the one in production."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from numpy.random import Generator

from tunepoint.arms.contract import Built, Input, LocalFittedArm
from tunepoint.arms.prompting.chat_arm import ChatArm
from tunepoint.arms.templates import base_template
from tunepoint.data.examples import Example
from tunepoint.models.chat import ChatModel, Message, Prompt, Reply
from tunepoint.task.task import Task
from tunepoint.task.written_prompts import fill


@dataclass
class FittedWrittenPrompt(LocalFittedArm):
    """A written prompt that answers."""

    model: ChatModel
    messages: tuple[Message, ...]
    columns: Sequence[str]
    template: Prompt
    built: Built

    def answer(self, inputs: Sequence[Input]) -> list[Reply]:
        """Return one reply for each input, in their order; none is asked for twice, as in production."""
        return self.model.answer(self.prompts(inputs))

    def prompts(self, inputs: Sequence[Input]) -> list[Prompt]:
        """Return the prompt of each input."""
        return [
            replace(self.template, input=text, written=fill(self.messages, text, self.columns))
            for text in inputs
        ]


@dataclass
class WrittenPromptArm(ChatArm):
    """An arm: one written prompt for one model."""

    prompt_name: str
    messages: tuple[Message, ...]

    def __post_init__(self) -> None:
        self.name = self.family = f"{self.title_in_name} prompt {self.prompt_name}"

    @property
    def label(self) -> str:
        """The model and the name of the prompt."""
        return f"{self.title_in_label}, your prompt “{self.prompt_name}”"

    def fit(self, task: Task, train: Sequence[Example], rng: Generator) -> FittedWrittenPrompt:
        """Take the prompt as it is; nothing is learned."""
        columns = task.data.columns.input if task.data else ()
        return FittedWrittenPrompt(self.model, self.messages, columns, base_template(task, train), Built(0))
