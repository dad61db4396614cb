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
from tunepoint.task.written_prompts import fill, opening_of, with_opening


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
    instruction: str | None = None
    """In place of its opening words: what a prompt search wrote."""

    def __post_init__(self) -> None:
        # British: names are keys of studies on disk.
        optimized = "" if self.instruction is None else "optimised "
        self.name = self.family = f"{self.title_in_name} {optimized}prompt {self.prompt_name}"

    @property
    def label(self) -> str:
        """The model and the name of the prompt."""
        optimized = "" if self.instruction is None else ", optimized"
        return f"{self.title_in_label}, your prompt “{self.prompt_name}”{optimized}"

    def opening(self, task: Task) -> str:
        """Return the words that a search begins with; empty where the input comes first."""
        return opening_of(self.messages, _columns(task))

    def fit(self, task: Task, train: Sequence[Example], rng: Generator) -> FittedWrittenPrompt:
        """Take the prompt as it is; nothing is learned."""
        columns, messages = _columns(task), self.messages
        if self.instruction is not None:
            messages = with_opening(messages, columns, self.instruction)
        return FittedWrittenPrompt(self.model, messages, columns, base_template(task, train), Built(0))


def _columns(task: Task) -> Sequence[str]:
    return task.data.columns.input if task.data else ()
