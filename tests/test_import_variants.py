"""Logs of other tools as they are found: older and newer forms, halves, redacted and broken entries."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_imports import ASKED, LANGFUSE, LITELLM, REPLY, SPAN, written

from tunepoint.capture.log_import import ImportReport, import_log, import_logs
from tunepoint.capture.logged_call import moment_of
from tunepoint.capture.records import CapturedRequest
from tunepoint.errors import DataError


def report_of(folder: Path, kind: str, *rows: Any) -> ImportReport:
    return import_log(written(folder / "log.jsonl", *rows), kind, "t")


def one_request(folder: Path, kind: str, row: Any) -> CapturedRequest:
    (request,) = report_of(folder, kind, row).requests
    return request


def nothing_from(folder: Path, kind: str, row: Any, reason: str) -> None:
    with pytest.raises(DataError, match=f"(?s)no entries as {kind} writes them.*left out: 1 {reason}"):
        report_of(folder, kind, row)


# -- OpenAI ------------------------------------------------------------------------------------------

BATCH_REQUEST = {
    "custom_id": "r1",
    "method": "POST",
    "url": "/v1/chat/completions",
    "body": {"model": "m", "messages": ASKED, "seed": 3},
}
BATCH_ANSWER = {"id": "b1", "custom_id": "r1", "response": {"status_code": 200, "body": REPLY}, "error": None}


@pytest.mark.parametrize("order", [1, -1])
def test_the_two_files_of_a_batch_are_joined(tmp_path: Path, order: int) -> None:
    files = [written(tmp_path / "in.jsonl", BATCH_REQUEST), written(tmp_path / "out.jsonl", BATCH_ANSWER)]
    (request,) = import_logs(files[::order], "openai", "t").requests
    assert (request.model, request.input, request.output) == ("m", "charged twice", "billing")
    assert request.parameters == {"seed": 3}


def test_half_a_batch_says_which_file_is_missing(tmp_path: Path) -> None:
    nothing_from(tmp_path, "openai", BATCH_REQUEST, "that no answer has: give the batch's file of answers")
    nothing_from(tmp_path, "openai", BATCH_ANSWER, "that no request has: give the batch's file of requests")


def test_a_batch_leaves_out_ambiguous_names_and_other_calls(tmp_path: Path) -> None:
    other = {**BATCH_REQUEST, "body": {"model": "m", "messages": ASKED[1:]}}
    vectors = {**BATCH_REQUEST, "custom_id": "r2", "url": "/v1/embeddings"}
    nothing = [BATCH_REQUEST, other, BATCH_ANSWER, vectors, {**BATCH_ANSWER, "custom_id": "r2"}]
    with pytest.raises(
        DataError, match=r"(?s)several different requests have the custom_id.*calls of /v1/emb"
    ):
        report_of(tmp_path, "openai", *nothing)
    assert len(report_of(tmp_path, "openai", BATCH_REQUEST, BATCH_REQUEST, BATCH_ANSWER).requests) == 1


def test_a_refused_request_of_a_batch_keeps_status_and_words(tmp_path: Path) -> None:
    refused = {"status_code": 400, "body": {"error": {"message": "too long"}}}
    (request,) = report_of(tmp_path, "openai", BATCH_REQUEST, {**BATCH_ANSWER, "response": refused}).requests
    assert (request.status, request.error, request.output) == (400, "too long", "")


@pytest.mark.parametrize(
    ("body", "error"),
    [(None, "status 503"), ({"detail": "no such model"}, "no such model"), ("busy", "status 503")],
)
def test_what_a_failed_call_returned_is_no_answer(tmp_path: Path, body: Any, error: str) -> None:
    row = {"id": "1", "request": {"messages": ASKED}, "response": {"status_code": 503, "body": body}}
    request = one_request(tmp_path, "openai", row)
    assert (request.status, request.error, request.output) == (503, error, "")


def test_calls_of_the_responses_api(tmp_path: Path) -> None:
    messages = [
        {"type": "reasoning"},
        {"type": "message", "content": [{"type": "output_text", "text": "billing"}]},
    ]
    row = {
        "request": {"model": "m", "instructions": "Route it.", "input": "charged twice"},
        "response": {
            "object": "response",
            "output": messages,
            "usage": {"input_tokens": 20, "output_tokens": 2},
        },
    }
    request = one_request(tmp_path, "openai", row)
    assert (request.input, request.output, request.input_tokens) == ("charged twice", "billing", 20)
    assert request.messages is not None and request.messages[0]["content"] == "Route it."


def test_a_call_without_a_time_gets_that_of_the_file(tmp_path: Path) -> None:
    row = {"request": {"messages": ASKED}, "response": {"choices": REPLY["choices"]}}
    report = report_of(tmp_path, "openai", row)
    assert report.requests[0].at == pytest.approx((tmp_path / "log.jsonl").stat().st_mtime)
    assert "the time of the file" in str(report)


def test_a_reply_without_a_body_is_no_answer(tmp_path: Path) -> None:
    row = {"id": "1", "request": {"messages": ASKED}, "response": {"status_code": 200, "body": None}}
    request = one_request(tmp_path, "openai", row)
    assert request.status == 502 and request.output == "" and request.error


def test_calls_without_an_id_are_one_only_if_all_of_them_is_alike(tmp_path: Path) -> None:
    rows = [
        {"request": {"messages": [system, ASKED[-1]], "model": model}, "response": "billing"}
        for system in ({"role": "system", "content": "a"}, {"role": "system", "content": "b"})
        for model in ("m", "n")
    ]
    assert len(report_of(tmp_path, "openai", *rows, rows[0]).requests) == 4


@pytest.mark.parametrize("power", [0, 3, 6, 9])
def test_times_are_read_in_any_unit(power: int) -> None:
    assert moment_of(1_764_000_000 * 10**power) == 1_764_000_000


# -- LiteLLM -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"response": "billing"},
        {"response": json.dumps(REPLY)},
        {"messages": json.dumps(ASKED)},
        {"response": {"choices": [{"message": {"content": [{"type": "text", "text": "billing"}]}}]}},
        {"response_cost": "", "model_parameters": None},
        {"startTime": None},
        {"startTime": "2026-05-28 20:26:40.250000", "endTime": "2026-05-28 20:26:41"},
        {"prompt_tokens": "20", "call_type": "completion"},
        {"messages": None, "proxy_server_request": json.dumps({"messages": ASKED})},
    ],
)
def test_forms_of_litellms_payload(tmp_path: Path, change: dict[str, Any]) -> None:
    request = one_request(tmp_path, "litellm", {**LITELLM, **change})
    assert (request.input, request.output, request.status) == ("charged twice", "billing", 200)
    assert request.at == pytest.approx(1_780_000_000, abs=2)
    assert request.input_tokens == 20 or "usage" not in str(change)


def test_spend_logs_and_older_loggers_of_litellm(tmp_path: Path) -> None:
    spend = {
        "request_id": "r1",
        "call_type": "acompletion",
        "spend": 0.0001,
        "startTime": "2026-05-28T20:26:40.250000Z",
        "model": "m",
        "messages": json.dumps(ASKED),
        "response": json.dumps(REPLY),
        "metadata": "{}",
    }
    older = {
        "request_kwargs": {"model": "m", "messages": ASKED},
        "response_obj": REPLY,
        "start_time": "2026-05-28 20:26:40",
    }
    wrapped = {"standard_logging_object": {**LITELLM, "model": "m"}}
    for row in (spend, older, wrapped):
        request = one_request(tmp_path, "litellm", row)
        assert (request.model, request.input, request.output) == ("m", "charged twice", "billing")
    assert one_request(tmp_path, "litellm", spend).cost_nanousd == 100_000


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"messages": "redacted-by-litellm"}, "whose texts were redacted"),
        ({"messages": [{"role": "user", "content": "redacted-by-litellm"}]}, "whose texts were redacted"),
        ({"response": "redacted-by-litellm"}, "whose texts were redacted"),
        ({"messages": "abc... (litellm_truncated 900 chars)"}, "whose texts were truncated"),
        ({"response": "{}"}, "without an answer"),
        ({"messages": "{}"}, "without messages"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "without a text in the question",
        ),
        ({"messages": [7]}, "without messages"),
    ],
)
def test_litellms_entries_without_texts_are_left_out(tmp_path: Path, change: Any, reason: str) -> None:
    nothing_from(tmp_path, "litellm", {**LITELLM, **change}, reason)


def test_a_failure_tells_its_reason_wherever_it_stands(tmp_path: Path) -> None:
    failed = {**LITELLM, "status": "failure", "response": None}
    for change in (
        {"error_information": {"error_message": "timeout"}},
        {"error_str": None, "metadata": json.dumps({"error_information": {"error_message": "timeout"}})},
    ):
        request = one_request(tmp_path, "litellm", {**failed, **change})
        assert (request.status, request.error) == (502, "timeout")


# -- Langfuse ----------------------------------------------------------------------------------------


def test_forms_of_langfuses_exports(tmp_path: Path) -> None:
    snake = {
        **{"id": "o", "type": "GENERATION", "provided_model_name": "gpt-5-mini", "input": json.dumps(ASKED)},
        **{"output": "billing", "start_time": "2026-05-28 20:26:40.250", "usage_details": {"input": 20}},
    }
    chain = {
        **LANGFUSE,
        "input": [[{"type": "human", "content": "charged twice"}]],
        "output": [LANGFUSE["output"]],
    }
    trace = {"id": "t", "input": "x", "observations": [{"type": "SPAN"}, LANGFUSE]}
    for row in (snake, chain, trace):
        request = one_request(tmp_path, "langfuse", row)
        assert (request.input, request.output, request.model) == ("charged twice", "billing", "gpt-5-mini")
        assert (request.at, request.input_tokens) == (pytest.approx(1_780_000_000.25), 20)


def test_an_answer_that_is_json_stays_as_it_is(tmp_path: Path) -> None:
    for output in ('{"queue": "billing"}', {"queue": "billing"}, {"content": '{"queue": "billing"}'}):
        request = one_request(tmp_path, "langfuse", {**LANGFUSE, "output": output})
        assert json.loads(request.output) == {"queue": "billing"}
    assert one_request(tmp_path, "langfuse", {**LANGFUSE, "input": '{"a": 1}'}).input == '{"a": 1}'


def test_characters_are_no_tokens(tmp_path: Path) -> None:
    row = {**LANGFUSE, "usageDetails": None, "usage": {"input": 80, "output": 7, "unit": "CHARACTERS"}}
    assert one_request(tmp_path, "langfuse", row).input_tokens is None


# -- OpenTelemetry -----------------------------------------------------------------------------------


def attribute(key: str, **value: Any) -> dict[str, Any]:
    return {"key": key, "value": value}


def otlp(*spans: Any) -> dict[str, Any]:
    return {"resourceSpans": [{"scopeSpans": [{"spans": list(spans)}]}]}


def tree(value: Any) -> dict[str, Any]:
    """A value as OTLP nests it."""
    if isinstance(value, list):
        return {"arrayValue": {"values": [tree(member) for member in value]}}
    if isinstance(value, dict):
        return {
            "kvlistValue": {"values": [{"key": key, "value": tree(member)} for key, member in value.items()]}
        }
    return {"stringValue": value}


SAID = [{"role": "user", "parts": [{"type": "text", "content": "charged twice"}]}]
ANSWERED = [{"role": "assistant", "parts": [{"type": "text", "content": "billing"}]}]
WHOLE = [
    attribute("gen_ai.input.messages", stringValue=json.dumps(SAID)),
    attribute("gen_ai.output.messages", stringValue=json.dumps(ANSWERED)),
]
NESTED = [
    {"key": "gen_ai.input.messages", "value": tree(SAID)},
    {"key": "gen_ai.output.messages", "value": tree(ANSWERED)},
]
LISTED = [
    {"key": "gen_ai.input.messages", "value": tree([json.dumps(message) for message in SAID])},
    {"key": "gen_ai.output.messages", "value": tree([json.dumps(message) for message in ANSWERED])},
]
NUMBERED = [
    attribute("gen_ai.prompt.1.role", stringValue="user"),
    attribute("gen_ai.prompt.1.content", stringValue="charged twice"),
    attribute("gen_ai.prompt.0.role", stringValue="system"),
    attribute("gen_ai.prompt.0.content", stringValue="Route it."),
    attribute("gen_ai.completion.0.content", stringValue="billing"),
]
OPENINFERENCE = [
    attribute("openinference.span.kind", stringValue="LLM"),
    attribute("llm.input_messages.0.message.role", stringValue="user"),
    attribute("llm.input_messages.0.message.contents.0.message_content.text", stringValue="charged twice"),
    attribute("llm.output_messages.0.message.content", stringValue="billing"),
]
OLD_EVENTS = [
    {"name": "gen_ai.user.message", "attributes": [attribute("content", stringValue="charged twice")]},
    {"name": "gen_ai.choice", "attributes": [attribute("message", stringValue='{"content": "billing"}')]},
]


@pytest.mark.parametrize(
    "change",
    [
        {"attributes": [*WHOLE, {"key": "x", "value": {}}, {"key": "y"}, {"key": "z", "value": None}, None]},
        {"attributes": NESTED},
        {"attributes": LISTED},
        {"attributes": NUMBERED},
        {"attributes": OPENINFERENCE},
        {"attributes": [attribute("gen_ai.operation.name", stringValue="chat")],
         "events": [{"name": "gen_ai.client.inference.operation.details", "attributes": WHOLE}]},
        {"attributes": [attribute("gen_ai.system", stringValue="openai")], "events": OLD_EVENTS},
        {"startTimeUnixNano": {"low": 1_780_000_000_250_000_000 % 2**32 - 2**32,
                               "high": 1_780_000_000_250_000_000 // 2**32}},
        {"startTimeUnixNano": None, "startTime": [1_780_000_000, 250_000_000]},
        {"attributes": {"gen_ai.input.messages": SAID, "gen_ai.output.messages": ANSWERED, "x": None}},
    ],
)  # fmt: skip
def test_forms_of_spans(tmp_path: Path, change: dict[str, Any]) -> None:
    request = one_request(tmp_path, "otel", otlp({**SPAN, **change}))
    assert (request.input, request.output, request.status) == ("charged twice", "billing", 200)
    assert request.at == pytest.approx(1_780_000_000.25, abs=1e-3)


def test_other_spans_are_left_out_one_by_one(tmp_path: Path) -> None:
    operation = attribute("gen_ai.operation.name", stringValue="execute_tool")
    silent = {**SPAN, "attributes": SPAN["attributes"][:2]}  # type: ignore[index]
    report = report_of(
        tmp_path,
        "otel",
        otlp(SPAN, {"spanId": "b", "name": "GET /"}, {**SPAN, "attributes": [operation]}, silent),
    )
    assert len(report.requests) == 1
    assert report.skipped == {
        "spans that are no call of a model": 1,
        "spans of the operation execute_tool": 1,
        "spans without messages: switch the capture of content on": 1,
    }
    assert f"(first: {tmp_path / 'log.jsonl'}:1, span 2)" in str(report)


def test_a_span_without_an_answer_or_with_an_error_is_a_failed_call(tmp_path: Path) -> None:
    empty = {**SPAN, "attributes": [WHOLE[0], attribute("gen_ai.output.messages", stringValue="[]")]}
    assert one_request(tmp_path, "otel", otlp(empty)).error == "no choices in the reply"
    failed = {**SPAN, "status": {"code": 2, "message": "timeout"}}
    assert one_request(tmp_path, "otel", otlp(failed)).error == "timeout"
