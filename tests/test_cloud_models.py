"""Gemini on Google Cloud and the models behind Bedrock's Converse: requests, replies, counts and faults."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from cloud_servers import KEY, FakeAmazon, FakeCloud, FakeGoogle, in_the_cloud

from tunepoint.errors import MissingExtra, ModelError
from tunepoint.models.chat import Demonstration, Message, Prompt
from tunepoint.models.endpoints import CUT_OFF, CallSettings, Completion, Request, TextModel, allow_all
from tunepoint.models.hosted_endpoint import HostedEndpoint
from tunepoint.models.named_models import NamedModel, open_hosted
from tunepoint.models.prices import UNKNOWN_PRICE, call_price
from tunepoint.models.prompt_caches import prompt_cache

GEMINI, NOVA = "vertex/gemini-2.5-flash", "bedrock/us.amazon.nova-lite-v1:0"
TUNED = "vertex/ft:gemini-2.5-flash:projects/p/locations/europe-west4/endpoints/100"
DEPLOYED = "bedrock/arn:aws:bedrock:us-east-1:123456789012:custom-model-deployment/abc"
LABELS = ("billing", "fault")


@pytest.fixture(params=[GEMINI, NOVA])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def cloud(name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCloud]:
    monkeypatch.delenv("AWS_BEARER_TOKEN_BEDROCK", raising=False)
    fake = FakeGoogle() if name == GEMINI else FakeAmazon()
    with in_the_cloud(fake, monkeypatch):
        yield fake


@contextmanager
def opened(name: str, **fields: Any) -> Iterator[HostedEndpoint]:
    endpoint = open_hosted(NamedModel(name, concurrency=2, **fields))
    endpoint.attempts, endpoint._pause = 2, 0.01
    try:
        yield endpoint
    finally:
        endpoint.close()


def completed(endpoint: HostedEndpoint, **fields: Any) -> Completion:
    done: dict[int, Completion] = {}
    request = Request((Message("system", "Be brief."), Message("user", "message 1")), **fields)
    endpoint.complete([request], done.__setitem__, allow_all)
    return done[0]


def test_labels_are_confined_and_demonstrations_are_turns(name: str, cloud: FakeCloud) -> None:
    cloud.answer = lambda text: '{"answer": "billing"}'
    shown = (Demonstration("message 0", "fault"),)
    prompt = Prompt("message 1", instruction="Route it.", labels=LABELS, demonstrations=shown, system=True)
    with opened(name) as endpoint:
        (reply,) = TextModel(endpoint).answer([prompt])
    (body,) = cloud.asked
    assert reply.answer == "billing" and reply.usage.model == name
    if name == GEMINI:
        assert body["model"].endswith("publishers/google/models/gemini-2.5-flash")
        assert "Route it." in body["systemInstruction"]["parts"][0]["text"]
        assert [turn["role"] for turn in body["contents"]] == ["user", "model", "user"]
        config = body["generationConfig"]
        assert config["temperature"] == 0 and config["seed"] == 0 and config["maxOutputTokens"] > 0
        assert config["responseMimeType"] == "application/json"
        assert config["responseJsonSchema"]["properties"]["answer"]["enum"] == list(LABELS)
    else:
        assert body["model"] == "us.amazon.nova-lite-v1:0"
        assert "Route it." in body["system"][0]["text"]
        assert [turn["role"] for turn in body["messages"]] == ["user", "assistant", "user"]
        assert body["inferenceConfig"]["temperature"] == 0 and body["inferenceConfig"]["maxTokens"] > 0
        schema = body["outputConfig"]["textFormat"]["structure"]["jsonSchema"]["schema"]
        assert '"enum": ["billing", "fault"]' in schema


def test_tokens_are_counted_whatever_the_cloud_leaves_out(name: str, cloud: FakeCloud) -> None:
    with opened(name) as endpoint:
        usage = completed(endpoint).usage
    if name == GEMINI:  # thoughts are billed as output, cached tokens are part of the input
        assert (usage.input_tokens, usage.cached_tokens, usage.written_tokens) == (50, 20, 0)
        assert (usage.output_tokens, usage.reasoning_tokens) == (10, 7)
    else:  # cached tokens are beside the input
        assert (usage.input_tokens, usage.cached_tokens, usage.written_tokens) == (50, 20, 0)
        assert (usage.output_tokens, usage.reasoning_tokens) == (4, 0)
    assert usage.seconds is not None and usage.seconds > 0


def test_a_start_that_comes_again_is_marked_for_novas_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeAmazon()
    with in_the_cloud(fake, monkeypatch):
        for name in (NOVA, DEPLOYED):
            with opened(name) as endpoint:
                for _ in range(2):
                    completed(endpoint)
    marks = [any("cachePoint" in block for block in asked["system"]) for asked in fake.asked]
    assert marks == [False, True, False, False], "a start is written once it has come before"


@pytest.mark.parametrize(
    ("parameters", "google", "amazon"),
    [
        ({"top_p": 0.5}, ("topP", 0.5), ("inferenceConfig", {"topP": 0.5})),
        ({"top_k": 20}, ("topK", 20), ("additionalModelRequestFields", {"top_k": 20})),
        (
            {"reasoning_effort": "low"},
            ("thinkingConfig", {"thinking_level": "LOW"}),
            ("outputConfig", {"effort": "low"}),
        ),
        (
            {"reasoning_effort": "none"},
            ("thinkingConfig", {"thinking_budget": 0}),
            ("outputConfig", {"effort": "none"}),
        ),
    ],
)
def test_the_tasks_parameters_go_along(
    name: str,
    cloud: FakeCloud,
    parameters: dict[str, Any],
    google: tuple[str, Any],
    amazon: tuple[str, dict[str, Any]],
) -> None:
    settings = CallSettings(parameters=tuple(parameters.items()))
    with opened(name) as endpoint:
        TextModel(endpoint, settings=settings).answer([Prompt("message 1", labels=LABELS)])
    (asked,) = cloud.asked
    if name == GEMINI:
        given = asked["generationConfig"][google[0]]
        assert given == google[1] or {k.replace("_", "").lower() for k in given} == {
            k.replace("_", "") for k in google[1]
        }
    else:
        assert amazon[1].items() <= asked[amazon[0]].items()


def test_a_parameter_that_google_does_not_have_is_left_out_and_noted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake = FakeGoogle()
    settings = CallSettings(parameters=(("enable_magic", True),))
    with in_the_cloud(fake, monkeypatch), opened(GEMINI) as endpoint:
        (reply,) = TextModel(endpoint, settings=settings).answer([Prompt("message 1", labels=LABELS)])
        assert endpoint.abilities is not None and endpoint.abilities.refused == ("enable_magic",)
    assert reply.answer == "billing" and len(fake.asked) == 1


def test_filters_and_limits_are_errors_of_the_answer(name: str, cloud: FakeCloud) -> None:
    with opened(name) as endpoint:
        cloud.answer = lambda text: ""
        if isinstance(cloud, FakeGoogle):
            cloud.finish = "MAX_TOKENS"
        elif isinstance(cloud, FakeAmazon):
            cloud.stop = "max_tokens"
        assert completed(endpoint).error == CUT_OFF
        if isinstance(cloud, FakeGoogle):
            cloud.finish = "SAFETY"
        elif isinstance(cloud, FakeAmazon):
            cloud.stop = "content_filtered"
        assert "filter" in str(completed(endpoint).error)
        if isinstance(cloud, FakeGoogle):
            cloud.blocked = True
            assert "filter" in str(completed(endpoint).error)


@pytest.mark.parametrize("fault", [429, 500])
def test_passing_faults_are_tried_again(name: str, cloud: FakeCloud, fault: int) -> None:
    cloud.faults["model"] = [fault]
    with opened(name) as endpoint:
        assert completed(endpoint).text == "billing"
    assert cloud.calls["model"] == 2


@pytest.mark.parametrize(
    ("fault", "words"),
    [(401, "the key was refused"), (403, "not allowed"), (404, "is the model offered in this")],
)
def test_lasting_faults_end_the_calls_and_show_no_key(
    name: str, cloud: FakeCloud, fault: int, words: str
) -> None:
    cloud.faults["model"] = [fault]
    with opened(name) as endpoint, pytest.raises(ModelError, match=words) as caught:
        completed(endpoint)
    assert KEY not in str(caught.value) and cloud.calls["model"] == 1


def test_a_refused_schema_is_left_out(name: str, cloud: FakeCloud) -> None:
    words = cloud.words_for
    cloud.words_for = lambda status: {  # type: ignore[method-assign]
        "error": {"code": status, "message": "json_schema is not supported", "status": "INVALID_ARGUMENT"},
        "message": "json_schema is not supported",
    }
    cloud.faults["model"] = [400]
    with opened(name) as endpoint:
        (reply,) = TextModel(endpoint).answer([Prompt("message 1", labels=LABELS)])
        assert endpoint.abilities is not None and not endpoint.abilities.schema
    assert reply.answer == "billing" and words(400)


def test_nobody_listens(name: str, cloud: FakeCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("GOOGLE_VERTEX_BASE_URL", "AWS_ENDPOINT_URL"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    with opened(name) as endpoint, pytest.raises(ModelError, match=r"no connection|broken reply"):
        completed(endpoint)


def test_what_was_tuned_answers_at_its_own_address(monkeypatch: pytest.MonkeyPatch) -> None:
    google, amazon = FakeGoogle(), FakeAmazon()
    with in_the_cloud(google, monkeypatch), opened(TUNED) as endpoint:
        assert completed(endpoint).text == "billing"
    with in_the_cloud(amazon, monkeypatch), opened(DEPLOYED) as endpoint:
        assert completed(endpoint).text == "billing"
    assert google.asked[0]["model"] == TUNED.partition("gemini-2.5-flash:")[2]
    assert amazon.asked[0]["model"] == DEPLOYED.partition("/")[2]


def test_caches_are_those_of_the_maker() -> None:
    google = prompt_cache("google/gemini-2.5-flash")
    assert prompt_cache(GEMINI) == prompt_cache(TUNED) == google is not None
    nova = prompt_cache(NOVA)
    assert nova is not None and nova.asked_for and nova.models == ("amazon/nova-*",)
    assert prompt_cache(DEPLOYED) is None and prompt_cache("bedrock/meta.llama3-3-70b-instruct-v1:0") is None


def test_prices() -> None:
    tuned, base, google = (call_price(name) for name in (TUNED, GEMINI, "google/gemini-2.5-flash"))
    assert tuned and base and google and tuned.rates() == base.rates() == google.rates()
    nova, unknown = call_price(NOVA), call_price(DEPLOYED)
    assert nova is not None and nova.rates()["input"] > 0
    assert unknown is not None and unknown.source == UNKNOWN_PRICE


@pytest.mark.parametrize(
    ("name", "variable", "words"),
    [
        (GEMINI, "GOOGLE_CLOUD_PROJECT", "set GOOGLE_CLOUD_PROJECT"),
        (NOVA, "AWS_REGION", "set AWS_REGION"),
    ],
)
def test_a_missing_place_is_named(
    name: str, variable: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeGoogle() if name == GEMINI else FakeAmazon()
    for other in ("ANTHROPIC_VERTEX_PROJECT_ID", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(other, raising=False)
    with in_the_cloud(fake, monkeypatch):
        monkeypatch.delenv(variable)
        with pytest.raises(ModelError, match=words):
            open_hosted(NamedModel(name))


def test_another_variable_cannot_hold_bedrocks_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    with pytest.raises(ModelError, match="Amazon's client reads AWS_BEARER_TOKEN_BEDROCK"):
        open_hosted(NamedModel(NOVA, key_env="MY_KEY"))


@pytest.mark.parametrize(("name", "package"), [(GEMINI, "google.genai"), (NOVA, "boto3")])
def test_without_its_client_the_extra_is_named(
    name: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, package, None)
    for ours in ("amazon", "converse", "google", "gemini"):
        monkeypatch.delitem(sys.modules, f"tunepoint.models.clouds.{ours}", raising=False)
    with pytest.raises(MissingExtra, match=r"tunepoint\[(vertex|bedrock)\]"):
        open_hosted(NamedModel(name))
