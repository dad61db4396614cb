"""Right answers as people write them: which target of a task a text is."""

from __future__ import annotations

from tunepoint.models.chat import Prompt
from tunepoint.models.label_matching import same_label
from tunepoint.models.parsing import parse


def read_target(template: Prompt, text: str) -> str | None:
    """Return the target that a text is; None if it can be none of the task's.

    A label is returned as the task writes it. Targets of other kinds stay as they are, as long as an
    answer of that kind can be read in them.

    Args:
        template: gives the kind of answers, the labels and the schema.

    """
    text = text.strip()
    if template.kind == "label":
        return same_label(text, template.labels)
    if template.kind == "text":
        return text or None
    return text if parse(template, text).answer is not None else None


def expected_targets(template: Prompt) -> str:
    """Say what the targets of a task are."""
    if template.kind == "label":
        return f"one of its labels: {', '.join(template.labels)}"
    if template.kind == "json":
        return "JSON that follows its schema" if template.schema else "JSON"
    return "a number" if template.kind == "number" else "a text"
