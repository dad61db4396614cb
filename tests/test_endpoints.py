"""Chat models over the wire: a real client against a real server with real faults."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from servers import KEY, Fake, as_schema, echo, serving

from tunepoint import Task
from tunepoint.errors import BudgetReached, DataError, ModelError, StudyError, TaskError
from tunepoint.models.abilities import Abilities
from tunepoint.models.backoff import wait_after_rate_limit
from tunepoint.models.chat import Demonstration, Message, Prompt, Usage
from tunepoint.models.endpoints import CallSettings, Completion, Request, TextModel, allow_all
from tunepoint.models.openai import OpenAIEndpoint
from tunepoint.models.production_log import read_production_log
from tunepoint.models.providers import NO_KEY, parse_model_name
from tunepoint.models.recording import CallRecording, RecordedEndpoint

LABELS = ("billing", "fault")


def prompts(count: int) -> list[Prompt]:
    return [Prompt(f"message {i}\nbilling", "Route it.", LABELS, template_name="terse") for i in range(count)]


OPENED: list[OpenAIEndpoint] = []


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    while OPENED:
        OPENED.pop().close()


def endpoint(fake: Fake | None, name: str = "", **settings: object) -> OpenAIEndpoint:
    options = {"timeout": 0.6, "attempts": 3, "pause": 0.02, **settings}
    OPENED.append(OpenAIEndpoint(name or f"{fake.url}#tiny", **options))  # type: ignore
    return OPENED[-1]


@pytest.fixture
def fake() -> Iterator[Fake]:
    with serving(Fake(lambda messages, body: as_schema(echo(messages, body), body))) as running:
        yield running


def test_answers_come_in_order_with_usage_and_confidence(fake: Fake) -> None:
    fake.answer = lambda messages, body: as_schema(messages[-1]["content"].split()[-1], body)
    fake.latency = 0.02
    questions = [Prompt(f"x {LABELS[i % 2]}", "Route it.", LABELS, template_name="terse") for i in range(50)]
    replies = TextModel(endpoint(fake)).answer(questions)
    assert [reply.answer for reply in replies] == [LABELS[i % 2] for i in range(50)]
    usage = replies[0].usage
    assert usage.input_tokens > 0 and usage.cached_tokens == usage.input_tokens // 2
    assert (usage.output_tokens, usage.reasoning_tokens) == (2, 1)
    assert replies[0].confidence == 1.0  # the other token leads to no label
    assert fake.most_at_once > 10


def test_what_a_server_cannot_do_is_found_out_once(fake: Fake) -> None:
    fake.schema = fake.logprobs = False
    model = endpoint(fake)
    replies = TextModel(model).answer(prompts(20))
    assert {reply.answer for reply in replies} == {"billing"}
    assert model.abilities is not None and not model.abilities.schema and not model.abilities.logprobs
    assert len(fake.calls) == 22
    assert "response_format" not in fake.calls[-1] and "logprobs" not in fake.calls[-1]


@pytest.mark.parametrize("fault", ["429", "500", "cut", "bad json", "not a completion", "hang"])
def test_faults_of_the_moment_are_asked_again(fake: Fake, fault: str) -> None:
    fake.faults = {1: fault, 5: fault, 6: fault}
    model = endpoint(fake)
    replies = TextModel(model).answer(prompts(12))
    assert all(reply.answer == "billing" for reply in replies)
    assert fake.seen[fault] == 3 == sum(model.failures.values())


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("refusal", "refused: I cannot help"),
        ("empty", "the reply is empty"),
        ("length", "cut off before an answer"),
        ("long", "rejected .HTTP 400.: maximum context length"),
    ],
)
def test_one_bad_item_is_one_bad_reply(fake: Fake, fault: str, message: str) -> None:
    TextModel(model := endpoint(fake)).answer(prompts(1))
    fake.faults = {len(fake.calls): fault}
    reply, *rest = TextModel(model).answer(
        [Prompt("first\nbilling", "", LABELS, template_name="terse"), *prompts(3)]
    )
    bad = next(r for r in (reply, *rest) if not r.format_ok)
    assert bad.answer is None and bad.error is not None
    assert re.search(message, bad.error)
    assert sum(r.format_ok for r in (reply, *rest)) == 3


def test_an_item_that_always_fails_is_a_reply_and_is_not_recorded(fake: Fake, tmp_path: Path) -> None:
    recording = CallRecording(tmp_path / "calls.sqlite")
    model = endpoint(fake, concurrency=1)
    fake.faults = {2: "500", 3: "500", 4: "500"}
    recorded = RecordedEndpoint(model.name, recording, model)
    replies = TextModel(recorded).answer(prompts(4))
    assert [reply.format_ok for reply in replies] == [True, True, False, True]
    assert replies[2].error == "no answer after 3 attempts: HTTP 500"
    assert len(recording) == 3
    second = TextModel(recorded).answer(prompts(4))
    assert all(reply.format_ok for reply in second) and recorded.calls == 5


def test_a_dead_server_is_an_error_and_what_was_answered_is_kept(fake: Fake, tmp_path: Path) -> None:
    recording = CallRecording(tmp_path / "calls.sqlite")
    model = endpoint(fake, concurrency=2)
    recorded = TextModel(RecordedEndpoint(model.name, recording, model))
    recorded.answer(prompts(5))
    fake.always = "500"
    with pytest.raises(ModelError, match=r"no answer after 3 attempts .HTTP 500.*answers so far are kept"):
        recorded.answer(prompts(60))
    assert len(recording) == 5
    with pytest.raises(ModelError, match=r"no answer after 3 attempts .no "):
        TextModel(endpoint(None, "http://127.0.0.1:9/v1#tiny")).answer(prompts(3))


def test_systemic_faults_say_what_to_do_and_never_show_the_key(
    fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNEPOINT_API_KEY", KEY)
    fake.key = "another"
    with pytest.raises(
        ModelError, match=r"the key was refused .HTTP 401.; check TUNEPOINT_API_KEY"
    ) as caught:
        TextModel(endpoint(fake)).answer(prompts(3))
    assert KEY not in str(caught.value)
    fake.key = KEY
    with pytest.raises(ModelError, match="no model 'tinny'; did you mean 'tiny'"):
        TextModel(endpoint(fake, f"{fake.url}#tinny")).answer(prompts(3))
    fake.always = "quota"
    with pytest.raises(ModelError, match="quota is used up"):
        TextModel(endpoint(fake)).answer(prompts(3))
    fake.always = "429 long"
    with pytest.raises(ModelError, match=r"asks to wait 3600 s, .* at most 120 s"):
        TextModel(endpoint(fake)).answer(prompts(3))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (
            "no such thing",
            r"refused its first 8 requests and answered none; the last: HTTP 400: no such thing",
        ),
        ("bad key", r"the key was refused \(HTTP 400: API key not valid"),
    ],
)
def test_a_server_that_answers_nothing_ends_the_study_with_its_words(
    fake: Fake, fault: str, message: str, tmp_path: Path
) -> None:
    fake.always = fault
    recording = CallRecording(tmp_path / "calls.sqlite")
    recorded = RecordedEndpoint("m", recording, endpoint(fake, concurrency=2))
    with pytest.raises(ModelError, match=message):
        TextModel(recorded).answer(prompts(40))
    assert len(fake.calls) < 12 and len(recording) == 0  # nothing of it is taken for an answer later
    recording.close()


@pytest.mark.parametrize(("fault", "words"), [("moderated", "flagged"), ("too large", "too large")])
def test_what_one_request_is_refused_for_costs_one_item(fake: Fake, fault: str, words: str) -> None:
    fake.faults = {3: fault}
    replies = TextModel(endpoint(fake, concurrency=1)).answer(prompts(8))
    assert [reply.format_ok for reply in replies].count(False) == 1
    assert words in next(str(reply.error) for reply in replies if not reply.format_ok)


@pytest.mark.parametrize("fault", ["conflict", "error in 200", "as text"])
def test_what_passes_or_can_be_read_costs_nothing(fake: Fake, fault: str) -> None:
    fake.faults = {3: fault}
    replies = TextModel(endpoint(fake, concurrency=1)).answer(prompts(8))
    assert all(reply.answer == "billing" for reply in replies)
    assert any(reply.usage.estimated for reply in replies) == (fault == "as text")


def test_a_wrong_address_is_told_from_a_wrong_model(fake: Fake) -> None:
    root = fake.url.removesuffix("/v1")
    with pytest.raises(ModelError, match=r"does the address end in /v1\?"):
        TextModel(endpoint(None, f"{root}#tiny")).answer(prompts(1))
    (reply,) = TextModel(endpoint(None, f"{fake.url}/chat/completions?api-version=1#tiny")).answer(prompts(1))
    assert reply.answer == "billing"


def test_names_of_models(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parse_model_name("openai/gpt-5-mini").model == "gpt-5-mini"
    assert parse_model_name("openrouter/meta/llama").model == "meta/llama"
    assert parse_model_name("http://127.0.0.1:8000/v1#name").url == "http://127.0.0.1:8000/v1"
    with pytest.raises(ModelError, match="did you mean 'openai'"):
        parse_model_name("opnai/gpt")
    with pytest.raises(ModelError, match="names no model"):
        parse_model_name("http://127.0.0.1:8000/v1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ModelError, match="set OPENAI_API_KEY in the environment"):
        OpenAIEndpoint("openai/gpt-5-mini")


def test_a_key_goes_only_where_it_was_named_for(monkeypatch: pytest.MonkeyPatch, fake: Fake) -> None:
    monkeypatch.setenv("TUNEPOINT_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-theirs")
    monkeypatch.setenv("MINE", "sk-mine")
    for local in ("127.0.0.1", "localhost", "[::1]"):
        assert parse_model_name(f"http://{local}:8000/v1#m").key() == KEY
    for elsewhere in ("http://10.0.0.5/v1#m", "https://models.example/v1#m", "http://localhost.example/v1#m"):
        assert parse_model_name(elsewhere).key() == NO_KEY
    assert parse_model_name("https://models.example/v1#m", "MINE").key() == "sk-mine"
    assert parse_model_name("openai/gpt", "MINE").key() == "sk-mine"
    with pytest.raises(ModelError, match=r"OPENAI_API_KEY is the key of api\.openai\.com, and evil\.example"):
        parse_model_name("https://evil.example/v1#m", "OPENAI_API_KEY")
    with pytest.raises(ModelError, match=r"plain http would send MINE to models\.example unencrypted"):
        parse_model_name("http://models.example/v1#m", "MINE").key()
    with pytest.raises(ModelError, match="needs a key: set GONE"):
        parse_model_name("https://models.example/v1#m", "GONE").key()
    fake.key = "sk-mine"
    assert TextModel(endpoint(fake, key_env="MINE")).answer(prompts(1))[0].format_ok


def test_a_server_that_wants_a_key_and_got_none(monkeypatch: pytest.MonkeyPatch, fake: Fake) -> None:
    fake.key = KEY
    monkeypatch.setattr("tunepoint.models.providers.is_loopback", lambda url: False)
    with pytest.raises(ModelError, match="no key was sent: name the variable that holds it with key_env"):
        TextModel(endpoint(fake)).answer(prompts(1))


def test_a_server_says_how_long_to_wait_and_else_the_wait_doubles() -> None:
    assert wait_after_rate_limit("m", {"retry-after": "3"}, 0) == 3
    assert wait_after_rate_limit("m", {"retry-after-ms": "250", "retry-after": "1"}, 0) == 0.25
    for unreadable in ({}, {"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}, {"retry-after": "nan"}):
        assert 3 <= wait_after_rate_limit("m", unreadable, 3, pause=0.5) <= 4
    with pytest.raises(ModelError, match=r"m: the server asks to wait 121 s, .* at most 120 s"):
        wait_after_rate_limit("m", {"retry-after": "121"}, 0)


def test_a_cap_stops_before_the_call_that_would_pass_it(fake: Fake) -> None:
    sent = 0

    def allow(request: Request) -> bool:
        nonlocal sent
        if sent == 7:
            raise BudgetReached("enough")
        sent += 1
        return True

    arrived: dict[int, Completion] = {}
    requests = [Request((Message("user", f"{i} billing"),)) for i in range(30)]
    with pytest.raises(BudgetReached, match="enough"):
        endpoint(fake, concurrency=3).complete(requests, arrived.__setitem__, allow)
    assert len(fake.calls) == len(arrived) == 7


def test_nothing_is_asked_twice_and_a_recording_replays_alone(fake: Fake, tmp_path: Path) -> None:
    recording = CallRecording(tmp_path / "calls.sqlite")
    model = endpoint(fake)
    first = TextModel(RecordedEndpoint(model.name, recording, model)).answer([*prompts(10), *prompts(10)])
    assert len(fake.calls) == 10 == len(recording)
    recording.close()
    alone = RecordedEndpoint(model.name, CallRecording(tmp_path / "calls.sqlite"), None)
    assert TextModel(alone).answer([*prompts(10), *prompts(10)]) == first
    with pytest.raises(ModelError, match="1 of 11 calls are not in"):
        TextModel(alone).answer(prompts(11))


def test_recordings_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "calls.sqlite").write_text("not a database " * 100)
    with pytest.raises(StudyError, match="is not a recording of calls"):
        CallRecording(tmp_path / "calls.sqlite")


def test_keys_differ_with_any_part_of_the_call() -> None:
    base = Request((Message("user", "a"),))
    others = [
        Request((Message("user", "b"),)),
        Request((Message("system", "a"),)),
        Request((Message("user", "a"),), temperature=0.5),
        Request((Message("user", "a"),), sample=1),
        Request((Message("user", "a"),), schema={"type": "object"}),
    ]
    keys = {base.key("m"), base.key("n"), *(other.key("m") for other in others)}
    assert len(keys) == 7 and base.key("m") == Request((Message("user", "a"),)).key("m")


def test_logs_of_another_system(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(
        '{"item": 7, "output": "billing", "input_tokens": 3}\n{"input": "hi ", "output": "fault"}\n'
    )
    log = read_production_log(path, "in production")
    output = log.output_for("7", "whatever")
    assert output is not None and output.usage == Usage("in production", input_tokens=3)
    assert log.output_for("8", "hi") is not None and log.output_for("8", "other") is None
    for text, message in (
        ('{"output": "x"}\n', "log.jsonl:1: has neither item nor input"),
        ('{"item": 1}\n', "log.jsonl:1: output: field required"),
        ("", "the log is empty"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=message):
            read_production_log(path, "x")


def test_usage_adds_up() -> None:
    total = Usage("m", 1, 2, 3, 4, 0.5) + Usage("m", 10, 20, 30, 40, 5.0)
    assert total == Usage("m", 11, 22, 33, 44, 5.5, 2)
    assert Demonstration("a", "b").target == "b"
    assert allow_all(Request(()))


# -- how a model is asked -----------------------------------------------------------------------------


def test_settings_of_a_model_are_sent_and_votes_keep_their_temperature(fake: Fake) -> None:
    parameters = (("reasoning_effort", "low"), ("top_p", 0.5))
    settings = CallSettings(temperature=0.3, max_output_tokens=77, seed=5, parameters=parameters)
    model = TextModel(endpoint(fake), settings=settings)
    first, second = prompts(2)
    model.answer([first, replace(second, temperature=0.7, sample=2)])
    usual, voting = sorted(fake.calls, key=lambda body: body["temperature"])
    assert (usual["temperature"], usual["seed"], usual["max_completion_tokens"]) == (0.3, 5, 77)
    assert (usual["reasoning_effort"], usual["top_p"]) == ("low", 0.5)
    assert (voting["temperature"], voting["seed"]) == (0.7, 7)


def test_a_setting_that_a_server_refuses_is_left_out_once_and_noted(fake: Fake) -> None:
    def refusing(body: dict[str, Any]) -> str | None:
        return "Unsupported parameter: 'reasoning_effort'" if "reasoning_effort" in body else None

    fake.refusing = refusing
    opened = endpoint(fake)
    settings = CallSettings(parameters=(("reasoning_effort", "low"), ("top_p", 0.5)))
    replies = TextModel(opened, settings=settings).answer(prompts(4))
    assert all(reply.format_ok for reply in replies)
    assert opened.abilities is not None and opened.abilities.refused == ("reasoning_effort",)
    sent = [("reasoning_effort" in body, "top_p" in body) for body in fake.calls]
    assert sent == [(True, True)] + [(False, True)] * 4


def test_calls_without_settings_keep_the_keys_of_older_recordings() -> None:
    request = Request((Message("user", "x"),))
    content = {
        "messages": [{"role": "user", "content": "x"}],
        "max_output_tokens": 512,
        "temperature": 0.0,
        "sample": 0,
        "schema": None,
        "choices": [],
    }
    old = hashlib.sha256(json.dumps(["m", content], sort_keys=True).encode()).hexdigest()
    assert request.key("m") == old
    assert replace(request, parameters=(("top_p", 0.5),)).key("m") != old


def test_settings_are_part_of_a_study_s_identity_and_a_model_here_takes_few() -> None:
    def task(**settings: Any) -> Task:
        return Task.parse({"name": "t", "models": [{"name": "openai/x", **settings}]})

    assert task().trials_fingerprint() == task(price={"input": 1, "output": 1}).trials_fingerprint()
    others: list[dict[str, Any]] = [{"temperature": 0.5}, {"reasoning_effort": "low"}, {"seed": 3}]
    others.append({"extra": {"verbosity": "low"}})
    assert len({task(**settings).trials_fingerprint() for settings in ({}, *others)}) == 5
    with pytest.raises(TaskError, match="top_p: embedded:x runs on this machine, and takes temperature"):
        Task.parse({"name": "t", "models": [{"name": "embedded:x", "top_p": 0.5}]})


@pytest.mark.parametrize(
    ("words", "refused", "temperature"),
    [
        ("This model does not support the effort parameter.", ("reasoning_effort",), True),
        ("`temperature` and `top_p` cannot both be specified", (), False),
        ("response_format json_schema is not supported", (), True),
        ("Unknown parameter: 'n'", ("n",), True),
    ],
)
def test_the_parameter_that_a_refusal_names_is_the_one_left_out(
    words: str, refused: tuple[str, ...], temperature: bool
) -> None:
    left = Abilities().without(words, ["n", "reasoning_effort", "top_p"])
    assert left is not None and (left.refused, left.temperature) == (refused, temperature)
