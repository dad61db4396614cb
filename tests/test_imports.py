"""Logs of other tools; the forms are those that the tools write, cut down."""

from __future__ import annotations

import json
import zipfile
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tunepoint.capture.log_import import KINDS, import_log
from tunepoint.capture.opening import open_store
from tunepoint.cli.app import app
from tunepoint.errors import DataError

ASKED = [{"role": "system", "content": "Route it."}, {"role": "user", "content": "charged twice"}]
REPLY = {
    "id": "chatcmpl-9",
    "created": 1_780_000_000,
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "billing"}}],
    "usage": {"prompt_tokens": 20, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 8}},
}
LITELLM = {
    "id": "chatcmpl-1",
    "call_type": "acompletion",
    "status": "success",
    "model": "gpt-5-mini",
    "messages": ASKED,
    "response": REPLY,
    "response_cost": 0.000123,
    "prompt_tokens": 20,
    "completion_tokens": 2,
    "startTime": 1_780_000_000.25,
    "endTime": 1_780_000_001.0,
    "model_parameters": {"temperature": 0.2},
    "end_user": "u1",
    "error_str": None,
}
LANGFUSE = {
    "id": "obs-1",
    "type": "GENERATION",
    "model": "gpt-5-mini",
    "input": {"messages": ASKED},
    "output": {"role": "assistant", "content": "billing"},
    "startTime": "2026-05-28T20:26:40.250Z",
    "endTime": "2026-05-28T20:26:41.000Z",
    "usageDetails": {"input": 20, "output": 2},
    "costDetails": {"total": 0.000123},
    "modelParameters": {"temperature": 0.2},
    "level": "DEFAULT",
}
SPAN = {
    "spanId": "a1",
    "startTimeUnixNano": "1780000000250000000",
    "endTimeUnixNano": "1780000001000000000",
    "attributes": [
        {"key": "gen_ai.operation.name", "value": {"stringValue": "chat"}},
        {"key": "gen_ai.request.model", "value": {"stringValue": "gpt-5-mini"}},
        {"key": "gen_ai.usage.input_tokens", "value": {"intValue": "20"}},
        {"key": "gen_ai.usage.output_tokens", "value": {"intValue": "2"}},
        {
            "key": "gen_ai.input.messages",
            "value": {
                "stringValue": json.dumps(
                    [
                        {"role": one["role"], "parts": [{"type": "text", "content": one["content"]}]}
                        for one in ASKED
                    ]
                )
            },
        },
        {
            "key": "gen_ai.output.messages",
            "value": {
                "stringValue": json.dumps(
                    [
                        {
                            "role": "assistant",
                            "parts": [{"type": "text", "content": "billing"}],
                            "finish_reason": "stop",
                        }
                    ]
                )
            },
        },
    ],
}


def written(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    ("kind", "row"),
    [
        (
            "openai",
            {"request": {"model": "gpt-5-mini", "messages": ASKED, "temperature": 0.2}, "response": REPLY},
        ),
        ("litellm", LITELLM),
        ("langfuse", LANGFUSE),
        ("otel", {"resourceSpans": [{"scopeSpans": [{"spans": [SPAN]}]}]}),
    ],
)
def test_requests_of_other_tools(tmp_path: Path, kind: str, row: Any) -> None:
    (request,) = import_log(
        written(tmp_path / "log.jsonl", row, row), kind, "triage"
    ).requests  # once, not twice
    assert (request.task, request.role, request.origin, request.model) == (
        "triage",
        "imported",
        kind,
        "gpt-5-mini",
    )
    assert (request.input, request.output, request.status) == ("charged twice", "billing", 200)
    assert (request.input_tokens, request.output_tokens) == (20, 2)
    assert request.messages is not None and request.messages[0]["content"] == "Route it."
    assert request.at == pytest.approx(1_780_000_000.0 if kind == "openai" else 1_780_000_000.25)
    if kind in ("litellm", "langfuse"):
        assert request.cost_usd == Decimal("0.000123000") and request.parameters["temperature"] == 0.2
    if kind != "openai":
        assert request.seconds == pytest.approx(0.75)
    if kind == "litellm":
        assert request.user is not None and "u1" not in request.user


def test_a_batch_of_openai_and_a_list_in_one_file(tmp_path: Path) -> None:
    row = {
        "custom_id": "c1",
        "request": {"body": {"model": "m", "messages": ASKED}},
        "response": {"status_code": 200, "body": REPLY},
    }
    other = {**row, "custom_id": "c2", "response": None}
    (tmp_path / "log.json").write_text(json.dumps([row, other]))
    first, second = import_log(tmp_path / "log.json", "openai", "t").requests
    assert (first.status, second.status, second.error) == (200, 502, "no choices in the reply")


def test_what_is_no_request_is_left_and_counted(tmp_path: Path) -> None:
    rows = [
        LITELLM,
        {**LITELLM, "id": "2", "call_type": "aembedding"},
        {**LITELLM, "id": "3", "messages": None},
    ]
    report = import_log(written(tmp_path / "a.jsonl", *rows), "litellm", "t")
    assert report.skipped == {"calls of type aembedding": 1, "without messages": 1}
    first, second, third = str(report).splitlines()
    assert first == "1 requests"
    assert second.endswith("left out: 1 calls of type aembedding (first: " + f"{tmp_path / 'a.jsonl'}:2)")
    assert third.endswith(f"left out: 1 without messages (first: {tmp_path / 'a.jsonl'}:3)")
    failed = {**LITELLM, "id": "4", "status": "failure", "error_str": "timed out", "response": None}
    (request,) = import_log(written(tmp_path / "b.jsonl", failed), "litellm", "t").requests
    assert (request.status, request.error, request.output) == (502, "timed out", "")


def test_results_of_promptfoo(tmp_path: Path) -> None:
    row = {
        "provider": {"id": "openai:gpt-5-mini", "label": ""},
        "prompt": {"raw": "Route {{text}}", "label": "short"},
        "testIdx": 3,
        "vars": {"text": "x"},
        "score": 1,
        "success": True,
        "latencyMs": 420,
        "cost": 0.0001,
        "response": {"output": "billing", "tokenUsage": {"prompt": 20, "completion": 2, "total": 22}},
    }
    failed = {"testIdx": 4, "vars": {"text": "y"}, "score": 0, "response": {}, "error": "API error: 500"}
    wrong = {**row, **failed}
    (tmp_path / "r.json").write_text(
        json.dumps({"version": 3, "results": {"version": 3, "results": [row, wrong]}})
    )
    first, second = import_log(tmp_path / "r.json", "promptfoo", "").trials
    assert (first.arm, first.item) == ("openai:gpt-5-mini, short", '{"text": "x"}')
    assert (first.score, first.seconds) == (1.0, 0.42)
    assert (first.input_tokens, first.output_tokens, first.cost_usd, first.answer) == (
        20,
        2,
        0.0001,
        "billing",
    )
    assert (second.score, second.format_ok, second.error) == (0.0, False, "API error: 500")


SAMPLE = {
    "id": "a",
    "epoch": 2,
    "scores": {"match": {"value": "C", "answer": "4"}},
    "output": {"choices": [{"message": {"content": "4"}}], "completion": "4", "time": 0.5},
    "model_usage": {"mockllm/model": {"input_tokens": 9, "output_tokens": 1}},
}


def test_logs_of_inspect_plain_and_packed(tmp_path: Path) -> None:
    header = {"version": 2, "status": "success", "eval": {"task": "sums", "model": "mockllm/model"}}
    samples = [
        SAMPLE,
        {**SAMPLE, "id": 7, "epoch": 1, "scores": {"match": {"value": 0.25}}},
        {**SAMPLE, "scores": {}},
    ]
    (tmp_path / "log.json").write_text(json.dumps({**header, "samples": samples}))
    with zipfile.ZipFile(tmp_path / "log.eval", "w") as archive:
        archive.writestr("header.json", json.dumps(header))
        for number, sample in enumerate(samples):
            archive.writestr(f"samples/{number}.json", json.dumps(sample))
    plain = import_log(tmp_path / "log.json", "inspect", "").trials
    assert plain == import_log(tmp_path / "log.eval", "inspect", "").trials
    assert [(t.arm, t.item, t.score, t.decode) for t in plain] == [
        ("mockllm/model, sums", "a", 1.0, "1"),
        ("mockllm/model, sums", "7", 0.25, None),
    ]
    assert (plain[0].input_tokens, plain[0].output_tokens, plain[0].seconds, plain[0].answer) == (
        9,
        1,
        0.5,
        "4",
    )
    with zipfile.ZipFile(tmp_path / "other.eval", "w") as archive:
        archive.writestr("readme", "x")
    with pytest.raises(DataError, match="inspect log convert --to json"):
        import_log(tmp_path / "other.eval", "inspect", "")


def test_bad_logs_name_the_place(tmp_path: Path) -> None:
    log = written(tmp_path / "log.jsonl", LITELLM)
    with pytest.raises(DataError, match="'litelm' is not a known kind of log; did you mean 'litellm'"):
        import_log(log, "litelm", "t")
    with pytest.raises(DataError, match="no such file"):
        import_log(tmp_path / "none.jsonl", "litellm", "t")
    with log.open("a") as file:
        file.write("{nothing\n")
    with pytest.raises(DataError, match=r"log.jsonl:2: not JSON"):
        import_log(log, "litellm", "t")
    with pytest.raises(DataError, match=r"(?s)no entries as langfuse .*left out: 1 without messages"):
        import_log(written(tmp_path / "b.jsonl", {"id": "x"}), "langfuse", "t")
    with pytest.raises(DataError, match="no entries as otel writes them"):
        import_log(written(tmp_path / "c.jsonl", {"attributes": {"http.method": "GET"}}), "otel", "t")
    assert set(KINDS) == {"openai", "litellm", "langfuse", "otel", "promptfoo", "inspect"}


def test_long_texts_that_come_fast_are_kept(tmp_path: Path) -> None:
    """More of them than a writer holds in memory."""
    calls = [
        {**LITELLM, "id": f"c{n}", "messages": [{"role": "user", "content": f"{n} " + "words " * 8_000}]}
        for n in range(500)
    ]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(call) + "\n" for call in calls))
    words = ["import", str(tmp_path / "log.jsonl"), "--from", "litellm", "--task", "t", "--keep-personal"]
    assert CliRunner().invoke(app, [*words, "--store", str(tmp_path / "c.sqlite")]).exit_code == 0
    with open_store(tmp_path / "c.sqlite") as store:
        assert [len(request.input) > 40_000 for request in store.requests("t")] == [True] * 500


def test_the_command_writes_requests_redacted_and_trials_apart(tmp_path: Path) -> None:
    private = {**LITELLM, "messages": [{"role": "user", "content": "I am jo@x.example"}]}
    log, store = written(tmp_path / "log.jsonl", private), str(tmp_path / "c.sqlite")
    words = ["import", str(log), "--from", "litellm", "--store", store]
    refused = CliRunner().invoke(app, words)
    assert refused.exit_code == 2 and "--task is missing" in refused.output
    for _ in range(2):  # twice is once
        assert CliRunner().invoke(app, [*words, "--task", "triage"]).exit_code == 0
    with open_store(store) as opened:
        (request,) = opened.requests("triage")
    assert request.input == "I am <email>"
    header = {"eval": {"task": "sums", "model": "m"}, "samples": [SAMPLE]}
    (tmp_path / "log.json").write_text(json.dumps(header))
    words = ["import", str(tmp_path / "log.json"), "--from", "inspect", "--out", str(tmp_path / "t.jsonl")]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0 and "1 trials" in result.output
    again = CliRunner().invoke(app, words)
    assert again.exit_code == 0 and "1 were there already" in again.output
