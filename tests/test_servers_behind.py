"""Servers behind the gateway as they are: streams, whole answers, refusals, errors in HTTP 200."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from gateways import Behind, Running, behind, running, settings
from test_gateway import ASK, client, kept, post
from test_routing import chat_request

from tunepoint.models.abilities import Abilities, refusal_words
from tunepoint.models.chat_completions import generated_text
from tunepoint.serve import events, streaming
from tunepoint.serve.backends import ArmResponse
from tunepoint.serve.events import Event, EventSplitter, EventTooLong
from tunepoint.serve.redaction import SecretFilter
from tunepoint.serve.streaming import KeptText, OpenStream, Relay
from tunepoint.serve.upstream import ArmFault

KEY = "key-of-ours-1234567890"
USAGE = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}


@pytest.fixture
def server() -> Iterator[Behind]:
    with behind() as behind_it:
        yield behind_it


@pytest.fixture
def gateway(server: Behind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    monkeypatch.setenv("TUNEPOINT_API_KEY", KEY)
    with running(lambda: settings(tmp_path, server.url, fallback=["spare"])) as opened:
        yield opened


def chunk(content: Any = None, finish: str | None = None, *, model: str = "real", **more: Any) -> bytes:
    delta = {} if content is None else {"content": content}
    choices = [{"index": 0, "delta": delta, "finish_reason": finish}]
    return b"data: " + json.dumps({"id": "c1", "model": model, "choices": choices, **more}).encode() + b"\n\n"


def streamed(gateway: Running, **more: Any) -> list[Any]:
    with client(gateway) as asking:
        return list(asking.chat.completions.create(model="triage", messages=ASK, stream=True, **more))


def text_of(chunks: list[Any]) -> str:
    return "".join(part.choices[0].delta.content or "" for part in chunks if part.choices)


# -- streams ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "end",
    [
        [chunk(None, "stop")],
        [chunk(None, "stop"), b"data: [DONE]"],
        [chunk(None, "stop"), b"data: [DONE]\n"],
        [chunk(None, "stop"), b"event: done\ndata: [DONE]\n\n"],
        [chunk(None, "stop"), b"data:[DONE]\r\n\r\n"],
        [chunk(None, "stop").rstrip()],
        [chunk(None, "length")],
        [b"data: [DONE]\n\n"],
    ],
)
def test_a_stream_is_whole_at_its_finish_or_its_done(
    gateway: Running, server: Behind, end: list[bytes]
) -> None:
    server.streams["main"] = [b": hello\n\n", chunk("bill"), chunk("ing"), *end]
    chunks = streamed(gateway)
    assert text_of(chunks) == "billing" and {part.model for part in chunks} == {"triage"}
    (captured,) = kept(gateway)
    assert (captured.status, captured.error, captured.output) == (200, None, "billing")


def test_a_stream_that_ends_in_the_middle_is_broken(gateway: Running, server: Behind) -> None:
    server.streams["main"] = [chunk("bill"), chunk("ing")[:-9]]
    with pytest.raises(openai.APIError, match="the answer was interrupted"):
        streamed(gateway)
    assert kept(gateway)[0].status == 502


def test_a_server_that_goes_on_after_done_keeps_nobody_waiting(gateway: Running, server: Behind) -> None:
    server.faults["main"] = "lingers"
    server.streams["main"] = [chunk("billing") + chunk(finish="stop") + b"data: [DONE]\n\n"]
    with client(gateway) as asking:
        events = asking.with_options(timeout=10).chat.completions.create(
            model="triage", messages=ASK, stream=True
        )
        assert text_of(list(events)) == "billing"
    (captured,) = kept(gateway)
    assert (captured.status, captured.error, captured.output) == (200, None, "billing")


def test_a_client_that_leaves_at_done_has_its_whole_answer() -> None:
    async def chunks() -> AsyncGenerator[bytes | ArmResponse, None]:
        yield chunk("billing") + chunk(finish="stop") + b"data: [DONE]\n\n"
        await asyncio.sleep(60)

    async def left_early() -> tuple[bool, list[bytes]]:
        stream = OpenStream(chat_request(stream=True), chunks())
        await stream.begin()
        events = stream.events()
        received = [await anext(events)]
        await events.aclose()  # the client closes while more may come
        await stream.close()
        return stream.relay.done, received

    done, received = asyncio.run(left_early())
    assert done and received[0].endswith(b"[DONE]\n\n")


def test_all_that_was_generated_counts_where_a_server_counts_nothing() -> None:
    call = {"function": {"name": "route", "arguments": "x" * 390}}
    function = {"function_call": call["function"]}
    parts = [{"tool_calls": [call]}, {"reasoning": "y" * 400}, {"content": "z" * 400}, function]
    assert [len(generated_text(part)) for part in parts] == [395, 400, 400, 395]
    relay = Relay(chat_request(stream=True))
    for part in parts:
        body = {"choices": [{"index": 0, "delta": part}, {"index": 1, "delta": part}]}
        list(relay.feed(b"data: " + json.dumps(body).encode() + b"\n\n"))
    assert relay.kept.characters == 2 * 1_590 and relay.kept.text() == "z" * 400
    relay.kept.drop()


def test_with_alternatives_a_stream_is_whole_when_all_are() -> None:
    relay = Relay(chat_request(stream=True))
    second = chunk("b").replace(b'"index": 0', b'"index": 1')
    assert b"".join(relay.feed(chunk("a") + second + chunk(None, "stop"))) and not relay.complete
    assert b"".join(relay.feed(chunk(None, "stop").replace(b'"index": 0', b'"index": 1')))
    assert relay.complete and relay.kept.text() == "a"
    assert list(relay.end()) == [b"data: [DONE]\n\n"]


def test_parts_in_a_stream_are_captured_without_thoughts(gateway: Running, server: Behind) -> None:
    thought = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]
    parts = [{"type": "text", "text": "bill"}, {"type": "text", "text": "ing"}]
    server.streams["main"] = [chunk(thought), chunk(parts), chunk(None, "stop")]
    assert len(streamed(gateway)) == 3
    assert kept(gateway)[0].output == "billing"


def test_the_empty_first_event_of_azure_is_passed_over(gateway: Running, server: Behind) -> None:
    first = {"id": "", "model": "", "choices": [], "prompt_filter_results": [{"prompt_index": 0}]}
    server.streams["main"] = [
        b"data: " + json.dumps(first).encode() + b"\n\n",
        chunk("billing", model="gpt-4o-2024"),
        chunk(None, "stop", model="gpt-4o-2024"),
        b"data: [DONE]\n\n",
    ]
    chunks = streamed(gateway)
    assert text_of(chunks) == "billing" and all(part.choices for part in chunks)
    assert {part.model for part in chunks} == {"triage"}


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({key: str(value) for key, value in USAGE.items()}, (9, 2)),
        ("9 tokens", (5, 2)),
        ({"prompt_tokens": -1, "completion_tokens": None}, (5, 2)),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
def test_usage_is_read_as_servers_write_it_or_estimated(
    gateway: Running, server: Behind, usage: Any, tokens: tuple[int, int], stream: bool
) -> None:
    server.streams["main"] = [chunk("billing"), chunk(None, "stop", usage=usage)]
    choice = {"index": 0, "message": {"role": "assistant", "content": "billing"}}
    server.replies["main"] = {"choices": [choice], "usage": usage}
    body = {"model": "triage", "messages": ASK}
    assert streamed(gateway) if stream else post(f"{gateway.url}/v1/chat/completions", body)[0] == 200
    (captured,) = kept(gateway)
    assert (captured.input_tokens, captured.output_tokens) == tokens and captured.cost_nanousd


@pytest.mark.parametrize("wants_usage", [True, False])
def test_a_whole_answer_to_a_stream_is_passed_on_as_one(
    gateway: Running, server: Behind, wants_usage: bool
) -> None:
    server.faults["main"] = "whole"
    chunks = streamed(gateway, stream_options={"include_usage": wants_usage})
    assert text_of(chunks) == "main says billing, perhaps"
    assert (chunks[-1].usage is not None) == wants_usage
    captured = kept(gateway)[0]
    assert (captured.status, captured.arm, captured.input_tokens) == (200, "main", 40)


@pytest.mark.parametrize("fault", ["refuses options", "refuses silently"])
def test_options_that_the_gateway_added_are_given_up_once(
    gateway: Running, server: Behind, fault: str
) -> None:
    server.faults["main"] = fault
    for _ in range(3):
        assert text_of(streamed(gateway)) == "main says billing, perhaps"
    assert ["stream_options" in call for call in server.calls] == [True, False, False, False]


def test_a_refusal_of_the_callers_words_gives_nothing_up(gateway: Running, server: Behind) -> None:
    server.faults["main"] = "400"
    for _ in range(2):
        with pytest.raises(openai.BadRequestError):
            streamed(gateway)
    server.faults.clear()
    assert streamed(gateway)
    assert "stream_options" in server.calls[-1]
    server.faults["main"] = "400"
    with pytest.raises(openai.BadRequestError):
        streamed(gateway)
    assert len(server.calls) == 6  # once it has streamed with the options, a refusal is about something else


@pytest.mark.parametrize(
    "words",
    [
        {"detail": [{"loc": ["body", "stream_options"], "msg": "Extra inputs are not permitted"}]},
        {"error": {"message": "Unrecognized request argument supplied", "param": "stream_options"}},
        {"message": "json: unknown field stream_options"},
        [{"error": {"message": 'Unknown name "stream_options"'}}],
    ],
)
def test_refusals_name_the_field_in_many_ways(words: Any) -> None:
    fewer = Abilities().without(refusal_words(words))
    assert fewer is not None and not fewer.stream_options


# -- errors inside HTTP 200 -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reply",
    [
        {"error": {"message": "overloaded"}},
        {"choices": [{"message": {"content": ""}, "finish_reason": "error", "error": {"message": "x"}}]},
        [{"error": {"message": "overloaded"}}],
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_an_error_inside_a_whole_answer_goes_to_the_fallback(
    gateway: Running, server: Behind, reply: Any, stream: bool
) -> None:
    server.replies["main"], server.faults["main"] = reply, "whole"
    if stream:
        assert text_of(streamed(gateway)) == "spare says billing, perhaps"
    else:
        body = {"model": "triage", "messages": ASK}
        _, _, headers = post(f"{gateway.url}/v1/chat/completions", body)
        assert headers["x-tunepoint-arm"] == "spare"


@pytest.mark.parametrize(
    "error",
    [
        b'data: {"error": {"message": "overloaded"}}\n\n',
        chunk("", "error"),
        b'event: error\ndata: {"error": "overloaded", "choices": []}\n\n',
    ],
)
def test_an_error_inside_a_stream_ends_it_or_goes_to_the_fallback(
    gateway: Running, server: Behind, error: bytes
) -> None:
    server.streams["main"] = [error]
    assert text_of(streamed(gateway)) == "spare says billing, perhaps"
    relay = Relay(chat_request(stream=True))
    passed = [event for piece in (chunk("bill"), error, chunk("ing")) for event in relay.feed(piece)]
    assert len(passed) == 1 and not list(relay.end()) and not relay.done
    assert str(relay.error).startswith("the server reports an error") and relay.kept.text() == "bill"


def test_log_probabilities_that_are_no_json_numbers_lose_no_text(gateway: Running, server: Behind) -> None:
    piece = chunk("billing", logprobs="X").replace(b'"X"', b"-Infinity")
    server.streams["main"] = [piece, chunk(None, "stop")]
    assert text_of(streamed(gateway)) == "billing"


# -- secrets ----------------------------------------------------------------------------------------


def test_our_key_is_not_handed_out(gateway: Running, server: Behind) -> None:
    body = {"model": "triage", "messages": ASK}
    server.faults["main"] = "echoes"
    _, refused, headers = post(f"{gateway.url}/v1/chat/completions", body)
    server.faults.clear()
    message = {"role": "assistant", "content": f"Bearer {KEY}"}
    server.replies["main"] = {"choices": [{"index": 0, "message": message}]}
    _, whole, _ = post(f"{gateway.url}/v1/chat/completions", body)
    event = chunk(f"Bearer {KEY}")
    server.streams["main"] = [event[:70], event[70:], chunk(None, "stop")]
    assert text_of(streamed(gateway)) == "Bearer [key]"
    assert server.keys == {f"Bearer {KEY}"}
    assert "[key]" in refused["error"]["message"] and "[key]" in whole["choices"][0]["message"]["content"]
    assert KEY not in json.dumps([refused, whole, headers])
    assert all(KEY not in f"{row.output} {row.error}" for row in kept(gateway, 3))


def test_a_secret_that_comes_in_pieces_is_found() -> None:
    text = f"a{KEY[:5]}{KEY}b{KEY}".encode()
    for size in (1, 2, 3, 7, 100):
        secret = SecretFilter(KEY)
        parts = [secret.feed(text[start : start + size]) for start in range(0, len(text), size)]
        assert b"".join(parts) + secret.rest() == f"a{KEY[:5]}[key]b[key]".encode()
    assert SecretFilter("none").feed(b"none of it") == b"none of it"


# -- bounds -----------------------------------------------------------------------------------------


def test_an_event_without_an_end_is_cut_off_in_linear_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "MAX_EVENT_BYTES", 200_000)
    splitter, started = EventSplitter(), time.process_time()
    with pytest.raises(EventTooLong):
        for _ in range(200_000):
            assert not list(splitter.feed(b"xx"))
    assert time.process_time() - started < 2
    with pytest.raises(ArmFault, match="an event has over"):
        list(Relay(chat_request(stream=True)).feed(b"x" * 200_001))


def test_events_are_split_at_every_end_of_a_line() -> None:
    first, second = b': hi\r\n\r\ndata: {"a": 1}\r\rdata: {"a": 2}\n', b'data: {"a": 3}\n\n'
    raw = b"\xef\xbb\xbf" + first + second + b'data: {"a":\ndata: 4}\n\n'
    for size in (1, 2, 3, 1_000):
        splitter = EventSplitter()
        events = [e for start in range(0, len(raw), size) for e in splitter.feed(raw[start : start + size])]
        assert [e.content for e in events] == [None, {"a": 1}, {"a": 2}, {"a": 3}, {"a": 4}]
        assert [e.is_comment for e in events] == [True, False, False, False, False]


def test_a_long_text_is_passed_on_and_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "MAX_KEPT_BYTES", 100)
    before, relay = KeptText.together, Relay(chat_request(stream=True))
    passed = [event for _ in range(30) for event in relay.feed(chunk("12345678"))]
    assert len(passed) == 30 and relay.kept.text() == "" and relay.kept.characters == 240
    assert KeptText.together == before


def test_the_name_is_replaced_where_it_is_the_models() -> None:
    nested = {"choices": [{"tool": {"model": "real"}}], "model": "real"}
    raw = b"data: " + json.dumps(nested).encode()
    assert json.loads(events.renamed(Event(raw, nested), "triage")[6:]) == {**nested, "model": "triage"}
