"""What all prompts of a task have in common; examples as conversations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from tunepoint.data.examples import Example, labels_of
from tunepoint.models.chat import Prompt
from tunepoint.models.templates import messages
from tunepoint.task.task import Task


def base_template(task: Task, train: Sequence[Example]) -> Prompt:
    """What every prompt of a task has in common."""
    label = task.answer.kind == "label"
    return Prompt(
        "",
        task.instruction,
        labels_of(task, train) if label else (),
        dict(task.answer.labels or {}) if label else {},
        kind=task.answer.kind,
        schema=task.answer.json_schema,
    )


def template_for_length(task: Task, train: Sequence[Example], length: PromptLength) -> Prompt:
    """What every prompt of a tuned model has in common; `train` has the labels if the task does not."""
    kind = task.answer.kind
    labels = labels_of(task, train) if kind == "label" else ()
    described = dict(task.answer.labels or {}) if kind == "label" else {}
    return Prompt(
        "",
        task.instruction,
        labels,
        described,
        kind=kind,
        schema=task.answer.json_schema,
        wording="plain" if length == "full" else length,
        system=True,
    )


def fill_template(template: Prompt, example: Example) -> Prompt:
    """The prompt that asks an example."""
    return replace(template, input=example.input)


def chat_rows(task: Task, examples: Sequence[Example], train: Sequence[Example]) -> list[dict[str, Any]]:
    """Examples as conversations: the messages that a tuned model is asked with, then the target."""
    template = template_for_length(task, train, "full")
    return [
        {
            "messages": [
                *(
                    {"role": turn.role, "content": turn.content}
                    for turn in messages(fill_template(template, e))
                ),
                {"role": "assistant", "content": e.target},
            ]
        }
        for e in examples
    ]


PromptLength = Literal["full", "short", "none"]
PROMPT_LENGTHS: tuple[PromptLength, ...] = ("full", "short", "none")
"""Prompts that a tuned model may get: all that a prompted one gets, the instruction alone, nothing."""
