"""A JSON task without a schema gets one from its targets, in the prompt and in structured outputs."""

from __future__ import annotations

import json
from typing import Any

from tunepoint import Task
from tunepoint.arms.templates import base_template, fill_template
from tunepoint.data.examples import Example
from tunepoint.data.json_schema import common_schema
from tunepoint.models.endpoints import request_of
from tunepoint.models.parsing import parse

TASK = {"name": "orders", "instruction": "Extract.", "answer": {"kind": "json"}}
SIZES = ("large", "medium", "small")


def examples(count: int = 30) -> list[Example]:
    targets = [{"item": f"thing {i}", "count": i, "size": SIZES[i % 3]} for i in range(count)]
    return [Example(str(i), f"text {i}", json.dumps(target)) for i, target in enumerate(targets)]


def test_prompt_and_structured_output_name_fields_types_few_values_and_required_keys() -> None:
    prompt = fill_template(base_template(Task.parse(TASK), examples()), examples()[0])
    request = request_of(prompt)
    assert request.schema == {
        "type": "object",
        "properties": {
            "item": {"type": "string"},
            "count": {"type": "integer"},
            "size": {"type": "string", "enum": list(SIZES)},
        },
        "required": ["item", "count", "size"],
        "additionalProperties": False,
    }
    words = " ".join(message.content for message in request.messages)
    assert json.dumps(request.schema) in words


def test_an_answer_that_departs_from_an_inferred_schema_is_read_and_from_a_declared_one_is_not() -> None:
    answer = '{"item": "thing 1", "count": "two"}'
    inferred = base_template(Task.parse(TASK), examples())
    assert parse(inferred, answer).answer == '{"count": "two", "item": "thing 1"}'
    schema = common_schema([example.target for example in examples()])
    declared: dict[str, Any] = {**TASK, "answer": {"kind": "json", "json_schema": schema}}
    assert parse(base_template(Task.parse(declared), examples()), answer).answer is None


def test_a_text_that_occurs_once_keeps_a_field_open() -> None:
    once = [*examples(), Example("x", "text", json.dumps({"item": "a", "count": 1, "size": "huge"}))]
    schema = common_schema([example.target for example in once], choices=True)
    assert schema is not None and schema["properties"]["size"] == {"type": "string"}


def test_a_schema_that_binds_guesses_no_values() -> None:
    schema = common_schema([example.target for example in examples()])
    assert schema is not None and schema["properties"]["size"] == {"type": "string"}


def test_answers_that_are_no_json_objects_of_a_kind_ask_for_none() -> None:
    for kind, targets in (("json", ["[]"]), ("text", ['{"a": 1}']), ("label", ["a", "b"])):
        task = Task.parse({"name": "t", "answer": {"kind": kind}})
        template = base_template(task, [Example(str(i), "x", target) for i, target in enumerate(targets)])
        assert template.schema is None


def test_a_study_of_before_is_another_one() -> None:
    """Its prompts named no field; with a schema of its own, a task keeps its identity."""
    task = Task.parse(TASK)
    declared = Task.parse({**TASK, "answer": {"kind": "json", "json_schema": {"type": "object"}}})
    assert task.trials_fingerprint() != declared.trials_fingerprint()
