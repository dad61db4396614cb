"""Claude by Anthropic's own API: caching, structured outputs, usage, faults, and a study of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from anthropic_server import KEY, FakeAnthropic, serving_anthropic
from test_tuned_study import routing

from tunepoint import run
from tunepoint.errors import ModelError
from tunepoint.models.abilities import Abilities
from tunepoint.models.anthropic import AnthropicEndpoint
from tunepoint.models.chat import Demonstration, Message, Prompt, Usage
from tunepoint.models.endpoints import CUT_OFF, Request, TextModel
from tunepoint.models.messages_api import SeenStarts, message_body, read_message
from tunepoint.models.named_models import NamedModel, open_hosted
from tunepoint.models.prices import CallPrice, call_price
from tunepoint.models.prompt_caches import PromptCache

NAME = "anthropic/claude-test-1"
LABELS = ("billing", "device_setup")
LONG = "Route the message to the queue that answers it. " * 12


def right(text: str) -> str:
    return "billing" if "invoice" in text else "device_setup"


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeAnthropic]:
    with serving_anthropic(FakeAnthropic(right)) as running:
        monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
        monkeypatch.setenv("ANTHROPIC_BASE_URL", running.url)
        yield running


@pytest.fixture
def endpoint(fake: FakeAnthropic) -> Iterator[AnthropicEndpoint]:
    opened = AnthropicEndpoint(NAME, attempts=2, pause=0.01, concurrency=1)
    yield opened
    opened.close()


def prompts(count: int, **fields: Any) -> list[Prompt]:
    words = ["invoice", "pairing"]
    known: dict[str, Any] = {"instruction": LONG, "labels": LABELS, "system": True, **fields}
    return [Prompt(f"{words[i % 2]} {i}", **known) for i in range(count)]


def shown(count: int) -> tuple[Demonstration, ...]:
    return tuple(Demonstration(f"invoice {i} of this month", "billing") for i in range(count))


# -- calls ----------------------------------------------------------------------------------------


def test_labels_are_confined_and_the_start_is_read_from_the_cache(
    fake: FakeAnthropic, endpoint: AnthropicEndpoint
) -> None:
    replies = TextModel(endpoint).answer(prompts(6, demonstrations=shown(4)))
    assert [reply.answer for reply in replies] == ["billing", "device_setup"] * 3
    body = fake.calls[-1]
    assert body["output_config"]["format"]["schema"]["properties"]["answer"]["enum"] == list(LABELS)
    assert [message["role"] for message in body["messages"]] == ["user", "assistant"] * 4 + ["user"]
    assert body["system"][0]["text"].startswith("Route") and "logprobs" not in body and "seed" not in body
    # the first call does not know that its start comes again, the second writes it, the others read it
    usages = [reply.usage for reply in replies]
    assert [usage.written_tokens > 0 for usage in usages] == [False, True, False, False, False, False]
    assert [usage.cached_tokens > 0 for usage in usages] == [False, False, True, True, True, True]
    assert len({usage.input_tokens for usage in usages}) == 1  # read and written tokens are part of it
    assert (usages[0].output_tokens, usages[0].reasoning_tokens) == (7, 2)


def test_what_every_input_changes_is_not_written_into_the_cache(
    fake: FakeAnthropic, endpoint: AnthropicEndpoint
) -> None:
    retrieved = [
        Prompt(f"invoice {i}", LONG, LABELS, demonstrations=shown(6)[i : i + 2], system=True)
        for i in range(4)
    ]
    usages = [reply.usage for reply in TextModel(endpoint).answer(retrieved)]
    marked = [[i for i, block in enumerate(blocks(body)) if "cache_control" in block] for body in fake.calls]
    assert marked == [[], [0], [0], [0]]  # the instruction alone
    assert [usage.cached_tokens > 0 for usage in usages] == [False, False, True, True]


def blocks(body: dict[str, Any]) -> list[dict[str, Any]]:
    return [*body.get("system", ()), *(message["content"][0] for message in body["messages"])]


def test_a_start_is_remembered_for_a_while_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunepoint.models.messages_api.MAX_REMEMBERED_STARTS", 2)
    now = [0.0]
    starts, question = SeenStarts(lambda: now[0]), Message("user", "?")
    first, second = ([Message("system", text), question] for text in "ab")
    assert [starts.cached_messages(m) for m in (first, first, second, first)] == [0, 1, 0, 1]
    third = [Message("system", "c"), question]
    assert [starts.cached_messages(m) for m in (third, second)] == [0, 0]  # the second was forgotten
    assert starts.cached_messages([question]) == 0
    now[0] += 301  # by now the provider has dropped it
    assert [starts.cached_messages(second), starts.cached_messages(second)] == [0, 1]


def test_a_parameter_that_a_model_refuses_is_left_out_from_then_on(
    fake: FakeAnthropic, endpoint: AnthropicEndpoint
) -> None:
    fake.schema = fake.temperature = False
    fake.answer = lambda text: "billing"
    replies = TextModel(endpoint).answer(prompts(3))
    assert [reply.answer for reply in replies] == ["billing"] * 3
    assert endpoint.abilities is not None and not (
        endpoint.abilities.schema or endpoint.abilities.temperature
    )
    assert len(fake.calls) == 5


def test_faults_of_the_moment_are_tried_again(fake: FakeAnthropic, endpoint: AnthropicEndpoint) -> None:
    fake.faults = {0: "529", 2: "429", 4: "500"}
    assert all(reply.format_ok for reply in TextModel(endpoint).answer(prompts(3)))
    assert endpoint.failures == {"HTTP 529": 1, "HTTP 429": 1, "HTTP 500": 1}


def test_an_answer_that_is_none_says_why(fake: FakeAnthropic, endpoint: AnthropicEndpoint) -> None:
    fake.faults = {1: "refusal", 2: "max_tokens", 3: "too long"}
    _, refused, cut, long = TextModel(endpoint).answer(prompts(4))
    assert refused.error == "refused by the content filter" and cut.error == CUT_OFF
    assert "prompt is too long" in str(long.error) and not long.format_ok
    assert refused.usage.output_tokens == 7  # it was billed


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"faults": {0: "no credit"}}, "the account has no credit"),
        ({"models": ("claude-other",)}, "no model 'claude-test-1'"),
    ],
)
def test_what_every_call_would_meet_ends_the_calls(
    fake: FakeAnthropic, endpoint: AnthropicEndpoint, change: dict[str, Any], words: str
) -> None:
    vars(fake).update(change)
    with pytest.raises(ModelError, match=words):
        TextModel(endpoint).answer(prompts(3))


def test_a_wrong_key_is_named_and_never_quoted(fake: FakeAnthropic, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-wrong-and-secret")
    opened = AnthropicEndpoint(NAME)
    with pytest.raises(ModelError, match=r"the key was refused.*check ANTHROPIC_API_KEY") as caught:
        TextModel(opened).answer(prompts(1))
    opened.close()
    assert "sk-wrong" not in str(caught.value)
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    with pytest.raises(ModelError, match="set ANTHROPIC_API_KEY"):
        AnthropicEndpoint(NAME)
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://elsewhere.example")
    with pytest.raises(ModelError, match=r"plain http would send ANTHROPIC_API_KEY to elsewhere\.example"):
        AnthropicEndpoint(NAME)


def test_claude_is_asked_by_its_own_api_and_others_as_before(fake: FakeAnthropic) -> None:
    opened = open_hosted(NamedModel(NAME))
    assert isinstance(opened, AnthropicEndpoint) and opened.models() == ["claude-test-1"]
    opened.close()


# -- the wire -------------------------------------------------------------------------------------


def test_a_body_holds_what_the_api_knows() -> None:
    request = Request((Message("system", "s"), Message("user", "u")), temperature=0.7)
    body = message_body("m", request, Abilities(temperature=False), 1)
    assert body == {
        "model": "m",
        "max_tokens": 512,
        "system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}],
        "messages": [{"role": "user", "content": [{"type": "text", "text": "u"}]}],
    }
    assert message_body("m", request, Abilities(), 0)["temperature"] == 0.7


@pytest.mark.parametrize(
    "reply",
    ["<html>", "[1]", {}, {"content": "text"}, {"content": [], "usage": {"input_tokens": "many"}}, None, 7],
)
def test_a_reply_that_is_no_message_is_an_error(reply: Any) -> None:
    with pytest.raises(ValueError, match="it "):
        read_message("m", reply, 1.0)


def test_thoughts_are_no_answer_and_an_error_in_a_reply_is_none_either() -> None:
    content = [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "a"}, "odd", {"type": "text"}]
    usage = {"input_tokens": 1, "output_tokens": 2}
    assert read_message("m", {"content": content, "usage": usage}, 1.0).text == "a"
    full = {"content": [], "stop_reason": "model_context_window_exceeded", "usage": usage}
    assert "longer than the model's context" in str(read_message("m", full, 1.0).error)
    with pytest.raises(ValueError, match="error in a reply"):
        read_message("m", {"type": "error", "error": {"message": "x"}}, 1.0)


def test_effort_and_thoughts_go_where_the_api_has_them() -> None:
    schema = {"type": "object", "properties": {}}
    parameters = (("reasoning_effort", "low"), ("top_k", 3))
    request = Request((Message("user", "u"),), schema=schema, parameters=parameters)
    body = message_body("m", request, Abilities(), 0)
    assert body["output_config"] == {"format": {"type": "json_schema", "schema": schema}, "effort": "low"}
    assert body["top_k"] == 3 and "reasoning_effort" not in body
    thinking = (("thinking", {"type": "enabled", "budget_tokens": 1_024}),)
    body = message_body("m", Request((Message("user", "u"),), parameters=thinking), Abilities(), 0)
    assert body["thinking"]["budget_tokens"] == 1_024 and "temperature" not in body
    assert body["max_tokens"] == 512 + 1_024  # thoughts count towards the limit, and an answer must fit
    without = message_body("m", request, Abilities(refused=("top_k", "reasoning_effort")), 0)
    assert "top_k" not in without and "effort" not in without["output_config"]


# -- prices ---------------------------------------------------------------------------------------


def test_reads_and_writes_have_prices_of_their_own_and_a_cap_counts_the_dearest() -> None:
    price = call_price("anthropic/claude-sonnet-4-5")
    assert isinstance(price, CallPrice)
    assert price.rates() == {"input": 3.0, "cached_input": 0.3, "cache_write": 3.75, "output": 15.0}
    usage = Usage("m", input_tokens=3_200, cached_tokens=1_000, written_tokens=2_000, output_tokens=20)
    assert price.dollars(usage) == pytest.approx((200 * 3 + 1_000 * 0.3 + 2_000 * 3.75 + 20 * 15) / 1e6)
    request = Request((Message("user", "x" * 992),), max_output_tokens=10)
    assert price.max_dollars(request) == pytest.approx((1_000 * 3.75 + 150) / 1e6)


def test_a_cache_that_is_asked_for_holds_whole_messages(endpoint: AnthropicEndpoint) -> None:
    cache = PromptCache(minimum_tokens=8, asked_for=True)
    model = TextModel(endpoint, cache=cache)
    with_system = [reply.usage for reply in model.answer(prompts(3))]
    assert all(0 < (usage.cacheable_tokens or 0) < usage.input_tokens for usage in with_system)
    together = [reply.usage for reply in model.answer(prompts(3, system=False))]
    assert [usage.cacheable_tokens for usage in together] == [0, 0, 0]


def test_a_study_of_claude_is_priced_by_its_cache(fake: FakeAnthropic, tmp_path: Path) -> None:
    model = {
        "name": NAME,
        "price": {"input": 3, "cached_input": 0.3, "cache_write": 3.75, "output": 15},
        "cache": {"minimum_tokens": 64, "minutes": 5, "asked_for": True},
        "styles": ["few-shot"],
        "concurrency": 4,
    }
    task = routing(tmp_path, 100, instruction=LONG, models=[model], search={"calls": 0})
    result = run(task, out=tmp_path / "study")
    trials = [json.loads(line) for line in (tmp_path / "study" / "trials.jsonl").read_text().splitlines()]
    mine = [trial for trial in trials if trial["arm"].startswith("claude-test-1")]
    assert sum(trial.get("cached_tokens", 0) > 0 for trial in mine) > 0.8 * len(mine)
    finalist = next(f for f in result.decision.finalists if f.kind == "prompt")
    assert finalist.cache_hit is not None and finalist.cache_hit.likely > 0.99  # 50,000 a month
    spent = [
        (t["input_tokens"] - t.get("cached_tokens", 0) - t.get("written_tokens", 0)) * 3
        + t.get("cached_tokens", 0) * 0.3
        + t.get("written_tokens", 0) * 3.75
        + t["output_tokens"] * 15
        for t in mine
    ]
    assert [t["cost_usd"] * 1e6 for t in mine] == pytest.approx(spent)
    assert KEY not in (tmp_path / "study" / "manifest.json").read_text()
