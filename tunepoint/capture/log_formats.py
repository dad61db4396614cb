"""Entries of other tools' logs, one reader for each format."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tunepoint.capture.records import CapturedRequest, nanodollars

Json = Mapping[str, Any]
RequestReader = Callable[[Json, str], Sequence["CapturedRequest"]]
"""(an entry, name of the task) -> its requests; an entry of another form raises what Python raises."""
LAST_SECONDS = 1e11
"""Times above this are milliseconds: as seconds they would be in the year 5138."""


class SkippedEntry(Exception):
    """An entry that is no chat request, and the reason."""


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """What all formats have in common; requests and responses in OpenAI's form."""

    origin: str
    request: Json
    response: Json
    at: Any
    """A time as `_time` reads it."""
    identity: Any
    """The tool's own id."""
    seconds: Any = None
    usd: Any = None
    error: str | None = None
    user: str | None = None

    def captured(self, task: str) -> CapturedRequest:
        """The entry as a captured request, with an id that depends on nothing but its content.

        Raises:
            SkippedEntry: it has no messages.

        """
        messages = self.request.get("messages")
        if not isinstance(messages, list) or not messages:
            raise SkippedEntry("without messages")
        question = next((m for m in reversed(messages) if m.get("role") == "user"), messages[-1])
        text = _text(question.get("content"))
        choices = self.response.get("choices")
        message = (choices or [{}])[0].get("message") or {}
        usage = self.response.get("usage") or {}
        details = usage.get("prompt_tokens_details") or {}
        failed = self.error is not None or not choices
        model = str(self.request.get("model") or self.response.get("model") or "unknown")
        return CapturedRequest(
            id=self._id(text),
            at=_time(self.at),
            task=task,
            arm=model,
            role="imported",
            model=model,
            input=text,
            output=_text(message.get("content")),
            status=502 if failed else 200,
            error=self.error or ("no choices in the reply" if failed else None),
            messages=messages if len(messages) > 1 else None,
            parameters={
                key: value for key, value in self.request.items() if key not in ("messages", "model", "user")
            },
            input_tokens=_count(usage.get("prompt_tokens")),
            cached_tokens=_count(details.get("cached_tokens")),
            output_tokens=_count(usage.get("completion_tokens")),
            seconds=None if self.seconds is None else max(0.0, float(self.seconds)),
            cost_nanousd=_cost(self.usd),
            user=None if self.user is None else hashlib.sha256(self.user.encode()).hexdigest()[:32],
            origin=self.origin,
        )

    def _id(self, text: str) -> str:
        """The same for the same entry: a log that is imported twice is stored once."""
        content = json.dumps([self.identity, text, self.at], default=str, sort_keys=True)
        return f"{self.origin}-{hashlib.sha256(content.encode()).hexdigest()[:40]}"


# -- formats -----------------------------------------------------------------------------------------


def _openai(row: Json, task: str) -> list[CapturedRequest]:
    """`{"request": {...}, "response": {...}}`; in OpenAI's batches both have a `body`."""
    request: Any = row["request"].get("body", row["request"])
    response: Any = row.get("response") or {}
    body: Any = response.get("body") or response
    entry = _Entry(
        origin="openai",
        request=request,
        response=body,
        at=row.get("timestamp") or row.get("created_at") or body.get("created") or 0,
        identity=row.get("custom_id") or row.get("id") or body.get("id"),
        seconds=row.get("seconds"),
    )
    return [entry.captured(task)]


def _litellm(row: Json, task: str) -> list[CapturedRequest]:
    """LiteLLM's standard logging payload."""
    if row.get("call_type") not in (None, "completion", "acompletion"):
        raise SkippedEntry(f"calls of type {row['call_type']}")
    response = row.get("response")
    usage = {
        "prompt_tokens": row.get("prompt_tokens"),
        "completion_tokens": row.get("completion_tokens"),
    }
    start, end = _time(row["startTime"]), _time(row.get("endTime") or row["startTime"])
    succeeded = row.get("status", "success") == "success"
    entry = _Entry(
        origin="litellm",
        request={"messages": row["messages"], "model": row["model"], **(row.get("model_parameters") or {})},
        response={"usage": usage, **(response if isinstance(response, dict) else {})},
        at=start,
        identity=row["id"],
        seconds=end - start,
        usd=row.get("response_cost"),
        error=None if succeeded else str(row.get("error_str") or "failed"),
        user=row.get("end_user") or None,
    )
    return [entry.captured(task)]


def _langfuse(row: Json, task: str) -> list[CapturedRequest]:
    """Langfuse's export of observations; those of type GENERATION are calls."""
    if row.get("type") not in (None, "GENERATION"):
        raise SkippedEntry(f"observations of type {row['type']}")
    usage = row.get("usageDetails") or row.get("usage") or {}
    tokens = {"prompt_tokens": usage.get("input"), "completion_tokens": usage.get("output")}
    messages = _langfuse_messages(row["input"])
    start = _time(row["startTime"])
    end = _time(row["endTime"]) if row.get("endTime") else None
    cost = row.get("costDetails") or {}
    entry = _Entry(
        origin="langfuse",
        request={"messages": messages, "model": row.get("model"), **(row.get("modelParameters") or {})},
        response={"choices": [{"message": _langfuse_message(row.get("output"))}], "usage": tokens},
        at=start,
        identity=row["id"],
        seconds=None if end is None else end - start,
        usd=cost.get("total", row.get("calculatedTotalCost")),
        error=str(row.get("statusMessage") or "failed") if row.get("level") == "ERROR" else None,
    )
    return [entry.captured(task)]


def _langfuse_messages(content: Any) -> Any:
    """Messages of an input, which may be a list, an object that holds one, or a text."""
    messages = content.get("messages", content) if isinstance(content, dict) else content
    return [{"role": "user", "content": messages}] if isinstance(messages, str) else messages


def _langfuse_message(output: Any) -> Any:
    """The message of an output, which may be a completion, a message, or a text."""
    if not isinstance(output, dict):
        return {"content": output}
    return output["choices"][0]["message"] if output.get("choices") else output


def _otel(row: Json, task: str) -> list[CapturedRequest]:
    """OpenTelemetry's GenAI conventions: OTLP in JSON, or one span an entry."""
    spans = [
        span
        for resource in row.get("resourceSpans", ())
        for scope in resource.get("scopeSpans", ())
        for span in scope.get("spans", ())
    ] or ([row] if "attributes" in row else [])
    entries = [entry for span in spans if (entry := _otel_entry(span)) is not None]
    if not entries:
        raise SkippedEntry("spans without gen_ai.input.messages: switch the capture of content on")
    return [entry.captured(task) for entry in entries]


def _otel_entry(span: Json) -> _Entry | None:
    """The call that a span is about; None where it is another operation, or has no content."""
    attributes = _attributes(span["attributes"])
    messages, output = attributes.get("gen_ai.input.messages"), attributes.get("gen_ai.output.messages")
    if attributes.get("gen_ai.operation.name", "chat") != "chat" or messages is None:
        return None
    start, end = int(span["startTimeUnixNano"]) / 1e9, int(span["endTimeUnixNano"]) / 1e9
    error = attributes.get("error.type")
    conversation = [
        {"role": message["role"], "content": _otel_text(message)} for message in _decoded(messages)
    ]
    answer = _otel_text(_decoded(output)[0]) if output else None
    tokens = {
        "prompt_tokens": attributes.get("gen_ai.usage.input_tokens"),
        "completion_tokens": attributes.get("gen_ai.usage.output_tokens"),
    }
    model = attributes.get("gen_ai.response.model") or attributes.get("gen_ai.request.model")
    return _Entry(
        origin="otel",
        request={"messages": conversation, "model": model},
        response={"choices": [{"message": {"content": answer}}], "usage": tokens},
        at=start,
        identity=span.get("spanId"),
        seconds=end - start,
        error=None if error is None else str(error),
    )


def _attributes(attributes: Any) -> dict[str, Any]:
    """Attributes of a span, from OTLP's list or a plain object."""
    if isinstance(attributes, dict):
        return attributes
    return {attribute["key"]: next(iter(attribute["value"].values())) for attribute in attributes}


def _decoded(value: Any) -> list[Any]:
    content: list[Any] = json.loads(value) if isinstance(value, str) else value
    return content


def _otel_text(message: Json) -> str:
    """The text parts of a message."""
    parts = message.get("parts") or [{"type": "text", "content": message.get("content")}]
    texts = [part.get("content") for part in parts if part.get("type") == "text"]
    return "\n".join(text for text in texts if isinstance(text, str))


REQUEST_READERS: Mapping[str, RequestReader] = {
    "openai": _openai,
    "litellm": _litellm,
    "langfuse": _langfuse,
    "otel": _otel,
}


# -- values ------------------------------------------------------------------------------------------


def _text(content: Any) -> str:
    """The text of a message's content, which may be in parts."""
    if isinstance(content, list):
        return "\n".join(str(part["text"]) for part in content if isinstance(part, dict) and part.get("text"))
    return content if isinstance(content, str) else ""


def _count(value: Any) -> int | None:
    return None if value is None else int(value)


def _cost(usd: Any) -> int | None:
    """Billionths of a dollar; None where the tool knows no finite cost."""
    return None if usd is None or not math.isfinite(float(usd)) else nanodollars(float(usd))


def _time(value: Any) -> float:
    """Seconds since 1970, from seconds, milliseconds or ISO 8601; a time without a zone is UTC."""
    if isinstance(value, str) and not value.replace(".", "", 1).isdigit():
        moment = datetime.fromisoformat(value)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    number = float(value)
    return number / 1_000 if number > LAST_SECONDS else number
