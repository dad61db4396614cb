"""Calls of chat models in spans of OpenTelemetry.

The GenAI conventions are read, as attributes of a span or of its events, with messages as one attribute
or one for each part (OpenLLMetry), and the conventions of OpenInference.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tunepoint.capture.logged_call import LoggedCall, Reply, moment_of, plain_text, text_in
from tunepoint.files.foreign_json import decoded, first_of, mapping, number, sequence
from tunepoint.files.left_out import LeftOut

Json = Mapping[str, Any]
CHATS = ("chat", "completion", "text_completion", "generate_content")
"""Operations that ask a model; an agent's span repeats what the spans of its calls hold."""
NESTS = (
    ("resourceSpans", "resource_spans"),
    ("scopeSpans", "scope_spans", "instrumentationLibrarySpans"),
    ("spans",),
)
"""Keys from an export to its spans."""
PLAIN_VALUES = ("stringValue", "string_value", "boolValue", "bool_value", "doubleValue", "double_value")
WHOLE_VALUES = ("intValue", "int_value")
INPUTS = ("gen_ai.input.messages", "gen_ai.prompt")
OUTPUTS = ("gen_ai.output.messages", "gen_ai.completion")
INPUT_LISTS = ("gen_ai.prompt", "llm.prompts", "llm.input_messages")
OUTPUT_LISTS = ("gen_ai.completion", "llm.completions", "llm.output_messages")
"""Beginnings of attributes that hold one part of a message each, as `gen_ai.prompt.0.content`."""
MODELS = ("gen_ai.response.model", "gen_ai.request.model", "llm.model_name")
ASKED = ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens", "llm.token_count.prompt")
ANSWERED = ("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens", "llm.token_count.completion")
ERRORS = (2, "2", "ERROR", "STATUS_CODE_ERROR")
"""Codes of a span's status."""
MESSAGE_EVENT = re.compile(r"gen_ai\.(system|user|assistant|tool)\.message")
CHOICE_EVENT = "gen_ai.choice"
SWITCH = "spans without messages: switch the capture of content on"


def spans_in(entries: Iterable[tuple[str, Json]]) -> Iterator[tuple[str, Json]]:
    """Yield the spans of OTLP exports, and of entries that are one span each."""
    for place, row in entries:
        if not any(key in row for key in NESTS[0]):
            yield place, row
        for position, span in enumerate(_nested(row, 0), start=1):
            yield f"{place}, span {position}", mapping(span)


def _nested(node: Any, level: int) -> Iterator[Any]:
    if level == len(NESTS):
        yield node
        return
    for child in sequence(first_of(mapping(node), *NESTS[level])):
        yield from _nested(child, level + 1)


def otel_call(span: Json) -> LoggedCall:
    """Return the call that a span is about.

    Raises:
        LeftOut: it is about something else, or has no messages.

    """
    attributes = _attributes(span.get("attributes"))
    events = [mapping(event) for event in sequence(span.get("events"))]
    for event in events:
        attributes = {**_attributes(event.get("attributes")), **attributes}
    _check_operation(attributes)
    question = _messages(attributes, INPUTS, INPUT_LISTS) or _event_messages(events, MESSAGE_EVENT.fullmatch)
    if not question:
        raise LeftOut(SWITCH)
    answer = _messages(attributes, OUTPUTS, OUTPUT_LISTS) or _event_messages(events, CHOICE_EVENT.__eq__)
    start, end = (_moment(span, name) for name in ("start", "end"))
    return LoggedCall(
        origin="otel",
        messages=question,
        model=first_of(attributes, *MODELS),
        reply=Reply(text_in(answer[0]["content"]) if answer else None),
        usage={
            "prompt_tokens": first_of(attributes, *ASKED),
            "completion_tokens": first_of(attributes, *ANSWERED),
        },
        at=start,
        identity=first_of(span, "spanId", "span_id") or mapping(span.get("context")).get("span_id"),
        seconds=None if start is None or end is None else end - start,
        error=_error(span, attributes),
    )


def _check_operation(attributes: Json) -> None:
    """Refuse spans that are about something else than a call of a chat model.

    Raises:
        LeftOut: this is such a span.

    """
    kind = str(attributes.get("openinference.span.kind") or "LLM")
    operation = str(first_of(attributes, "gen_ai.operation.name", "llm.request.type") or CHATS[0])
    if operation not in CHATS or kind != "LLM":
        raise LeftOut(f"spans of the operation {operation if kind == 'LLM' else kind}")
    if not any(name.startswith(("gen_ai.", "llm.")) for name in attributes):
        raise LeftOut("spans that are no call of a model")


def _error(span: Json, attributes: Json) -> str | None:
    status = mapping(span.get("status"))
    if attributes.get("error.type") is not None:
        return str(attributes["error.type"])
    if first_of(status, "code", "status_code") in ERRORS:
        return str(first_of(status, "message", "description") or "failed")
    return None


# -- messages ----------------------------------------------------------------------------------------


def _messages(attributes: Json, whole: Iterable[str], lists: Iterable[str]) -> list[dict[str, Any]]:
    """Return messages with role and content, from one attribute or from one for each part."""
    value = first_of(attributes, *whole)
    content = decoded(value)
    rows = [mapping(message) for message in (content if isinstance(content, list) else [content])]
    messages = [_message(row) for row in rows if not row.keys().isdisjoint(("role", "parts", "content"))]
    if isinstance(value, str) and value.strip() and content and not messages:
        return [{"role": "user", "content": value}]  # a text, which may be JSON
    return messages or next(filter(None, (_numbered(attributes, prefix) for prefix in lists)), [])


def _message(row: Json) -> dict[str, Any]:
    """Return a message with the text of its parts, or of its content."""
    content = plain_text(first_of(row, "parts", "content"))
    return {"role": str(row.get("role") or "user"), "content": content}


def _numbered(attributes: Json, prefix: str) -> list[dict[str, Any]]:
    """Return the messages in attributes such as `gen_ai.prompt.0.content`, in the order of their numbers."""
    pattern = re.compile(re.escape(prefix) + r"\.(\d{1,6})\.(?:message\.)?(.+)")
    messages: dict[int, dict[str, list[str]]] = {}
    for name, value in attributes.items():
        match = pattern.fullmatch(name)
        if match is None or value is None:
            continue
        key = re.sub(r"contents\.\d+\.message_content\.text", "content", match[2])
        messages.setdefault(int(match[1]), {}).setdefault(key, []).append(plain_text(value))
    return [
        {"role": "".join(parts.get("role", [])) or "user", "content": "\n".join(parts.get("content", []))}
        for _, parts in sorted(messages.items())
    ]


def _event_messages(events: Iterable[Json], wanted: Any) -> list[dict[str, Any]]:
    """Return the messages in events that have one each, as older versions of the conventions say."""
    messages = []
    for event in events:
        name = str(event.get("name") or "")
        if not wanted(name):
            continue
        values = _attributes(event.get("attributes"))
        message = mapping(values.get("message")) or values
        role = name.split(".")[1] if name != CHOICE_EVENT else "assistant"
        messages.append({"role": role, "content": plain_text(message.get("content"))})
    return messages


# -- values ------------------------------------------------------------------------------------------


def _attributes(attributes: Any) -> dict[str, Any]:
    """Return attributes that have a value, from OTLP's list or a plain object."""
    if isinstance(attributes, dict):
        return {key: value for key, value in attributes.items() if value is not None}
    pairs = [mapping(pair) for pair in sequence(attributes)]
    values = {str(pair.get("key")): _any_value(pair.get("value")) for pair in pairs}
    return {key: value for key, value in values.items() if value is not None}


def _any_value(value: Any) -> Any:
    """Return the value in OTLP's `AnyValue`; None for one that is empty."""
    if not isinstance(value, dict):
        return value
    whole = first_of(value, *WHOLE_VALUES)
    if whole is not None:
        return number(whole)
    array = mapping(first_of(value, "arrayValue", "array_value"))
    if array:
        return [decoded(_any_value(member)) for member in sequence(array.get("values"))]
    pairs = mapping(first_of(value, "kvlistValue", "kvlist_value"))
    return _attributes(sequence(pairs.get("values"))) if pairs else first_of(value, *PLAIN_VALUES)


def _moment(span: Json, end: str) -> float | None:
    """Return when a span starts or ends; exporters write nanoseconds, pairs of halves, or ISO 8601."""
    value = first_of(span, f"{end}TimeUnixNano", f"{end}_time_unix_nano", f"{end}Time", f"{end}_time")
    if isinstance(value, dict):  # 64 bits in two numbers, as JavaScript writes them
        high, low = number(value.get("high")), number(value.get("low"))
        value = None if high is None or low is None else high * 2**32 + low % 2**32
    return moment_of(value)
