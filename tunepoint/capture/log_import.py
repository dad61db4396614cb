"""Logs of other tools, as captured traffic or as trials."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tunepoint.capture.records import CapturedRequest, nanodollars
from tunepoint.errors import DataError, nearest
from tunepoint.files.text import text_of
from tunepoint.trials.results_import import TRIALS
from tunepoint.trials.trial import Trial

Json = Mapping[str, Any]


@dataclass(frozen=True)
class ImportReport:
    """What a log held."""

    requests: tuple[CapturedRequest, ...] = ()
    trials: tuple[Trial, ...] = ()
    left: Mapping[str, int] | None = None
    """Why lines were left -> how many."""

    def __str__(self) -> str:
        kinds = [(self.requests, "requests"), (self.trials, "trials")]
        found = " and ".join(f"{len(rows)} {what}" for rows, what in kinds if rows) or "nothing"
        left = "".join(f"\n  left: {count} {why}" for why, count in (self.left or {}).items())
        return f"{found}{left}"


class _Left(Exception):
    """A line that is nothing of ours, and why."""


def import_log(path: Path, kind: str, task: str) -> ImportReport:
    """Read the log of another tool.

    Args:
        kind: one of `KINDS`.
        task: to which the requests belong.

    Raises:
        DataError: no such file, an unknown kind, or nothing in it that could be read.

    """
    if kind not in KINDS:
        raise DataError(f"{kind!r} is no log that is known; {nearest(kind, KINDS)}")
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    if kind in TRIALS:
        found = ImportReport(trials=tuple(TRIALS[kind](path)))
    else:
        requests, left = _lines(path, REQUESTS[kind], kind, task)
        found = ImportReport(requests=tuple(requests), left=left)
    if not found.requests and not found.trials:
        raise DataError(f"{path}: nothing in it that {kind} would have written{str(found)[7:]}")
    return found


def _lines(
    path: Path, read: Callable[[Json, str], Sequence[CapturedRequest]], kind: str, task: str
) -> tuple[list[CapturedRequest], dict[str, int]]:
    found: dict[str, CapturedRequest] = {}
    left: dict[str, int] = {}
    for where, row in _objects(path):
        try:
            for one in read(row, task):
                found.setdefault(one.id, one)
        except _Left as why:
            left[str(why)] = left.get(str(why), 0) + 1
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise DataError(f"{where}: not a line of {kind} ({type(error).__name__}: {error})") from None
    return list(found.values()), left


def _objects(path: Path) -> Iterator[tuple[str, Json]]:
    """Objects of a JSONL file, or of a JSON file that holds a list of them or one."""
    text = text_of(path, DataError)
    try:
        whole = json.loads(text)
    except ValueError:
        whole = None
    if whole is not None:
        rows = (
            whole
            if isinstance(whole, list)
            else whole.get("data", [whole])
            if isinstance(whole, dict)
            else []
        )
        for number, row in enumerate(rows, start=1):
            if not isinstance(row, dict):
                raise DataError(f"{path}, entry {number}: an object is expected")
            yield f"{path}, entry {number}", row
        return
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"{path}:{number}: not JSON ({error})") from None
        if not isinstance(row, dict):
            raise DataError(f"{path}:{number}: an object is expected")
        yield f"{path}:{number}", row


# -- logs of requests ------------------------------------------------------------------------------


def _openai(row: Json, task: str) -> list[CapturedRequest]:
    """`{"request": {...}, "response": {...}}`, also as OpenAI's batches write them (`body` in each)."""
    request: Any = row["request"].get("body", row["request"])
    response: Any = row.get("response") or {}
    body: Any = response.get("body") or response
    at = row.get("timestamp") or row.get("created_at") or body.get("created") or 0
    identity = row.get("custom_id") or row.get("id") or body.get("id")
    return [_request("openai", task, request, body, at, identity, seconds=row.get("seconds"))]


def _litellm(row: Json, task: str) -> list[CapturedRequest]:
    """LiteLLM's standard logging payload, one a line."""
    if row.get("call_type") not in (None, "completion", "acompletion"):
        raise _Left(f"are calls of type {row['call_type']}")
    response = row.get("response")
    body = response if isinstance(response, dict) else {}
    usage = {
        "prompt_tokens": row.get("prompt_tokens"),
        "completion_tokens": row.get("completion_tokens"),
    }
    start, end = _time(row["startTime"]), _time(row.get("endTime") or row["startTime"])
    return [
        _request(
            "litellm",
            task,
            {"messages": row["messages"], "model": row["model"], **(row.get("model_parameters") or {})},
            {"usage": usage, **body},
            start,
            row["id"],
            seconds=end - start,
            dollars=row.get("response_cost"),
            error=None
            if row.get("status", "success") == "success"
            else str(row.get("error_str") or "failed"),
            user=row.get("end_user") or None,
        )
    ]


def _langfuse(row: Json, task: str) -> list[CapturedRequest]:
    """Langfuse's export of observations: its generations."""
    if row.get("type") not in (None, "GENERATION"):
        raise _Left(f"are observations of type {row['type']}")
    usage = row.get("usageDetails") or row.get("usage") or {}
    counts = {"prompt_tokens": usage.get("input"), "completion_tokens": usage.get("output")}
    output = row.get("output")
    message: Any = output if isinstance(output, dict) else {"content": output}
    if isinstance(output, dict) and output.get("choices"):
        message = output["choices"][0]["message"]
    given: Any = row["input"]
    messages = given.get("messages", given) if isinstance(given, dict) else given
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    start = _time(row["startTime"])
    end = _time(row["endTime"]) if row.get("endTime") else None
    cost = row.get("costDetails") or {}
    return [
        _request(
            "langfuse",
            task,
            {"messages": messages, "model": row.get("model"), **(row.get("modelParameters") or {})},
            {"choices": [{"message": message}], "usage": counts},
            start,
            row["id"],
            seconds=None if end is None else end - start,
            dollars=cost.get("total", row.get("calculatedTotalCost")),
            error=str(row.get("statusMessage") or "failed") if row.get("level") == "ERROR" else None,
        )
    ]


def _otel(row: Json, task: str) -> list[CapturedRequest]:
    """OpenTelemetry's GenAI conventions: OTLP in JSON, or a span a line."""
    spans = [
        span
        for resource in row.get("resourceSpans", ())
        for scope in resource.get("scopeSpans", ())
        for span in scope.get("spans", ())
    ] or ([row] if "attributes" in row else [])
    found = []
    for span in spans:
        facts = _attributes(span["attributes"])
        messages, said = facts.get("gen_ai.input.messages"), facts.get("gen_ai.output.messages")
        if facts.get("gen_ai.operation.name", "chat") != "chat" or messages is None:
            continue
        start, end = int(span["startTimeUnixNano"]) / 1e9, int(span["endTimeUnixNano"]) / 1e9
        failed = facts.get("error.type")
        answer = _parts(_decoded(said)[0]) if said else None
        counts = {
            "prompt_tokens": facts.get("gen_ai.usage.input_tokens"),
            "completion_tokens": facts.get("gen_ai.usage.output_tokens"),
        }
        model = facts.get("gen_ai.response.model") or facts.get("gen_ai.request.model")
        asked = [{"role": one["role"], "content": _parts(one)} for one in _decoded(messages)]
        found.append(
            _request(
                "otel",
                task,
                {"messages": asked, "model": model},
                {"choices": [{"message": {"content": answer}}], "usage": counts},
                start,
                span.get("spanId"),
                seconds=end - start,
                error=None if failed is None else str(failed),
            )
        )
    if not found:
        raise _Left("are spans without gen_ai.input.messages: switch the capture of content on")
    return found


def _attributes(given: Any) -> dict[str, Any]:
    """Attributes of a span, from OTLP's list or a plain object."""
    if isinstance(given, dict):
        return given
    return {one["key"]: next(iter(one["value"].values())) for one in given}


def _decoded(value: Any) -> list[Any]:
    found: list[Any] = json.loads(value) if isinstance(value, str) else value
    return found


def _parts(message: Json) -> str:
    """The text of a message of the GenAI conventions."""
    parts = message.get("parts") or [{"type": "text", "content": message.get("content")}]
    texts = [part.get("content") for part in parts if part.get("type") == "text"]
    return "\n".join(text for text in texts if isinstance(text, str))


def _request(
    origin: str,
    task: str,
    request: Json,
    response: Json,
    at: Any,
    identity: Any,
    *,
    seconds: Any = None,
    dollars: Any = None,
    error: str | None = None,
    user: str | None = None,
) -> CapturedRequest:
    """One request of another tool, in our form; its id says where it came from."""
    messages = request.get("messages")
    if not isinstance(messages, list) or not messages:
        raise _Left("have no messages")
    said = (response.get("choices") or [{}])[0].get("message") or {}
    usage = response.get("usage") or {}
    details = usage.get("prompt_tokens_details") or {}
    asked = next((one for one in reversed(messages) if one.get("role") == "user"), messages[-1])
    text, output = _text(asked.get("content")), _text(said.get("content"))
    failed = error is not None or not response.get("choices")
    model = str(request.get("model") or response.get("model") or "unknown")
    known = json.dumps([identity, text, at], default=str, sort_keys=True)
    cost = None if dollars is None or not math.isfinite(float(dollars)) else nanodollars(float(dollars))
    return CapturedRequest(
        id=f"{origin}-{hashlib.sha256(known.encode()).hexdigest()[:40]}",
        at=_time(at),
        task=task,
        arm=model,
        role="imported",
        model=model,
        input=text,
        output=output,
        status=502 if failed else 200,
        error=error or ("no choices in the reply" if failed else None),
        messages=messages if len(messages) > 1 else None,
        parameters={key: value for key, value in request.items() if key not in ("messages", "model", "user")},
        input_tokens=_count(usage.get("prompt_tokens")),
        cached_tokens=_count(details.get("cached_tokens")),
        output_tokens=_count(usage.get("completion_tokens")),
        seconds=None if seconds is None else max(0.0, float(seconds)),
        cost_nanousd=cost,
        user=None if user is None else hashlib.sha256(user.encode()).hexdigest()[:32],
        origin=origin,
    )


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "\n".join(str(part["text"]) for part in content if isinstance(part, dict) and part.get("text"))
    return content if isinstance(content, str) else ""


def _count(value: Any) -> int | None:
    return None if value is None else int(value)


def _time(value: Any) -> float:
    """Seconds since 1970, from seconds, milliseconds or ISO 8601; a time without a zone is UTC."""
    if isinstance(value, str) and not value.replace(".", "", 1).isdigit():
        moment = datetime.fromisoformat(value)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    number = float(value)
    return number / 1_000 if number > 1e11 else number


REQUESTS = {"openai": _openai, "litellm": _litellm, "langfuse": _langfuse, "otel": _otel}
KINDS = (*REQUESTS, *TRIALS)
"""Of logs: the first four hold requests, the others trials."""
