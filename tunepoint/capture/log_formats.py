"""Entries of other tools' logs, one reader for each format."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tunepoint.capture.batches import NO_PARTNER, joined
from tunepoint.capture.logged_call import (
    Json,
    LoggedCall,
    Reply,
    chat_messages,
    error_in,
    moment_of,
    reply_in,
    seconds_between,
)
from tunepoint.capture.otel_spans import otel_call, spans_in
from tunepoint.files.foreign_json import decoded, first_of, mapping, number, sequence
from tunepoint.files.left_out import LeftOut

Placed = tuple[str, Json]
"""A place in a file, and the entry that stands there."""
NO_PARAMETERS = ("messages", "model", "user", "input", "instructions", "prompt")
"""Keys of a request that hold what was asked, and who asked."""
LITELLM_CHATS = ("completion", "acompletion", "responses", "aresponses", "anthropic_messages")
"""LiteLLM's types of calls that are chats."""


@dataclass(frozen=True)
class RequestFormat:
    """How a tool writes its log."""

    call: Callable[[Json], LoggedCall]
    """Reads one entry; raises LeftOut for one that is no chat request."""
    parts: Callable[[Iterable[Placed]], Iterator[Placed]] = iter
    """Splits or joins what the lines of the file hold, so that each entry is one call."""


# -- OpenAI ------------------------------------------------------------------------------------------


def _openai(row: Json) -> LoggedCall:
    """`{"request": {...}, "response": {...}}`; in OpenAI's batches both have a `body`.

    Raises:
        LeftOut: there is no request.

    """
    if NO_PARTNER in row:
        raise LeftOut(row[NO_PARTNER])
    answered = _body(row.get("response"))
    request, response = mapping(_body(row.get("request"))), mapping(answered)
    if not request:
        raise LeftOut("without a request")
    status = number(mapping(row.get("response")).get("status_code"))
    failure = int(status) if status is not None and 400 <= status <= 599 else None
    fault = error_in(row.get("error"))
    if failure is not None:
        fault = fault or error_in(response.get("error") or response) or f"status {failure}"
    return LoggedCall(
        origin="openai",
        messages=_openai_messages(request),
        model=first_of(request, "model") or response.get("model"),
        parameters={key: value for key, value in request.items() if key not in NO_PARAMETERS},
        reply=reply_in(answered) if failure is None else Reply(None),
        at=row.get("timestamp") or row.get("created_at") or response.get("created") or 0,
        identity=row.get("custom_id") or row.get("id") or response.get("id"),
        seconds=number(row.get("seconds")),
        error=fault,
        status=failure,
    )


def _body(value: Any) -> Any:
    """Return the body, where the log holds a whole HTTP request or response; else the value itself."""
    return mapping(value).get("body", value)


def _openai_messages(request: Json) -> Any:
    """Return the messages of a request: of a chat, of the Responses API, or a text to complete."""
    messages = first_of(request, "messages", "input", "prompt")
    system = first_of(request, "instructions", "system")
    if system is None or messages is None:
        return messages
    return [{"role": "system", "content": system}, *chat_messages(messages)]


# -- LiteLLM -----------------------------------------------------------------------------------------


def _litellm(row: Json) -> LoggedCall:
    """LiteLLM's standard logging payload, its table of spend logs, and the payload of its older loggers.

    Raises:
        LeftOut: it is another type of call.

    """
    row = mapping(first_of(row, "standard_logging_object", "standard_logging_payload")) or row
    arguments = mapping(first_of(row, "request_kwargs", "kwargs"))
    proxied = mapping(row.get("proxy_server_request"))
    sent = mapping(proxied.get("body")) or proxied
    call_type = str(first_of(row, "call_type") or "")
    if call_type and call_type not in LITELLM_CHATS:
        raise LeftOut(f"calls of type {call_type}")
    start, end = first_of(row, "startTime", "start_time"), first_of(row, "endTime", "end_time")
    begun = moment_of(start)
    reply, error = reply_in(first_of(row, "response", "response_obj")), _litellm_error(row)
    if reply.text is None and (reply.error or error) is None:
        raise LeftOut("without an answer: switch the logging of responses on")
    return LoggedCall(
        origin="litellm",
        messages=decoded(row.get("messages")) or decoded(sent.get("messages")) or arguments.get("messages"),
        model=first_of(row, "model") or first_of(sent, "model") or arguments.get("model"),
        parameters=mapping(row.get("model_parameters")),
        reply=reply,
        usage={key: row.get(key) for key in ("prompt_tokens", "completion_tokens")},
        at=moment_of(end) if begun is None else begun,
        identity=first_of(row, "id", "request_id", "litellm_call_id", "trace_id"),
        seconds=seconds_between(start, end),
        usd=first_of(row, "response_cost", "spend"),
        error=error,
        user=row.get("end_user"),
    )


def _litellm_error(row: Json) -> str | None:
    """Return why a call failed; None if it did not."""
    metadata = mapping(row.get("metadata"))
    status = str(first_of(row, "status", "log_event_type") or metadata.get("status") or "success")
    if status in ("success", "successful_api_call"):
        return error_in(row.get("exception"))
    details = first_of(row, "error_str", "error_information", "exception")
    return error_in(details or metadata.get("error_information")) or "failed"


# -- Langfuse ----------------------------------------------------------------------------------------


def _observations(entries: Iterable[Placed]) -> Iterator[Placed]:
    """Yield observations, which stand alone or in a trace."""
    for place, row in entries:
        inner = sequence(row.get("observations"))
        if not inner:
            yield place, row
        for position, observation in enumerate(inner, start=1):
            yield f"{place}, observation {position}", mapping(observation)


def _langfuse(row: Json) -> LoggedCall:
    """An observation in Langfuse's exports, in its names or with underscores; a GENERATION is a call.

    Raises:
        LeftOut: it is another type of observation.

    """
    if row.get("type") not in (None, "GENERATION"):
        raise LeftOut(f"observations of type {row['type']}")
    start, end = first_of(row, "startTime", "start_time"), first_of(row, "endTime", "end_time")
    cost = mapping(first_of(row, "costDetails", "cost_details"))
    failed = row.get("level") == "ERROR"
    return LoggedCall(
        origin="langfuse",
        messages=row.get("input"),
        model=first_of(row, "model", "provided_model_name", "providedModelName"),
        parameters=mapping(first_of(row, "modelParameters", "model_parameters")),
        reply=reply_in(row.get("output")),
        usage=_langfuse_usage(row),
        at=moment_of(start),
        identity=row.get("id"),
        seconds=seconds_between(start, end),
        usd=first_of({**row, **cost}, "total", "calculatedTotalCost", "totalCost", "total_cost"),
        error=str(first_of(row, "statusMessage", "status_message") or "failed") if failed else None,
    )


def _langfuse_usage(row: Json) -> Json:
    """Return tokens in OpenAI's names; Langfuse also counts characters and other units."""
    usage = mapping(first_of(row, "usageDetails", "usage_details")) or mapping(row.get("usage"))
    if usage.get("unit") not in (None, "TOKENS"):
        return {}
    every = {**row, **usage}
    prompt = usage.get("input"), first_of(every, "promptTokens", "prompt_tokens", "inputTokens")
    completion = usage.get("output"), first_of(every, "completionTokens", "completion_tokens", "outputTokens")
    return {
        "prompt_tokens": prompt[1] if prompt[0] is None else prompt[0],
        "completion_tokens": completion[1] if completion[0] is None else completion[0],
    }


REQUEST_READERS: Mapping[str, RequestFormat] = {
    "openai": RequestFormat(_openai, joined),
    "litellm": RequestFormat(_litellm),
    "langfuse": RequestFormat(_langfuse, _observations),
    "otel": RequestFormat(otel_call, spans_in),
}
"""By the value of the option --from of `tunepoint import`."""
