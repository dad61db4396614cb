"""Read the answer in a model's text, or say why there is none."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from tunepoint.models.chat import Prompt
from tunepoint.models.label_codes import label_of
from tunepoint.models.label_matching import named_labels, same_label
from tunepoint.models.numbers import last_number
from tunepoint.models.templates import ANSWER_MARK
from tunepoint.models.thinking import without_thinking

EMPTY_REPLY = "the reply is empty"
UNFINISHED_THOUGHT = "it ends before its thinking does"
_FENCE = re.compile(r"```(?:\w+)?\s*\n(.*?)```", re.DOTALL)
_BOXED = re.compile(r"\\boxed\{(?:\\text\{)?([^{}]+)\}")
"""The answer as models that learned mathematics write it, whatever they are asked for."""
_DECODER = json.JSONDecoder()
MAX_JSON_STARTS = 50
"""Brackets of a text at which JSON is tried to be read: text from a model may hold any number."""


@dataclass(frozen=True)
class ParsedAnswer:
    """An answer, or why the text holds none."""

    answer: str | None
    error: str | None = None


def parse(prompt: Prompt, text: str) -> ParsedAnswer:
    """Read an answer of the prompt's kind out of a model's text."""
    plain = without_thinking(text)
    if not plain:
        return ParsedAnswer(None, UNFINISHED_THOUGHT if text.strip() else EMPTY_REPLY)
    if prompt.reasoning:
        _, mark, after = plain.rpartition(ANSWER_MARK)
        boxed = _BOXED.findall(plain)
        if not mark and boxed:
            after = boxed[-1]
        elif not mark:
            return ParsedAnswer(None, f"no line begins with '{ANSWER_MARK}'")
        plain = after.strip().strip("*").strip()  # the mark is often set in bold
    return {"label": _label, "json": _json, "number": _number, "text": _text}[prompt.kind](prompt, plain)


def _text(prompt: Prompt, text: str) -> ParsedAnswer:
    return ParsedAnswer(text)


def _label(prompt: Prompt, text: str) -> ParsedAnswer:
    """Read the label that the text is, or the only one that it names."""
    wanted = _unwrapped(text)
    label = label_of(wanted, prompt.labels) if prompt.form == "letter" else None
    label = label or same_label(wanted, prompt.labels)
    if label is not None:
        return ParsedAnswer(label)
    named = named_labels(wanted, prompt.labels)
    if len(named) == 1:
        return ParsedAnswer(named[0])
    if named:
        return ParsedAnswer(None, f"it names {len(named)} labels: {', '.join(sorted(named)[:3])}")
    return ParsedAnswer(None, "it is none of the labels")


def _unwrapped(text: str) -> str:
    """Return the value of `{"answer": ...}`, as schema modes return it; else the text itself."""
    content = _json_value(text, "{[")
    try:
        value = text if content is None else json.loads(content)
    except (ValueError, RecursionError):
        return text
    if isinstance(value, dict):
        value = value.get("answer", next(iter(value.values())) if len(value) == 1 else None)
    if isinstance(value, list) and len(value) == 1 and _is_only(content, text):
        value = value[0]
    if isinstance(value, (bool, int, float)):
        return json.dumps(value)
    return value if isinstance(value, str) else text


def _is_only(content: str | None, text: str) -> bool:
    """Whether a text is this JSON and no more; in prose, `[1]` is a citation."""
    fence = _FENCE.search(text)
    return content == (fence.group(1) if fence else text).strip()


def _json(prompt: Prompt, text: str) -> ParsedAnswer:
    """Read a JSON object or list that follows the schema, and write it with sorted keys."""
    content = _json_value(text, "{[")
    if content is None:
        return ParsedAnswer(None, "there is no JSON in it")
    try:
        value = json.loads(content)
        answer = json.dumps(value, ensure_ascii=False, sort_keys=True)
    except (ValueError, RecursionError) as error:
        return ParsedAnswer(None, f"its JSON is broken: {error}")
    binding = prompt.schema if not prompt.schema_inferred else None
    fault = schema_fault(binding, value) if binding else None
    return ParsedAnswer(None, fault) if fault else ParsedAnswer(answer)


def _json_value(text: str, opening: str) -> str | None:
    """Return the first JSON value of a text that begins with one of these signs; broken JSON up to the end.

    A code fence around it is left out. A sign in prose, as in "[1] says", begins no JSON as long as
    whole JSON follows.
    """
    fence = _FENCE.search(text)
    inner = fence.group(1) if fence else text
    starts = [match.start() for match in re.finditer(f"[{re.escape(opening)}]", inner)][:MAX_JSON_STARTS]
    if not starts:
        return None
    best: str | None = None
    position = -1
    for start in starts:
        if start < position:
            continue  # inside the value before
        try:
            _, end = _DECODER.raw_decode(inner, start)
        except (ValueError, RecursionError):
            continue
        position = end
        if best is None or (inner[start] == "{" and best[0] == "["):
            best = inner[start:end]
    return inner[starts[0] :] if best is None else best


def schema_fault(schema: Any, value: Any) -> str | None:
    """Return where a value violates a JSON schema first, or None."""
    from jsonschema import Draft202012Validator

    for error in Draft202012Validator(schema).iter_errors(value):
        where = "/".join(str(part) for part in error.absolute_path) or "the object"
        return f"{where}: {error.message[:200]}"
    return None


def _number(prompt: Prompt, text: str) -> ParsedAnswer:
    """Read the last number of the text, in plain digits."""
    number = last_number(_unwrapped(text))
    return ParsedAnswer(None, "there is no number in it") if number is None else ParsedAnswer(number)
