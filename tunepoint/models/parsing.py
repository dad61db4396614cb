"""The answer in a model's text, or why there is none."""

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
    why: str | None = None


def parse(prompt: Prompt, text: str) -> ParsedAnswer:
    """Read the answer of the prompt's kind out of a model's text."""
    plain = _THOUGHT.sub("", text).strip()
    if not plain:
        return ParsedAnswer(None, EMPTY_REPLY)
    if prompt.reasoning:
        _, mark, after = plain.rpartition(ANSWER_MARK)
        if not mark:
            return ParsedAnswer(None, f"no line begins with '{ANSWER_MARK}'")
        plain = after.strip().strip("*").strip()
    return {"label": _label, "json": _json, "number": _number, "text": _text}[prompt.kind](prompt, plain)


def _text(prompt: Prompt, text: str) -> ParsedAnswer:
    return ParsedAnswer(text)


def _label(prompt: Prompt, text: str) -> ParsedAnswer:
    """The label the text is, or the only one it names."""
    inner = _unwrapped(text)
    wanted = _squeezed(inner)
    known = {_squeezed(label): label for label in prompt.labels}
    if wanted in known:
        return ParsedAnswer(known[wanted])
    named = {label for key, label in known.items() if re.search(rf"(?<!\w){re.escape(key)}(?!\w)", wanted)}
    # A label inside a longer one is not a second answer: 'card' in 'card arrival'.
    outer = {a for a in named if not any(a != b and _squeezed(a) in _squeezed(b) for b in named)}
    if len(outer) == 1:
        return ParsedAnswer(outer.pop())
    if outer:
        return ParsedAnswer(None, f"it names {len(outer)} labels: {', '.join(sorted(outer)[:3])}")
    return ParsedAnswer(None, "it is none of the labels")


def _unwrapped(text: str) -> str:
    """The value of `{"answer": ...}`, as schema modes return it; else the text itself."""
    try:
        value = json.loads(_found(text) or text)
    except ValueError:
        return text
    if isinstance(value, dict) and len(value) == 1:
        value = next(iter(value.values()))
    return value if isinstance(value, str) else text


def _squeezed(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold().replace("_", " ")))


def _json(prompt: Prompt, text: str) -> ParsedAnswer:
    """One JSON object that follows the schema, written canonically."""
    found = _found(text)
    if found is None:
        return ParsedAnswer(None, "there is no JSON object in it")
    try:
        value = json.loads(found)
    except (ValueError, RecursionError) as error:
        return ParsedAnswer(None, f"its JSON is broken: {error}")
    fault = schema_fault(prompt.schema, value) if prompt.schema else None
    if fault:
        return ParsedAnswer(None, fault)
    return ParsedAnswer(json.dumps(value, ensure_ascii=False, sort_keys=True))


def _found(text: str) -> str | None:
    """The first JSON object of a text, its code fence taken off."""
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
    """Where a value departs from a JSON schema first, or None."""
    from jsonschema import Draft202012Validator

    for error in Draft202012Validator(schema).iter_errors(value):
        where = "/".join(str(part) for part in error.absolute_path) or "the object"
        return f"{where}: {error.message[:200]}"
    return None


def _number(prompt: Prompt, text: str) -> ParsedAnswer:
    """The last number of the text, in plain digits."""
    numbers = _NUMBER.findall(_unwrapped(text))
    if not numbers:
        return ParsedAnswer(None, "there is no number in it")
    return ParsedAnswer(re.sub(r"[,_ ]", "", numbers[-1]))
