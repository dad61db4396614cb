"""Claude on Amazon Bedrock and on Google Cloud: addresses, keys, prices, caches and faults of each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from anthropic_server import KEY, FakeAnthropic
from servers import on_a_port
from test_anthropic import LABELS, prompts, right, shown
from test_tuned_study import routing

from tunepoint import run
from tunepoint.cli.doctor import _keys
from tunepoint.errors import MissingExtra, ModelError
from tunepoint.models.chat import Usage
from tunepoint.models.clouds import claude
from tunepoint.models.endpoints import TextModel
from tunepoint.models.named_models import NamedModel, open_hosted
from tunepoint.models.prices import call_price
from tunepoint.models.prompt_caches import PromptCache, prompt_cache
from tunepoint.models.providers import parse_model_name

BEDROCK, VERTEX = "bedrock/us.anthropic.claude-haiku-4-5-20251001-v1:0", "vertex/claude-haiku-4-5@20251001"
INVOKE = "/model/{model}/invoke"
PREDICT = "/v1/projects/p/locations/europe-west1/publishers/anthropic/models/{model}:rawPredict"


@dataclass
class Cloud:
    """A cloud in front of the server that speaks messages."""

    claude: FakeAnthropic
    models: tuple[str, ...]
    faults: dict[int, tuple[int, dict[str, Any]]] = field(default_factory=dict)
    """Number of the call -> status and body instead of an answer."""
    keys: list[str] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)

    async def invoke(self, request: web.Request) -> web.Response:
        body, number = await request.json(), len(self.calls)
        self.calls.append(body)
        self.keys.append(request.headers.get("Authorization", ""))
        if number in self.faults:
            status, words = self.faults[number]
            return web.json_response(words, status=status)
        if request.match_info["model"] not in self.models:
            return web.json_response({"message": "The provided model identifier is invalid."}, status=404)
        assert "model" not in body and body.pop("anthropic_version")
        return web.json_response(self.claude.reply({**body, "model": "claude-test-1"}))


@contextmanager
def serving(cloud: Cloud, path: str) -> Iterator[str]:
    app = web.Application()
    app.router.add_post(path, cloud.invoke)
    with on_a_port(app) as url:
        yield url


@pytest.fixture
def bedrock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    cloud = Cloud(FakeAnthropic(right), (BEDROCK.partition("/")[2],))
    with serving(cloud, INVOKE) as url:
        monkeypatch.setenv("ANTHROPIC_BEDROCK_BASE_URL", url)
        monkeypatch.setenv("AWS_REGION", "us-east-1")
        monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", KEY)
        yield cloud


@pytest.fixture
def vertex(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    cloud = Cloud(FakeAnthropic(right), (VERTEX.partition("/")[2],))
    with serving(cloud, PREDICT) as url:
        monkeypatch.setenv("ANTHROPIC_VERTEX_BASE_URL", f"{url}/v1")
        monkeypatch.setenv("ANTHROPIC_VERTEX_PROJECT_ID", "p")
        monkeypatch.setenv("CLOUD_ML_REGION", "europe-west1")
        monkeypatch.setenv("VERTEX_ACCESS_TOKEN", KEY)
        yield cloud


@contextmanager
def opened(name: str, **fields: Any) -> Iterator[TextModel]:
    endpoint = open_hosted(NamedModel(name, concurrency=1, **fields))
    endpoint.attempts = 2
    endpoint._pause = 0.01
    try:
        yield TextModel(endpoint)
    finally:
        endpoint.close()


# -- calls ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [BEDROCK, VERTEX])
def test_labels_are_confined_and_the_start_is_read_from_the_cache(
    name: str, bedrock: Cloud, vertex: Cloud
) -> None:
    cloud = bedrock if name == BEDROCK else vertex
    with opened(name) as model:
        replies = model.answer(prompts(6, demonstrations=shown(4)))
    assert [reply.answer for reply in replies] == ["billing", "device_setup"] * 3
    assert cloud.keys == [f"Bearer {KEY}"] * 6
    assert cloud.calls[-1]["output_config"]["format"]["schema"]["properties"]["answer"]["enum"] == list(
        LABELS
    )
    assert [reply.usage.written_tokens > 0 for reply in replies] == [False, True, False, False, False, False]
    assert [reply.usage.cached_tokens > 0 for reply in replies] == [False, False, True, True, True, True]


@pytest.mark.parametrize(
    ("status", "body"),
    [(429, {"message": "Too many requests, please wait"}), (503, {"Message": "Service unavailable"})],
)
def test_faults_of_the_moment_are_asked_again(status: int, body: dict[str, str], bedrock: Cloud) -> None:
    bedrock.faults = {0: (status, body)}
    with opened(BEDROCK) as model:
        assert model.answer(prompts(2))[0].answer == "billing"
    assert len(bedrock.calls) == 3


def test_what_a_cloud_does_not_take_is_left_out_from_then_on(bedrock: Cloud) -> None:
    bedrock.faults = {0: (400, {"message": "output_config.format: Extra inputs are not permitted"})}
    with opened(BEDROCK) as model:
        assert model.answer(prompts(3))[2].answer == "billing"
    assert ["output_config" in call for call in bedrock.calls] == [True, False, False, False]


@pytest.mark.parametrize(
    ("status", "words", "expected"),
    [
        (
            403,
            "You don't have access to the model with the specified model ID.",
            "not allowed .*access to the",
        ),
        (401, "The security token included in the request is invalid", "check AWS_BEARER_TOKEN_BEDROCK"),
        (404, "The provided model identifier is invalid.", "is the model offered in this region"),
    ],
)
def test_faults_of_every_call_end_the_study(status: int, words: str, expected: str, bedrock: Cloud) -> None:
    bedrock.faults = dict.fromkeys(range(9), (status, {"message": words}))
    with opened(BEDROCK) as model, pytest.raises(ModelError, match=expected) as error:
        model.answer(prompts(3))
    assert KEY not in str(error.value) and len(bedrock.calls) == 1


# -- keys, regions, credentials -------------------------------------------------------------------


def test_a_region_and_a_project_are_needed(
    bedrock: Cloud, vertex: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_REGION")
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    with pytest.raises(ModelError, match="needs a region: set AWS_REGION"):
        open_hosted(NamedModel(BEDROCK))
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    open_hosted(NamedModel(BEDROCK)).close()
    monkeypatch.delenv("CLOUD_ML_REGION")
    with pytest.raises(ModelError, match="set CLOUD_ML_REGION"):
        open_hosted(NamedModel(VERTEX))


@pytest.mark.parametrize(
    ("name", "key", "package"),
    [(BEDROCK, "AWS_BEARER_TOKEN_BEDROCK", "boto3"), (VERTEX, "VERTEX_ACCESS_TOKEN", "google-auth")],
)
def test_without_a_key_the_clouds_own_package_is_needed(
    name: str, key: str, package: str, bedrock: Cloud, vertex: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(key)
    monkeypatch.setattr(claude, "_is_installed", lambda name: False)
    with pytest.raises(MissingExtra, match=f"without {key} needs {package}"):
        open_hosted(NamedModel(name))
    assert not claude._is_installed("no_such_package.inner")


def test_no_credentials_are_an_error_that_says_so(bedrock: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(BEDROCK) as model:
        client = model.endpoint.wire._client  # type: ignore[attr-defined]

        async def refuse(*_: object, **__: object) -> None:
            raise RuntimeError("Could not resolve AWS credentials from session")

        monkeypatch.setattr(client, "post", refuse)
        with pytest.raises(ModelError, match="no valid credentials: Could not resolve AWS credentials"):
            model.answer(prompts(3))


def test_a_key_of_the_users_own_and_the_same_key_for_the_compatible_address(
    bedrock: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_BEARER_TOKEN_BEDROCK")
    monkeypatch.setenv("OUR_KEY", "sk-ours")
    with opened(BEDROCK, key_env="OUR_KEY") as model:
        model.answer(prompts(1))
    assert bedrock.keys == ["Bearer sk-ours"]
    compatible = "https://bedrock-runtime.us-east-1.amazonaws.com/openai/v1#openai.gpt-oss-20b-1:0"
    assert parse_model_name(compatible, "AWS_BEARER_TOKEN_BEDROCK").key_name == "AWS_BEARER_TOKEN_BEDROCK"


def test_doctor_says_which_keys_are_set_and_that_others_do(bedrock: Cloud) -> None:
    checks = {check.name: check for check in _keys()}
    assert checks["bedrock"].ok and checks["bedrock"].detail == "AWS_BEARER_TOKEN_BEDROCK is set"
    assert "other credentials do as well" in checks["vertex"].detail


# -- money ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [BEDROCK, VERTEX])
def test_prices_and_caches_are_known(name: str) -> None:
    price, cache = call_price(name), prompt_cache(name)
    assert price is not None and price.source.startswith("genai-prices")
    direct = call_price("anthropic/claude-haiku-4-5")
    assert direct is not None
    usage = Usage(name, 10_000, 5_000, 100)
    assert 1 <= price.dollars(usage) / direct.dollars(usage) < 1.2  # a region's surcharge at most
    assert cache is not None and cache == prompt_cache("anthropic/claude-haiku-4-5") and cache.asked_for


def test_a_study_of_claude_on_bedrock(bedrock: Cloud, tmp_path: Path) -> None:
    entry = {
        "name": BEDROCK,
        "styles": ["zero-shot"],
        "cache": PromptCache(minimum_tokens=16, asked_for=True),
    }
    task = routing(tmp_path, 60, models=[entry], search={"calls": 0})
    result = run(task, out=tmp_path / "study")
    manifest = json.loads((tmp_path / "study" / "manifest.json").read_text())
    assert manifest["models"][BEDROCK]["price"].startswith("genai-prices")
    assert manifest["calls_usd"] > 0 and result.decision.finalists
