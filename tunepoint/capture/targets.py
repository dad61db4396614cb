"""Right answers as people write them: which target of a task a text is."""

from __future__ import annotations

import json

from tunepoint.models.chat import Prompt
from tunepoint.models.label_matching import same_label
from tunepoint.models.numbers import plain_number
from tunepoint.models.parsing import schema_fault


def read_target(template: Prompt, text: str) -> str | None:
    """Return the target that a text is; None if it can be none of the task's.

    A label is returned as the task writes it. Targets of other kinds stay as they are; a text that only
    holds a number or JSON somewhere is none.

    Args:
        template: gives the kind of answers, the labels and the schema.
        text: as a person or an arm wrote it.

    """
    text = text.strip()
    if template.kind == "label":
        return same_label(text, template.labels)
    if template.kind == "json":
        return text if _follows_schema(template, text) else None
    if template.kind == "number":
        return text if plain_number(text) is not None else None
    return text or None


def _follows_schema(template: Prompt, text: str) -> bool:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return False
    if not isinstance(value, (dict, list)):
        return False
    return not template.schema or schema_fault(template.schema, value) is None


def expected_targets(template: Prompt) -> str:
    """Say what the targets of a task are."""
    if template.kind == "label":
        return f"one of its labels: {', '.join(template.labels)}"
    if template.kind == "json":
        return "JSON that follows its schema" if template.schema else "a JSON object or list"
    return "a number" if template.kind == "number" else "a text"
