"""Read the answer in a model's text, or say why there is none."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from tunepoint.models.chat import Prompt
from tunepoint.models.templates import ANSWER_MARK

EMPTY_REPLY = "the reply is empty"
_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:[,_ ]\d{3})+|\d+)(?:\.\d+)?(?:[eE][-+]?\d+)?")
_FENCE = re.compile(r"```(?:\w+)?\s*\n(.*?)```", re.DOTALL)
_THOUGHT = re.compile(r"<think>.*?</think>", re.DOTALL)


@dataclass(frozen=True)
class ParsedAnswer:
    """An answer, or why the text holds none."""

    answer: str | None
    error: str | None = None


def parse(prompt: Prompt, text: str) -> ParsedAnswer:
    """Read an answer of the prompt's kind out of a model's text."""
    # Open reasoning models write their thoughts into the reply.
    plain = _THOUGHT.sub("", text).strip()
    if not plain:
        return ParsedAnswer(None, EMPTY_REPLY)
    if prompt.reasoning:
        _, mark, after = plain.rpartition(ANSWER_MARK)
        if not mark:
            return ParsedAnswer(None, f"no line begins with '{ANSWER_MARK}'")
        plain = after.strip().strip("*").strip()  # the mark is often set in bold
    return {"label": _label, "json": _json, "number": _number, "text": _text}[prompt.kind](prompt, plain)


def _text(prompt: Prompt, text: str) -> ParsedAnswer:
    return ParsedAnswer(text)


def _label(prompt: Prompt, text: str) -> ParsedAnswer:
    """Read the label that the text is, or the only one that it names."""
    wanted = _words(_unwrapped(text))
    labels = {_words(label): label for label in prompt.labels}
    if wanted in labels:
        return ParsedAnswer(labels[wanted])
    named = {label for key, label in labels.items() if re.search(rf"(?<!\w){re.escape(key)}(?!\w)", wanted)}
    # A label inside a longer one is not a second answer: 'card' in 'card arrival'.
    outer = {a for a in named if not any(a != b and _words(a) in _words(b) for b in named)}
    if len(outer) == 1:
        return ParsedAnswer(outer.pop())
    if outer:
        return ParsedAnswer(None, f"it names {len(outer)} labels: {', '.join(sorted(outer)[:3])}")
    return ParsedAnswer(None, "it is none of the labels")


def _unwrapped(text: str) -> str:
    """Return the value of `{"answer": ...}`, as schema modes return it; else the text itself."""
    try:
        value = json.loads(_json_object(text) or text)
    except ValueError:
        return text
    if isinstance(value, dict) and len(value) == 1:
        value = next(iter(value.values()))
    return value if isinstance(value, str) else text


def _words(text: str) -> str:
    """Return the words of a text in lower case, without the punctuation between them."""
    return " ".join(re.findall(r"\w+", text.casefold().replace("_", " ")))


def _json(prompt: Prompt, text: str) -> ParsedAnswer:
    """Read a JSON object that follows the schema, and write it with sorted keys."""
    content = _json_object(text)
    if content is None:
        return ParsedAnswer(None, "there is no JSON object in it")
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        return ParsedAnswer(None, f"its JSON is broken: {error}")
    fault = schema_fault(prompt.schema, value) if prompt.schema else None
    if fault:
        return ParsedAnswer(None, fault)
    return ParsedAnswer(json.dumps(value, ensure_ascii=False, sort_keys=True))


def _json_object(text: str) -> str | None:
    """Return the first JSON object of a text, without its code fence; broken JSON up to the end."""
    fence = _FENCE.search(text)
    inner = fence.group(1) if fence else text
    start = inner.find("{")
    if start < 0:
        return None
    try:
        _, end = json.JSONDecoder().raw_decode(inner[start:])
    except (ValueError, RecursionError):
        return inner[start:]
    return inner[start : start + end]


def schema_fault(schema: Any, value: Any) -> str | None:
    """Return where a value violates a JSON schema first, or None."""
    from jsonschema import Draft202012Validator

    for error in Draft202012Validator(schema).iter_errors(value):
        where = "/".join(str(part) for part in error.absolute_path) or "the object"
        return f"{where}: {error.message[:200]}"
    return None


def _number(prompt: Prompt, text: str) -> ParsedAnswer:
    """Read the last number of the text, in plain digits: what comes before it is usually the working."""
    numbers = _NUMBER.findall(_unwrapped(text))
    if not numbers:
        return ParsedAnswer(None, "there is no number in it")
    return ParsedAnswer(re.sub(r"[,_ ]", "", numbers[-1]))
