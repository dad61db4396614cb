"""Azure OpenAI: the user's own resource, its key, prices by the name of the deployment."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from servers import KEY, Fake, echo, serving

from tunepoint.cli.doctor import _keys
from tunepoint.errors import ModelError
from tunepoint.models.chat import Prompt
from tunepoint.models.endpoints import TextModel
from tunepoint.models.named_models import NamedModel, open_hosted
from tunepoint.models.prices import UNKNOWN_PRICE, call_price
from tunepoint.models.prompt_caches import prompt_cache
from tunepoint.models.providers import parse_model_name

NAME = "azure/gpt-4.1-mini"


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    with serving(Fake(echo, models=("gpt-4.1-mini",), key=KEY)) as running:
        monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", running.url)
        monkeypatch.setenv("AZURE_OPENAI_API_KEY", KEY)
        yield running


def test_a_deployment_answers_at_the_users_resource(fake: Fake) -> None:
    endpoint = open_hosted(NamedModel(NAME))
    prompt = Prompt("billing", labels=("billing", "alerts"), system=True)
    (reply,) = TextModel(endpoint).answer([prompt])
    endpoint.close()
    assert fake.calls[0]["model"] == "gpt-4.1-mini" and reply.usage.model == NAME


@pytest.mark.parametrize(
    "resource",
    [
        "https://r.openai.azure.com",
        "https://r.openai.azure.com/",
        "https://r.openai.azure.com/openai",
        " https://r.openai.azure.com/openai/v1/ ",
    ],
)
def test_the_address_is_read_as_people_write_it(resource: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", resource)
    address = parse_model_name(NAME)
    assert address.url == "https://r.openai.azure.com/openai/v1" and address.model == "gpt-4.1-mini"
    # the key of a resource may go to an address of another form too
    older = "https://r.openai.azure.com/openai/deployments/x?api-version=2024-10-21#x"
    assert parse_model_name(older, "AZURE_OPENAI_API_KEY").key_name == "AZURE_OPENAI_API_KEY"


@pytest.mark.parametrize("name", ["openai/gpt-5", "groq/llama"])
@pytest.mark.parametrize("key", ["AZURE_OPENAI_API_KEY", "AWS_BEARER_TOKEN_BEDROCK", "VERTEX_ACCESS_TOKEN"])
def test_a_clouds_key_goes_to_no_other_provider(name: str, key: str) -> None:
    with pytest.raises(ModelError, match=f"{key} is the key of"):
        parse_model_name(name, key)


@pytest.mark.parametrize("resource", ["r.openai.azure.com", "https://r.openai.azure.com/deployments/x?api=1"])
def test_another_form_of_the_resource_is_quoted(resource: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", resource)
    with pytest.raises(ModelError, match=r"as to https://RESOURCE.openai.azure.com \(it is '"):
        parse_model_name(NAME)


def test_without_a_resource_or_a_key_the_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_OPENAI_ENDPOINT", raising=False)
    with pytest.raises(ModelError, match="set AZURE_OPENAI_ENDPOINT, as to https://RESOURCE"):
        open_hosted(NamedModel(NAME))
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", KEY)
    check = next(check for check in _keys() if check.name == "azure")
    assert not check.ok and "set AZURE_OPENAI_ENDPOINT" in check.detail
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "https://r.openai.azure.com")
    monkeypatch.delenv("AZURE_OPENAI_API_KEY", raising=False)
    with pytest.raises(ModelError, match="set AZURE_OPENAI_API_KEY"):
        open_hosted(NamedModel(NAME))


def test_a_deployment_named_as_its_model_has_a_price_and_a_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_OPENAI_ENDPOINT", raising=False)  # a quote needs no resource
    price, openai = call_price(NAME), call_price("openai/gpt-4.1-mini")
    assert price is not None and openai is not None and price.rates() == openai.rates()
    assert prompt_cache(NAME) == prompt_cache("openai/gpt-4.1-mini") is not None
    other = call_price("azure/our-deployment")
    assert other is not None and other.source == UNKNOWN_PRICE
