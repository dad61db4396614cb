"""Prompt templates of a task, and examples as conversations to train on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from tunepoint.data.examples import Example, labels_of
from tunepoint.data.json_schema import common_schema
from tunepoint.models.chat import Prompt
from tunepoint.models.templates import render
from tunepoint.task.task import Task

PromptLength = Literal["full", "short", "none"]
PROMPT_LENGTHS: tuple[PromptLength, ...] = ("full", "short", "none")
"""Prompts that a tuned model may get: all that a prompted model gets, the instruction alone, nothing."""


def base_template(task: Task, train: Sequence[Example]) -> Prompt:
    """Return what every prompt of a task has in common, with an empty input.

    Args:
        task: gives the instruction, the kind of answer and its schema.
        train: gives the labels where the task declares none, and the schema.

    """
    is_label, declared = task.answer.kind == "label", task.answer.json_schema
    infers = task.answer.kind == "json" and declared is None
    return Prompt(
        input="",
        instruction=task.instruction,
        labels=labels_of(task, train) if is_label else (),
        descriptions=dict(task.answer.labels or {}) if is_label else {},
        kind=task.answer.kind,
        schema=common_schema([example.target for example in train], choices=True) if infers else declared,
        schema_inferred=infers,
    )


def template_for_length(task: Task, train: Sequence[Example], length: PromptLength) -> Prompt:
    """Return what every prompt of a tuned model has in common, for one length of prompt."""
    return replace(
        base_template(task, train), template_name="plain" if length == "full" else length, system=True
    )


def fill_template(template: Prompt, example: Example) -> Prompt:
    """Return the prompt that asks for the answer to an example."""
    return replace(template, input=example.input)


def chat_rows(task: Task, examples: Sequence[Example], train: Sequence[Example]) -> list[dict[str, Any]]:
    """Return examples as conversations to fine-tune on: the prompt's messages, then the target.

    The messages are those that the tuned model gets later: a model that is trained on one form
    and asked in another loses much of what it has learned.
    """
    template = template_for_length(task, train, "full")
    return [{"messages": _turns(template, example)} for example in examples]


def _turns(template: Prompt, example: Example) -> list[dict[str, str]]:
    turns = [
        {"role": turn.role, "content": turn.content} for turn in render(fill_template(template, example))
    ]
    return [*turns, {"role": "assistant", "content": example.target}]
