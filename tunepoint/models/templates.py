"""Prompt templates: several ways to render the same prompt as messages.

The template alone moves scores by tens of points (Sclar et al. 2024), so no model is judged by one.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from tunepoint.models.chat import Message, Prompt
from tunepoint.models.label_codes import codes_of

ANSWER_MARK = "Answer:"
"""Starts the line with the answer, after reasoning."""
LABEL_KEY = "answer"
"""Key of a label inside a JSON object."""


@dataclass(frozen=True)
class PromptTemplate:
    """The words around a task and an input."""

    task: Callable[[str, str, str], str]
    """(instruction, choices, answer format) -> the task."""
    question: Callable[[str], str]
    """Input -> the question about it."""
    choices: Callable[[Prompt], str]
    """Prompt -> its labels with their descriptions."""


def _listed(prompt: Prompt) -> str:
    return "\n".join(
        f"{mark} {label}{_described(prompt, label)}"
        for mark, label in zip(_marks(prompt, "-"), prompt.labels, strict=True)
    )


def _inline(prompt: Prompt) -> str:
    return ", ".join(
        f"{mark} {label}{_described(prompt, label)}".lstrip()
        for mark, label in zip(_marks(prompt, ""), prompt.labels, strict=True)
    )


def _marks(prompt: Prompt, otherwise: str) -> list[str]:
    """What stands before each label: its code where the answer is one."""
    if not _label_as_letter(prompt):
        return [otherwise] * len(prompt.labels)
    return [f"{code}." for code in codes_of(prompt.labels)]


def _described(prompt: Prompt, label: str) -> str:
    description = prompt.descriptions.get(label)
    return f": {description}" if description else ""


def _plain(instruction: str, choices: str, form: str) -> str:
    options = f"The possible labels are:\n{choices}" if choices else ""
    return _joined(instruction, options, form)


def _expert(instruction: str, choices: str, form: str) -> str:
    options = f"Choose from these labels, and no others:\n{choices}" if choices else ""
    role = "You are an experienced specialist and your answers are read by a program."
    return _joined(role, instruction, options, form)


def _sections(instruction: str, choices: str, form: str) -> str:
    options = f"## Labels\n{choices}" if choices else ""
    return _joined(f"## Task\n{instruction}", options, f"## Output\n{form}")


def _tagged(instruction: str, choices: str, form: str) -> str:
    options = f"<labels>\n{choices}\n</labels>" if choices else ""
    return _joined(f"<task>\n{instruction}\n</task>", options, f"<output>\n{form}\n</output>")


def _terse(instruction: str, choices: str, form: str) -> str:
    return " ".join(part for part in (instruction, f"One of: {choices}." if choices else "", form) if part)


def _joined(*parts: str) -> str:
    return "\n\n".join(part for part in parts if part)


TEMPLATES: dict[str, PromptTemplate] = {
    "plain": PromptTemplate(_plain, lambda text: f"Input: {text}", _listed),
    "expert": PromptTemplate(_expert, lambda text: f'The input is: "{text}"', _listed),
    "sections": PromptTemplate(_sections, lambda text: f"## Input\n{text}", _listed),
    "tagged": PromptTemplate(_tagged, lambda text: f"<input>\n{text}\n</input>", _listed),
    "terse": PromptTemplate(_terse, lambda text: text, _inline),
}
"""By the name that is part of an arm's name."""
SHORT_TEMPLATES: dict[str, PromptTemplate] = {
    "short": PromptTemplate(lambda instruction, _, form: instruction, lambda text: text, lambda prompt: ""),
    "none": PromptTemplate(lambda instruction, _, form: "", lambda text: text, lambda prompt: ""),
}
"""For a model that was trained on the task: the instruction alone, or nothing around the input."""


def render(prompt: Prompt) -> tuple[Message, ...]:
    """Return a prompt as messages, by its template; one that somebody wrote as it is."""
    if prompt.written:
        return (*prompt.written, *prompt.history)
    template = (TEMPLATES | SHORT_TEMPLATES)[prompt.template_name]
    instruction = prompt.instruction or DEFAULT_INSTRUCTIONS[prompt.kind]
    task = template.task(instruction, template.choices(prompt), f"{answer_format(prompt)}{_shown(prompt)}")
    messages: list[Message] = []
    for demonstration in prompt.demonstrations:
        target = f"{ANSWER_MARK} {demonstration.target}" if prompt.reasoning else demonstration.target
        if _label_as_letter(prompt):
            codes = dict(zip(prompt.labels, codes_of(prompt.labels), strict=True))
            target = codes.get(target, target)
        if _label_in_json(prompt):
            target = json.dumps({LABEL_KEY: demonstration.target}, ensure_ascii=False)
        messages += [Message("user", template.question(demonstration.input)), Message("assistant", target)]
    messages.append(Message("user", template.question(prompt.input)))
    if not task:
        return (*messages, *prompt.history)
    if prompt.system:
        messages.insert(0, Message("system", task))
    else:
        # Some models take no system message: the task opens the first message of the user.
        messages[0] = Message("user", f"{task}\n\n{messages[0].content}")
    return (*messages, *prompt.history)


DEFAULT_INSTRUCTIONS = {
    "label": "Say which label fits the input.",
    "json": "Extract what the schema asks for from the input.",
    "number": "Work out the number that the input asks for.",
    "text": "Answer the input.",
}
"""By the kind of answer, for tasks without an instruction."""


def answer_format(prompt: Prompt) -> str:
    """Return what the answer must look like, in words."""
    form = {
        "label": "the label exactly as written above, and nothing else",
        "json": "one JSON object and nothing else" + _schema(prompt),
        "number": "the number only, in digits",
        "text": "the answer only",
    }[prompt.kind]
    if _label_in_json(prompt):
        form = f'one JSON object {{"{LABEL_KEY}": LABEL}}, with the label exactly as written above'
    if _label_as_letter(prompt):
        first = codes_of(prompt.labels)[0]
        code = "letter" if first.isalpha() else "number" if first.isdecimal() else "code"
        form = f"the {code} in front of the label, and nothing else"
    if prompt.reasoning:
        return (
            f"Think step by step. Then write a last line that begins with '{ANSWER_MARK}' and holds {form}."
        )
    return f"Reply with {form}."


def _shown(prompt: Prompt) -> str:
    """Right answers to other inputs, whose form the model keeps."""
    answers = "".join(f"\n- {answer}" for answer in prompt.shown_answers)
    return f" Keep to the form of these right answers to other inputs:{answers}" if answers else ""


def _label_in_json(prompt: Prompt) -> bool:
    return prompt.kind == "label" and prompt.form == "json" and not prompt.reasoning


def _label_as_letter(prompt: Prompt) -> bool:
    return prompt.kind == "label" and prompt.form == "letter" and not prompt.reasoning


def _schema(prompt: Prompt) -> str:
    return f", following this JSON schema: {json.dumps(prompt.schema)}" if prompt.schema else ""


def complaint(prompt: Prompt, reason: str) -> str:
    """Return the message that answers an unreadable reply."""
    return f"That could not be read: {reason}. {answer_format(prompt)}"
