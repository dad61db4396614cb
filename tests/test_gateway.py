"""The gateway as applications see it: the official client, faults behind it, feedback, keys, routes."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import openai
import pytest
from gateways import Behind, Running, behind, running, settings, until
from sqlalchemy.exc import SQLAlchemyError
from test_report import CHROMIUM

from tunepoint.capture.keys import active_keys, revoke_key
from tunepoint.capture.opening import open_store
from tunepoint.capture.records import CapturedRequest
from tunepoint.capture.schema import gateway_keys
from tunepoint.capture.store import Store
from tunepoint.errors import ModelError, StoreError, TaskError
from tunepoint.serve.auth import make_key
from tunepoint.serve.routing import RouteError
from tunepoint.serve.settings import ServeSettings

ASK: Any = [{"role": "user", "content": "I was charged twice"}]


@pytest.fixture
def server() -> Iterator[Behind]:
    with behind() as behind_it:
        yield behind_it


@pytest.fixture
def gateway(server: Behind, tmp_path: Path) -> Iterator[Running]:
    with running(lambda: settings(tmp_path, server.url, fallback=["spare"])) as opened:
        yield opened


def client(gateway: Running, key: str = "any") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=0)


def post(url: str, body: Any, **headers: str) -> tuple[int, dict[str, Any], dict[str, str]]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json", **headers})
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, json.load(response), dict(response.headers)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error), dict(error.headers)


def get(url: str, **headers: str) -> tuple[int, Any]:
    request = urllib.request.Request(url, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            text = response.read().decode()
            return response.status, json.loads(text) if text.startswith(("{", "[")) else text
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def kept(gateway: Running, count: int = 1) -> list[CapturedRequest]:
    """What the store holds, once it holds so much."""
    return until(lambda: len(requests := list(gateway.gateway.store.requests())) >= count and requests)  # type: ignore[no-any-return]


# -- applications change their base URL and nothing else --------------------------------------------


def test_the_official_client_is_answered(gateway: Running, server: Behind) -> None:
    with client(gateway) as asking:
        raw = asking.chat.completions.with_raw_response.create(
            model="triage", messages=ASK, temperature=0.5, user="u1"
        )
        completion = raw.parse()
        assert [model.id for model in asking.models.list()] == ["triage"]
        assert asking.models.retrieve("triage").owned_by == "tunepoint"
    assert completion.choices[0].message.content == "main says billing, perhaps"
    assert (
        completion.model == "triage" and completion.usage is not None and completion.usage.prompt_tokens == 40
    )
    assert raw.headers["x-tunepoint-arm"] == "main" and raw.headers["x-tunepoint-role"] == "champion"
    spent = (30 * 1.0 + 10 * 0.5 + 6 * 2.0) / 1e6
    assert float(raw.headers["x-tunepoint-cost-usd"]) == pytest.approx(spent)
    assert server.calls[0]["model"] == "main" and server.calls[0]["temperature"] == 0.5
    (captured,) = kept(gateway)
    assert raw.headers["x-request-id"] == captured.id
    assert (captured.task, captured.arm, captured.role, captured.status) == (
        "triage",
        "main",
        "champion",
        200,
    )
    assert (captured.input, captured.output) == ("I was charged twice", "main says billing, perhaps")
    assert (captured.input_tokens, captured.cached_tokens, captured.output_tokens) == (40, 10, 6)
    assert captured.cost_usd == Decimal(repr(spent)).quantize(Decimal("1e-9"))
    assert captured.parameters == {"temperature": 0.5} and captured.messages is None
    assert captured.user is not None and "u1" not in captured.user and captured.seconds is not None


def test_streams_come_event_by_event_under_the_tasks_name(gateway: Running, server: Behind) -> None:
    server.faults["main"] = "drip"
    with client(gateway) as asking:
        started, times, parts, models = time.monotonic(), [], [], set()
        for chunk in asking.chat.completions.create(model="triage", messages=ASK, stream=True):
            times.append(time.monotonic() - started)
            models.add(chunk.model)
            assert chunk.usage is None and chunk.choices
            parts.append(chunk.choices[0].delta.content or "")
    assert "".join(parts) == "main says billing, perhaps" and models == {"triage"}
    assert times[0] < 0.6 < times[-1]  # the first word did not wait for the last
    (captured,) = kept(gateway)
    assert (
        captured.streamed
        and captured.output == "main says billing, perhaps"
        and captured.cost_nanousd == 47_000
    )
    assert captured.first_token_seconds is not None and captured.seconds is not None
    assert captured.first_token_seconds < captured.seconds


def test_a_stream_with_its_usage_if_asked_for(gateway: Running) -> None:
    with client(gateway) as asking:
        options: Any = {"include_usage": True}
        chunks = list(
            asking.chat.completions.create(model="triage", messages=ASK, stream=True, stream_options=options)
        )
    assert chunks[-1].usage is not None and chunks[-1].usage.total_tokens == 46


def test_tools_and_formats_are_passed_on(gateway: Running, server: Behind) -> None:
    tools: Any = [{"type": "function", "function": {"name": "route", "parameters": {"type": "object"}}}]
    parts: Any = [
        {"role": "system", "content": "Be kind to ann@example.com"},
        {"role": "user", "content": [{"type": "text", "text": "first"}, {"type": "text", "text": "second"}]},
    ]
    with client(gateway) as asking:
        completion = asking.chat.completions.create(
            model="triage", messages=parts, tools=tools, response_format={"type": "json_object"}
        )
    calls = completion.choices[0].message.tool_calls
    assert calls is not None and calls[0].id == "c1"
    assert server.calls[0]["tools"] == tools and server.calls[0]["response_format"] == {"type": "json_object"}
    (captured,) = kept(gateway)
    assert captured.input == "first\nsecond" and captured.messages is not None
    assert captured.messages[0]["content"] == "Be kind to <email>"


@pytest.mark.skipif(shutil.which("node") is None, reason="no node is installed")
def test_node_reads_the_stream(gateway: Running) -> None:
    """What the official Node client does with the bytes, by fetch: node comes without packages here."""
    script = """
const reply = await fetch(process.argv[1] + '/v1/chat/completions', {method: 'POST',
  headers: {'content-type': 'application/json', authorization: 'Bearer any'},
  body: JSON.stringify({model: 'triage', stream: true, messages: [{role: 'user', content: 'hi'}]})});
let rest = '', text = '';
for await (const part of reply.body.pipeThrough(new TextDecoderStream())) {
  rest += part;
  const events = rest.split('\\n\\n');
  rest = events.pop();
  for (const event of events) {
    const data = event.slice(6);
    if (data !== '[DONE]') text += JSON.parse(data).choices[0].delta.content ?? '';
  }
}
console.log(reply.headers.get('content-type') + ' ' + text);
"""
    node = subprocess.run(
        ["node", "--input-type=module", "-e", script, gateway.url], capture_output=True, text=True, timeout=60
    )
    assert node.stdout.strip() == "text/event-stream; charset=utf-8 main says billing, perhaps", node.stderr


@pytest.fixture(scope="session")
def node_client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with OpenAI's official Node client; skipped where npm cannot bring it."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("no npm is installed")
    folder = Path(tmp_path_factory.mktemp("node"))
    try:
        subprocess.run(
            [npm, "install", "--silent", "--no-audit", "openai@6"],
            cwd=folder,
            check=True,
            capture_output=True,
            timeout=90,
        )
    except (subprocess.SubprocessError, OSError) as error:
        pytest.skip(f"npm cannot install the client ({type(error).__name__})")
    return folder


def test_the_official_node_client_is_answered(gateway: Running, node_client: Path) -> None:
    (node_client / "ask.mjs").write_text("""
import OpenAI from 'openai';
const client = new OpenAI({ baseURL: process.argv[2] + '/v1', apiKey: 'any', maxRetries: 0 });
const asked = { model: 'triage', messages: [{ role: 'user', content: 'hi' }] };
const whole = await client.chat.completions.create(asked);
let text = '', total = 0;
const options = { ...asked, stream: true, stream_options: { include_usage: true } };
for await (const chunk of await client.chat.completions.create(options)) {
  text += chunk.choices[0]?.delta?.content ?? '';
  total = chunk.usage?.total_tokens ?? total;
}
const names = [];
for await (const model of client.models.list()) names.push(model.id);
let refused = '';
try { await client.chat.completions.create({ ...asked, model: 'nobody' }); }
catch (error) { refused = error.code; }
console.log(JSON.stringify([whole.choices[0].message.content, whole.model, text, total, names, refused]));
""")
    node = subprocess.run(
        ["node", "ask.mjs", gateway.url], cwd=node_client, capture_output=True, text=True, timeout=60
    )
    answer = "main says billing, perhaps"
    assert json.loads(node.stdout) == [answer, "triage", answer, 46, ["triage"], "model_not_found"], (
        node.stderr
    )


# -- faults behind it -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reply",
    [
        {"choices": {"a": 1}},
        {"choices": ["x"]},
        {"choices": [{"message": "x"}]},
    ],
)
def test_replies_of_another_form_go_to_the_fallback(gateway: Running, server: Behind, reply: Any) -> None:
    server.replies["main"] = reply
    status, _, headers = post(f"{gateway.url}/v1/chat/completions", {"model": "triage", "messages": ASK})
    assert status == 200 and headers["x-tunepoint-arm"] == "spare"


@pytest.mark.parametrize(
    "usage", ["many", {"prompt_tokens": -5, "completion_tokens": 10**30}, {"prompt_tokens_details": [1]}]
)
def test_counts_that_make_no_sense_are_taken_as_they_can_be(
    gateway: Running, server: Behind, usage: Any
) -> None:
    message = {"role": "assistant", "content": "fine"}
    server.replies["main"] = {"choices": [{"index": 0, "message": message}], "usage": usage}
    status, completion, headers = post(
        f"{gateway.url}/v1/chat/completions", {"model": "triage", "messages": ASK}
    )
    assert (status, headers["x-tunepoint-arm"], completion["choices"][0]["message"]["content"]) == (
        200,
        "main",
        "fine",
    )
    assert kept(gateway)[0].output == "fine"


@pytest.mark.parametrize(
    "start", [b": keep-alive\n\n", b'data: {"id"', b'data: {"error": {"message": "full"}}\n\n']
)
def test_a_stream_that_ends_before_its_first_event_goes_to_the_fallback(
    gateway: Running, server: Behind, start: bytes
) -> None:
    server.starts["main"] = start
    with client(gateway) as asking:
        chunks = asking.chat.completions.create(model="triage", messages=ASK, stream=True)
        assert (
            "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "spare says billing, perhaps"
        )


@pytest.mark.parametrize("fault", ["500", "429", "401", "redirect", "text", "empty"])
@pytest.mark.parametrize("stream", [False, True])
def test_where_the_champion_fails_the_fallback_answers(
    gateway: Running, server: Behind, fault: str, stream: bool
) -> None:
    server.faults["main"] = fault
    with client(gateway) as asking:
        if stream:
            chunks = asking.chat.completions.create(model="triage", messages=ASK, stream=True)
            text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        else:
            text = (
                asking.chat.completions.create(model="triage", messages=ASK).choices[0].message.content or ""
            )
    assert text == "spare says billing, perhaps"
    failed, answered = sorted(kept(gateway, 2), key=lambda captured: captured.status, reverse=True)
    assert failed.arm == "main" and failed.status >= 400 and failed.error is not None
    assert "Bearer" not in failed.error and (answered.arm, answered.role) == ("spare", "fallback")


def test_a_server_that_is_down_and_one_that_is_slow(server: Behind, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}/v1#x"
    loaded = settings(
        tmp_path, server.url, {"slow": "slow", "spare": "spare"}, champion="down", fallback=["slow", "spare"]
    )
    (task,) = loaded.tasks
    down = task.arms[0].model_copy(update={"name": "down", "model": nobody})
    slow = task.arms[0].model_copy(update={"timeout_seconds": 0.3})
    loaded = loaded.model_copy(
        update={"tasks": (task.model_copy(update={"arms": (down, slow, task.arms[1])}),)}
    )
    server.faults["slow"] = "slow"
    with running(lambda: loaded) as gateway, client(gateway) as asking:
        reply = asking.chat.completions.create(model="triage", messages=ASK)
        assert reply.choices[0].message.content == "spare says billing, perhaps"
        errors = {
            captured.arm: (captured.status, captured.error)
            for captured in kept(gateway, 3)
            if captured.status >= 400
        }
    assert errors["slow"] == (504, "no reply within 0.3 s")
    assert errors["down"][0] == 502 and "no connection" in str(errors["down"][1])


def test_the_callers_own_fault_is_told_and_nobody_else_is_asked(gateway: Running, server: Behind) -> None:
    server.faults["main"] = "400"
    with client(gateway) as asking, pytest.raises(openai.BadRequestError) as refused:
        asking.chat.completions.create(model="triage", messages=ASK)
    assert refused.value.body is not None and refused.value.code == "bad_tool"
    assert [call["model"] for call in server.calls] == ["main"]


def test_where_nobody_answers_the_caller_reads_why(gateway: Running, server: Behind) -> None:
    server.faults |= {"main": "401", "spare": "429"}
    status, body, headers = post(f"{gateway.url}/v1/chat/completions", {"model": "triage", "messages": ASK})
    assert status == 429 and headers["retry-after"] == "7"
    assert (
        "the server rejected our API key (HTTP 401); the server limits our rate" in body["error"]["message"]
    )
    assert "none" not in body["error"]["message"]  # the key that we send stays with us


@pytest.mark.parametrize("fault", ["cut", "endless"])
def test_a_stream_that_breaks_off_says_so(gateway: Running, server: Behind, fault: str) -> None:
    server.faults["main"] = fault
    with client(gateway) as asking, pytest.raises(openai.APIError, match="the answer was interrupted"):
        list(asking.chat.completions.create(model="triage", messages=ASK, stream=True))
    (captured,) = kept(gateway)
    assert captured.status == 502 and captured.error is not None and captured.output.startswith("main says")


def test_a_caller_that_goes_away_ends_the_call_behind(gateway: Running, server: Behind) -> None:
    server.faults["main"] = "stall"
    with client(gateway) as asking:
        stream = asking.chat.completions.create(model="triage", messages=ASK, stream=True)
        next(iter(stream))
        stream.close()
    (captured,) = kept(gateway)
    assert captured.status == 499 and captured.error == "the client disconnected"
    assert not gateway.gateway.dispatcher.tasks["triage"].router.breakers["main"].opened


def test_an_arm_that_keeps_failing_is_left_alone_for_a_while(gateway: Running, server: Behind) -> None:
    server.faults["main"] = "500"
    with client(gateway) as asking:
        for _ in range(8):
            asking.chat.completions.create(model="triage", messages=ASK)
    assert [call["model"] for call in server.calls].count("main") == 5
    status, routes = get(f"{gateway.url}/v1/routes/triage")
    assert (
        status == 200
        and routes["arms"]["main"]["asked"] is False
        and routes["arms"]["spare"]["asked"] is True
    )


# -- what is no request -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"{", 400, "the body is not JSON"),
        (b"\xff\xfe{}", 400, "the body is not JSON"),
        (b"", 400, "the body is not JSON"),
        (b"[]", 400, "the body is a JSON list, expected an object"),
        (b"{}", 400, "model: expected the name of a task"),
        (b'{"model": "triage"}', 400, "messages: expected a list of at least one message"),
        (b'{"model": "triage", "messages": []}', 400, "messages: expected a list of at least one message"),
        (
            b'{"model": "triage", "messages": ["x"]}',
            400,
            "messages[0]: expected an object with role",
        ),
        (
            b'{"model": "triage", "messages": [{"role": "user"}], "stream": "yes"}',
            400,
            "stream: expected true or false",
        ),
        (
            b'{"model": "triage", "messages": [{"role": "user"}], "stream_options": 1}',
            400,
            "stream_options: expected an object",
        ),
        (b'{"model": "triage", "messages": [{"role": "user"}], "user": 7}', 400, "user: expected a string"),
        (b'{"model": "triagge", "messages": [{"role": "user"}]}', 404, "did you mean 'triage'"),
        (b'{"model": "x", "messages": "' + b"y" * (5 * 2**20) + b'"}', 413, "the limit is 4,194,304"),
    ],
)
def test_what_is_no_request_is_told_why(gateway: Running, body: bytes, status: int, words: str) -> None:
    answered_status, reply, _ = post(f"{gateway.url}/v1/chat/completions", body)
    assert answered_status == status and words in reply["error"]["message"], reply
    assert reply["error"]["type"] == "invalid_request_error"


def test_a_large_body_without_a_length(gateway: Running) -> None:
    host, port = gateway.url.removeprefix("http://").split(":")
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    with socket.create_connection((host, int(port))) as raw:
        raw.sendall(head + b"transfer-encoding: chunked\r\n\r\n")
        try:
            for _ in range(80):
                raw.sendall(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
            raw.sendall(b"0\r\n\r\n")
        except OSError:
            pass  # it has hung up by now
        raw.settimeout(10)
        assert b" 413 " in raw.recv(4_096)


def test_pages_of_a_browser_are_kept_out(gateway: Running) -> None:
    url, body = f"{gateway.url}/v1/chat/completions", {"model": "triage", "messages": ASK}
    status, reply, _ = post(url, body, **{"content-type": "text/plain"})
    assert status == 415
    status, reply, _ = post(url, body, host="evil.example")
    assert status == 403 and "evil.example" in reply["error"]["message"]
    assert get(f"{gateway.url}/v1/audit", host="evil.example:8484")[0] == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "text/plain; x=json"},
        {"content-type": ""},
        {"origin": "https://evil.example"},
        {"origin": "null"},
    ],
)
def test_what_a_page_can_send_without_asking_changes_nothing(
    gateway: Running, headers: dict[str, str]
) -> None:
    for path, body in (
        ("/v1/routes/triage", {"promote": "spare"}),
        ("/v1/chat/completions", {}),
        ("/v1/reload", {}),
    ):
        assert post(gateway.url + path, body, **headers)[0] in (403, 415)
    assert gateway.gateway.dispatcher.tasks["triage"].router.policy.champion == "main"


def test_a_nest_that_is_too_deep_is_the_callers_fault_and_trips_nobody(
    gateway: Running, server: Behind
) -> None:
    deep: Any = "x"
    for _ in range(300):
        deep = [deep]
    body = {"model": "triage", "messages": [{"role": "user", "content": deep}]}
    for stream in (False, True):
        for _ in range(6):
            status, reply, _ = post(f"{gateway.url}/v1/chat/completions", {**body, "stream": stream})
            assert status == 400 and "too deep" in reply["error"]["message"]
    assert gateway.gateway.dispatcher.tasks["triage"].router.breakers["main"].allows() and server.calls == []


def test_other_addresses_are_answered_in_the_same_form(gateway: Running) -> None:
    assert get(f"{gateway.url}/v1/nothing")[1]["error"]["message"] == "Not Found"
    assert get(f"{gateway.url}/v1/models/other")[0] == 404
    assert get(f"{gateway.url}/v1/routes/other")[0] == 404
    assert post(f"{gateway.url}/v1/models", {})[0] == 405
    health = {"status": "ok", "tasks": ["triage"], "capture": "ok", "waiting": 0, "on_disk": 0}
    assert get(f"{gateway.url}/healthz")[1] == health
    assert "/v1/chat/completions" in get(f"{gateway.url}/openapi.json")[1]["paths"]


# -- feedback ---------------------------------------------------------------------------------------


def test_feedback_is_kept_when_it_is_acknowledged(gateway: Running) -> None:
    with client(gateway) as asking:
        raw = asking.chat.completions.with_raw_response.create(model="triage", messages=ASK)
    request = raw.headers["x-request-id"]
    status, reply, _ = post(
        f"{gateway.url}/v1/feedback",
        {"request_id": request, "thumbs": "down", "correction": "device", "comment": "ask ann@example.com"},
    )
    assert status == 200 and reply["kept"] is True
    (feedback,) = gateway.gateway.store.feedback([request])[request]
    assert (feedback.thumbs, feedback.correction, feedback.comment) == (False, "device", "ask <email>")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "request_id: Field required"),
        ({"request_id": "r"}, "give score, thumbs, correction or comment"),
        ({"request_id": "r", "score": 2}, "score: Input should be less than or equal to 1"),
        ({"request_id": "r", "thumbs": "sideways"}, "thumbs"),
        ({"request_id": "r", "score": 1, "stars": 5}, "stars: Extra inputs"),
        ({"request_id": "a b", "score": 1}, "request_id"),
        (b"nothing", "the body is not JSON"),
    ],
)
def test_feedback_that_is_none(gateway: Running, body: Any, words: str) -> None:
    status, reply, _ = post(f"{gateway.url}/v1/feedback", body)
    assert status == 400 and words in reply["error"]["message"]


def test_while_the_store_is_away_the_gateway_answers_and_says_so(
    gateway: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = gateway.gateway.store

    def away(self: Store, *rows: Any) -> None:
        raise StoreError("database or disk is full")

    monkeypatch.setattr(Store, "add", away)
    status, _, headers = post(f"{gateway.url}/v1/chat/completions", {"model": "triage", "messages": ASK})
    assert status == 200
    until(lambda: get(f"{gateway.url}/healthz")[1]["capture"] == "away")
    assert "tunepoint_capture_failing 1.0" in get(f"{gateway.url}/metrics")[1]
    feedback = {"request_id": headers["x-request-id"], "score": 1}
    status, reply, _ = post(f"{gateway.url}/v1/feedback", feedback)
    assert status == 503 and "disk is full" in reply["error"]["message"]
    monkeypatch.undo()
    until(lambda: len(list(store.requests())) == 1)  # nothing was lost meanwhile
    until(lambda: get(f"{gateway.url}/healthz")[1]["capture"] == "ok")


def test_metrics_count_what_was_answered(gateway: Running) -> None:
    with client(gateway) as asking:
        for _ in range(3):
            asking.chat.completions.create(model="triage", messages=ASK)
    text = get(f"{gateway.url}/metrics")[1]
    by = 'arm="main",role="champion"'
    assert f'tunepoint_requests_total{{{by},status="200",task="triage"}} 3.0' in text
    assert 'tunepoint_tokens_total{arm="main",direction="input",role="champion",task="triage"} 120.0' in text
    (dollars,) = re.findall(rf'tunepoint_usd_total{{{by},task="triage"}} (\S+)', text)
    assert float(dollars) == pytest.approx(0.000141)


# -- keys -------------------------------------------------------------------------------------------


def test_keys_roles_budgets_and_rates(server: Behind, tmp_path: Path) -> None:
    with open_store(tmp_path / "capture.sqlite") as store:
        app = make_key(store, "app", ("call",), usd_a_month=0.0001)
        ops = make_key(store, "ops", ("read", "operate"))
        fast = make_key(store, "fast", ("call",), requests_a_minute=2)
        for number in range(200):
            make_key(store, f"k{number}", ("call",))
        raw = repr(active_keys(store))
        assert app not in raw and ops not in raw
        with pytest.raises(StoreError, match="already a key named 'app'"):
            make_key(store, "app", ("call",))
    with running(lambda: settings(tmp_path, server.url)) as gateway:
        url, body = f"{gateway.url}/v1/chat/completions", {"model": "triage", "messages": ASK}
        status, reply, _ = post(url, body)
        assert status == 401 and "tunepoint keys add" in reply["error"]["message"]
        assert post(url, body, authorization="Bearer wrong")[0] == 401
        assert post(url, body, authorization=f"Bearer {ops}")[0] == 403
        assert get(f"{gateway.url}/metrics", authorization=f"Bearer {app}")[0] == 403
        assert get(f"{gateway.url}/metrics", authorization=f"Bearer {ops}")[0] == 200
        change = {"shadow": "spare"}
        assert post(f"{gateway.url}/v1/routes/triage", change, authorization=f"Bearer {app}")[0] == 403
        codes = [post(url, body, authorization=f"Bearer {app}")[0] for _ in range(4)]
        assert codes == [200, 200, 200, 429]  # $.000047 each
        status, reply, _ = post(url, body, authorization=f"Bearer {app}")
        assert (
            reply["error"]["code"] == "insufficient_quota"
            and "has spent $0.000141 of $0.000100 this month" in reply["error"]["message"]
        )
        codes = [post(url, body, authorization=f"Bearer {fast}")[0] for _ in range(3)]
        assert codes == [200, 200, 429]
        assert {captured.key for captured in kept(gateway, 5)} == {"app", "fast"}
    with running(lambda: settings(tmp_path, server.url)) as gateway:  # what was spent survives
        url = f"{gateway.url}/v1/chat/completions"
        assert post(url, body, authorization=f"Bearer {app}")[0] == 429
        revoke_key(gateway.gateway.store, "fast")
        gateway.gateway.access.reload()
        assert post(url, body, authorization=f"Bearer {fast}")[0] == 401


def test_streams_that_are_left_early_are_paid_for(server: Behind, tmp_path: Path) -> None:
    server.faults["main"] = "drip"
    with open_store(tmp_path / "capture.sqlite") as store:
        key = make_key(store, "app", ("call",), usd_a_month=0.00002)
    with running(lambda: settings(tmp_path, server.url)) as gateway, client(gateway, key) as asking:
        with pytest.raises(openai.RateLimitError):
            for _ in range(6):
                stream = asking.chat.completions.create(model="triage", messages=ASK, stream=True)
                next(iter(stream))
                stream.close()
                time.sleep(0.3)
        assert gateway.gateway.access.spent()["app"] >= 20_000


def test_the_last_key_that_is_revoked_opens_nothing(server: Behind, tmp_path: Path) -> None:
    with open_store(tmp_path / "capture.sqlite") as store:
        make_key(store, "only", ("call", "operate"))
        with pytest.raises(StoreError, match="cannot name a key"):
            make_key(store, " ", ("call",))
    with running(lambda: settings(tmp_path, server.url)) as gateway:
        revoke_key(gateway.gateway.store, "only")
        gateway.gateway.access.reload()
        assert post(f"{gateway.url}/v1/chat/completions", {"model": "triage", "messages": ASK})[0] == 401
        assert post(f"{gateway.url}/v1/routes/triage", {"promote": "spare"})[0] == 401


def test_ten_thousand_keys_are_one_lookup(server: Behind, tmp_path: Path) -> None:
    with open_store(tmp_path / "capture.sqlite") as store:
        token = make_key(store, "mine", ("call",))
        digests = [hashlib.sha256(str(n).encode()).hexdigest() for n in range(10_000)]
        facts = {"roles": ["call"], "made_at": 0.0}
        rows = [{**facts, "digest": digest, "name": digest} for digest in digests]
        with store.transaction("written") as connection:
            connection.execute(gateway_keys.insert(), rows)
    with running(lambda: settings(tmp_path, server.url)) as gateway:
        url, body = f"{gateway.url}/v1/chat/completions", {"model": "triage", "messages": ASK}
        assert post(url, body, authorization=f"Bearer {token}")[0] == 200
        assert post(url, body, authorization="Bearer 9999")[0] == 200
        assert post(url, body, authorization="Bearer 10000")[0] == 401


def test_a_clock_that_jumps_stops_nothing(gateway: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    real, body = time.time, {"model": "triage", "messages": ASK}
    for jump in (-86_400.0 * 400, 86_400.0 * 400, 0.0):
        monkeypatch.setattr(time, "time", lambda jump=jump: real() + jump)
        status, _, headers = post(f"{gateway.url}/v1/chat/completions", body)
        assert status == 200
        feedback = {"request_id": headers["x-request-id"], "score": 1}
        assert post(f"{gateway.url}/v1/feedback", feedback)[0] == 200
    monkeypatch.undo()
    assert len(kept(gateway, 3)) == 3
    assert all(arm["asked"] for arm in get(f"{gateway.url}/v1/routes/triage")[1]["arms"].values())


def test_a_client_that_reads_slowly_keeps_nobody_else_waiting(gateway: Running, server: Behind) -> None:
    host, port = gateway.url.removeprefix("http://").split(":")
    body = json.dumps({"model": "triage", "messages": ASK, "stream": True}).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    slow = [socket.create_connection((host, int(port))) for _ in range(20)]
    for connection in slow:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1_024)
        connection.sendall(head + f"content-length: {len(body)}\r\n\r\n".encode() + body)
    started = time.monotonic()
    for _ in range(20):
        assert post(f"{gateway.url}/v1/chat/completions", {"model": "triage", "messages": ASK})[0] == 200
    assert time.monotonic() - started < 10
    for connection in slow:
        connection.settimeout(20)
        received = b""
        while b"[DONE]" not in received:
            part = connection.recv(256)
            assert part
            received += part
        connection.close()


def test_nobody_listens_to_the_world_without_keys(server: Behind, tmp_path: Path) -> None:
    with (
        pytest.raises(TaskError, match="there are no API keys, so anybody could call"),
        running(lambda: settings(tmp_path, server.url, server={"host": "0.0.0.0"})),
    ):
        pass


# -- routes -----------------------------------------------------------------------------------------


def test_a_shadow_answers_copies_and_the_user_does_not_wait(gateway: Running, server: Behind) -> None:
    server.faults["spare"] = "slow"
    post(f"{gateway.url}/v1/routes/triage", {"shadow": "spare"})
    started = time.monotonic()
    with client(gateway) as asking:
        reply = asking.chat.completions.create(model="triage", messages=ASK)
    assert time.monotonic() - started < 3 and reply.choices[0].message.content == "main says billing, perhaps"
    server.faults.clear()
    with client(gateway) as asking:
        asking.chat.completions.create(model="triage", messages=ASK)
    copy = until(
        lambda: [
            captured
            for captured in gateway.gateway.store.requests()
            if captured.role == "shadow" and captured.output
        ]
    )[0]
    assert copy.arm == "spare" and copy.copy_of is not None and copy.output == "spare says billing, perhaps"
    assert post(f"{gateway.url}/v1/routes/triage", {"shadow": ""})[1]["policy"]["shadow"] is None


def test_a_shadow_that_refuses_the_request_is_not_broken(gateway: Running, server: Behind) -> None:
    server.faults["spare"] = "400"
    post(f"{gateway.url}/v1/routes/triage", {"shadow": "spare"})
    for _ in range(7):
        post(f"{gateway.url}/v1/chat/completions", {"model": "triage", "messages": ASK})
    until(lambda: [call["model"] for call in server.calls].count("spare") == 7)
    assert get(f"{gateway.url}/v1/routes/triage")[1]["arms"]["spare"]["asked"] is True


def test_a_caller_that_leaves_a_long_answer_ends_it(gateway: Running, server: Behind) -> None:
    server.faults |= {"main": "slow", "spare": "slow"}
    host, port = gateway.url.removeprefix("http://").split(":")
    body = json.dumps({"model": "triage", "messages": ASK}).encode()
    with socket.create_connection((host, int(port))) as raw:
        raw.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            + f"content-length: {len(body)}\r\n\r\n".encode()
            + body
        )
        until(lambda: server.calls)
    until(lambda: gateway.application.in_flight == 0, 4)
    assert [call["model"] for call in server.calls] == ["main"]  # and nobody else is asked
    (captured,) = kept(gateway)
    assert captured.status == 499


def test_changed_settings_are_followed_and_equal_ones_leave_what_was_decided(
    server: Behind, tmp_path: Path
) -> None:
    def champion(**routes: Any) -> str:
        with running(lambda: settings(tmp_path, server.url, **routes)) as gateway:
            serving: str = gateway.gateway.dispatcher.tasks["triage"].router.policy.champion
            return serving

    assert champion() == "main"
    with running(lambda: settings(tmp_path, server.url)) as gateway:
        post(f"{gateway.url}/v1/routes/triage", {"promote": "spare"})
    assert champion() == "spare"
    assert champion(fallback=["spare"]) == "main"  # somebody has edited serve.toml
    with open_store(tmp_path / "capture.sqlite") as store:
        assert store.audit_log("triage")[-1]["what"] == "the settings have changed"


def test_a_change_that_cannot_be_noted_is_not_made(gateway: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    router, store = gateway.gateway.dispatcher.tasks["triage"].router, gateway.gateway.store
    before = store.state("routes/triage")

    def broken(*words: Any, **options: Any) -> Any:
        raise SQLAlchemyError("no room for the log")

    monkeypatch.setattr("tunepoint.capture.store.sa.insert", broken)
    with pytest.raises(StoreError):
        router.promote("spare", "me", "why")
    monkeypatch.undo()
    assert router.policy.champion == "main" and store.state("routes/triage") == before


def test_slices_have_arms_of_their_own(server: Behind, tmp_path: Path) -> None:
    with running(lambda: settings(tmp_path, server.url, slices={"de": "spare"})) as gateway:
        with client(gateway) as asking:
            german = asking.chat.completions.create(
                model="triage", messages=ASK, extra_headers={"x-tunepoint-slice": "de"}
            )
            other = asking.chat.completions.create(
                model="triage", messages=ASK, extra_headers={"x-tunepoint-slice": "fr"}
            )
        assert german.choices[0].message.content == "spare says billing, perhaps"
        assert other.choices[0].message.content == "main says billing, perhaps"
        assert {(captured.slice, captured.role) for captured in kept(gateway, 2)} == {
            ("de", "slice"),
            ("fr", "champion"),
        }


def test_changes_survive_a_restart_and_stand_in_the_audit_log(server: Behind, tmp_path: Path) -> None:
    with running(lambda: settings(tmp_path, server.url)) as gateway:
        url = f"{gateway.url}/v1/routes/triage"
        status, routes, _ = post(url, {"promote": "spare", "why": "it won"})
        assert (
            status == 200
            and routes["policy"]["champion"] == "spare"
            and routes["policy"]["fallback"] == ["main"]
        )
        assert post(url, {"promote": "nobody"})[0] == 400
        assert post(url, {"promote": "spare"})[0] == 400
        assert post(url, {"roll_back": True})[0] == 400
        assert "exactly one of" in post(url, {"promote": "main", "shadow": "main"})[1]["error"]["message"]
        assert post(url, {"fallback": []})[0] == 200
    with running(lambda: settings(tmp_path, server.url)) as gateway:
        with client(gateway) as asking:
            reply = asking.chat.completions.create(model="triage", messages=ASK)
        assert reply.choices[0].message.content == "spare says billing, perhaps"
        lines = get(f"{gateway.url}/v1/audit?task=triage")[1]["data"]
    assert [line["what"] for line in lines] == ["first start", "promoted spare: it won", "fallback: none"]
    assert lines[1]["detail"]["from"]["champion"] == "main"
    gone = settings(tmp_path, server.url, {"main": "main"})
    with running(lambda: gone) as gateway:  # the arm that served no longer serves
        assert gateway.gateway.dispatcher.tasks["triage"].router.policy.champion == "main"
        assert "spare no longer serves" in get(f"{gateway.url}/v1/audit")[1]["data"][-1]["what"]


def test_settings_are_read_again_without_a_dropped_request(server: Behind, tmp_path: Path) -> None:
    arms = {"main": "main"}
    codes: list[int] = []
    ending = threading.Event()
    with running(lambda: settings(tmp_path, server.url, dict(arms))) as gateway:

        def asking() -> None:
            while not ending.is_set():
                codes.append(
                    post(f"{gateway.url}/v1/chat/completions", {"model": "triage", "messages": ASK})[0]
                )

        threads = [threading.Thread(target=asking) for _ in range(4)]
        for thread in threads:
            thread.start()
        arms["third"] = "third"
        for _ in range(3):
            gateway.call(gateway.gateway.reload())
        arms["main"] = ""
        with pytest.raises(ModelError):
            gateway.call(gateway.gateway.reload())  # what cannot be used is not taken over
        time.sleep(0.2)
        ending.set()
        for thread in threads:
            thread.join()
        assert "third" in get(f"{gateway.url}/v1/routes/triage")[1]["arms"]
    assert set(codes) == {200} and len(codes) > 20


@pytest.mark.parametrize(
    ("routes", "words"),
    [
        ({"champion": "nobody"}, "no arm 'nobody'"),
        ({"fallback": ["spair"]}, "no arm 'spair'; did you mean 'spare'"),
        ({"canary": {"arm": "main"}}, "is the champion; name another arm for the canary"),
        ({"canary": {"arm": "spare", "steps": [0.5, 0.2]}}, "must rise from above 0 to at most 1"),
    ],
)
def test_routes_that_make_no_sense(
    server: Behind, tmp_path: Path, routes: dict[str, Any], words: str
) -> None:
    with pytest.raises(RouteError, match=words), running(lambda: settings(tmp_path, server.url, **routes)):
        pass


# -- a sample ---------------------------------------------------------------------------------------


def test_attempts_that_failed_are_in_the_sample_with_their_request(server: Behind, tmp_path: Path) -> None:
    server.faults["main"] = "500"

    def load() -> ServeSettings:
        return settings(tmp_path, server.url, fallback=["spare"], server={"sample": 0.5})

    with running(load) as gateway:
        for number in range(5):
            messages = [{"role": "user", "content": f"question {number}"}]
            post(f"{gateway.url}/v1/chat/completions", {"model": "triage", "messages": messages})
        rows = kept(gateway, 10)
    words = {row.id: bool(row.input) for row in rows if row.role == "fallback"}
    attempts = {row.id.rpartition("-")[0]: row for row in rows if row.role == "champion"}
    assert len(words) == 5 and attempts.keys() == words.keys()
    for request, attempt in attempts.items():
        assert bool(attempt.input) == bool(attempt.error) == words[request]


def test_a_sample_keeps_the_words_of_some_and_the_facts_of_all(server: Behind, tmp_path: Path) -> None:
    def load() -> ServeSettings:
        return settings(tmp_path, server.url, shadow="spare", server={"sample": 0.3})

    with running(load) as gateway:
        for number in range(40):
            messages = [{"role": "user", "content": f"question {number}"}]
            post(f"{gateway.url}/v1/chat/completions", {"model": "triage", "messages": messages})
        rows = kept(gateway, 80)
        shown = get(f"{gateway.url}/v1/dashboard/triage")[1]
        latest = gateway.gateway.store.latest("triage", 5)
    assert [row.id for row in latest] == [row.id for row in rows[-5:]]
    with_words = {row.id for row in rows if row.copy_of is None and row.input}
    assert 1 <= len(with_words) <= 25  # of 40, each with .3: beyond it in one run of 30,000
    assert with_words == {row.copy_of for row in rows if row.copy_of is not None and row.output}
    for row in rows:
        assert row.status == 200 and row.input_tokens == 40 and row.cost_usd is not None
        assert row.input or (row.output, row.answer, row.messages, dict(row.parameters)) == (
            "",
            None,
            None,
            {},
        )
    assert shown["requests"] == 40 and {arm["requests"] for arm in shown["arms"]} == {40}
    assert {row["request_id"] for row in shown["disagreements"]} == with_words


# -- the dashboard ----------------------------------------------------------------------------------


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")
def test_the_dashboard_in_a_real_browser(server: Behind, tmp_path: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    with open_store(tmp_path / "capture.sqlite") as store:
        app = make_key(store, "both", ("call", "read"))
        state = {"step": "collect", "round": 1, "waits": "120 of 500 good examples", "facts": {}}
        store.set_state("loop/triage", state)
        store.set_state("drift/triage", {"words": ["share of novel inputs: 0.040"], "drifted": False})
    with (
        running(lambda: settings(tmp_path, server.url, shadow="spare", fallback=["spare"])) as gateway,
        playwright.sync_playwright() as driver,
    ):
        body = {"model": "triage", "messages": ASK}
        bearer = f"Bearer {app}"
        for number in range(6):
            request = {**body, "messages": [{"role": "user", "content": f"<b>question {number}</b>"}]}
            _, _, headers = post(f"{gateway.url}/v1/chat/completions", request, authorization=bearer)
        feedback = {"request_id": headers["x-request-id"], "score": 0.5}
        post(f"{gateway.url}/v1/feedback", feedback, authorization=bearer)
        kept(gateway, 12)
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1200, "height": 1000})
        faults: list[str] = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(gateway.url)
        page.wait_for_selector("#key-field:not([hidden])")
        page.fill("#key", app)
        page.press("#key", "Enter")
        page.wait_for_selector("#arms tr")
        rows = page.locator("#arms tr").all_inner_texts()
        assert rows[0].startswith("main\tchampion\t6\t0\t50.0%") and rows[1].startswith("spare\tshadow\t6")
        assert page.inner_text("#loop") == "Round 1, collect: waits for 120 of 500 good examples"
        assert page.get_attribute("#progress", "value") == "120"
        assert page.locator("#disagreements article").count() == 5  # one of six was judged
        assert "<b>question" in page.inner_text("#disagreements")
        page.locator("#disagreements article").first.get_by_role("button", name="this is right").last.click()
        until(lambda: page.locator("#disagreements article").count() == 4)
        corrected = [
            entry
            for entries in gateway.gateway.store.feedback([row.id for row in kept(gateway)]).values()
            for entry in entries
        ]
        assert [entry.correction for entry in corrected if entry.correction] == [
            "spare says billing, perhaps"
        ]
        assert "first start" in page.inner_text("#log") and not faults
        assert page.inner_text("#drift") == "share of novel inputs: 0.040"
        # what has nothing to say is not there; the tiles sum up
        assert not page.is_visible("#savings-section") and not page.is_visible("#canary-section")
        assert page.inner_text("#tile-requests") == "6" and page.inner_text("#tile-saved") == "not computed"
        assert not page.is_visible("#alarm") and "both" in page.inner_text("#keys")
        assert page.locator("#recent details").count() == 12  # copies for the shadow too
        page.fill("#search", "question 3")
        assert page.locator("#recent details").count() == 2
        page.locator("#recent summary").first.click()
        assert "40 tokens in" in page.inner_text("#recent details[open]")
        assert page.evaluate("document.documentElement.scrollWidth") <= 1200
        page.screenshot(path=str(tmp_path / "dashboard.png"), full_page=True)
        browser.close()
        assert get(f"{gateway.url}/v1/dashboard/triage")[0] == 401
