"""Replies and refusals of chat servers, in the shapes that they have."""

from __future__ import annotations

import math
from datetime import date
from types import SimpleNamespace
from typing import Any

import pytest

from tunepoint import Task
from tunepoint.models.abilities import Abilities, is_bad_key, is_too_long, refusal_words, refused_value
from tunepoint.models.chat import Message
from tunepoint.models.chat_completions import (
    FILTERED,
    UNCOUNTED,
    TransientFault,
    read_completion,
    read_usage,
    text_of,
)
from tunepoint.models.endpoints import CUT_OFF, Request
from tunepoint.models.label_confidence import label_probability
from tunepoint.models.openai import model_names
from tunepoint.study.records import ModelFacts
from tunepoint.study.warnings import model_warnings

ASKED = Request((Message("user", "x" * 400),))


def reply(content: Any = "ok", *, usage: Any = None, reason: str = "stop", **choice: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": content}
    return {"choices": [{"message": message, "finish_reason": reason, **choice}], "usage": usage}


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("ok", "ok"),
        (None, ""),
        ([{"type": "text", "text": "o"}, {"type": "output_text", "text": "k"}], "ok"),
        (
            [
                {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
                {"type": "text", "text": "ok"},
            ],
            "ok",
        ),
        ({"type": "text", "text": "ok"}, "ok"),
        ({"text": {"value": 1}}, ""),
        (["o", "k"], "ok"),
        (7, ""),
    ],
)
def test_content_is_text_parts_or_nothing(content: Any, text: str) -> None:
    assert text_of(content) == read_completion("m", reply(content), 0.1).text == text


@pytest.mark.parametrize(
    ("counts", "tokens"),
    [
        ({"prompt_tokens": 40, "completion_tokens": 4}, (40, 0, 4, False)),
        ({"prompt_tokens": "40", "completion_tokens": 3.5}, (40, 0, 4, False)),
        ({"prompt_tokens": 40, "completion_tokens": 4, "total_tokens": 1_044}, (40, 0, 1_004, False)),
        (
            {
                "prompt_tokens": 40,
                "completion_tokens": 4,
                "completion_tokens_details": {"reasoning_tokens": 9},
            },
            (40, 0, 13, False),
        ),
        (
            {"prompt_tokens": 40, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 999}},
            (40, 40, 4, False),
        ),
        ({"total_tokens": 44, "completion_tokens": 4}, (40, 0, 4, False)),
        ({"prompt_tokens": -1, "completion_tokens": None}, (100, 0, 10, True)),
        ({"prompt_tokens": 1e300, "completion_tokens": True}, (100, 0, 10, True)),
        ([], (100, 0, 10, True)),
        (None, (100, 0, 10, True)),
    ],
)
def test_tokens_are_counted_or_estimated_and_never_negative(counts: Any, tokens: Any) -> None:
    usage = read_usage("m", counts, 0.1, "x" * 400, "y" * 40)
    assert (usage.input_tokens, usage.cached_tokens, usage.output_tokens, usage.estimated) == tokens


@pytest.mark.parametrize(
    "logprobs",
    [
        None,
        [],
        {"content": None},
        {"content": [{"token": "x", "logprob": None}]},
        {"content": [{"token": "x"}]},
        {"content": [0.5]},
        {"content": [{"logprob": float("nan")}]},
        {"content": [{"logprob": "x"}]},
    ],
)
def test_broken_logprobs_are_none(logprobs: Any) -> None:
    request = Request((Message("user", "a or b?"),), choices=("a", "b"))
    assert read_completion("m", reply("a", logprobs=logprobs), 0.1, request).confidence is None


def token(text: str, logprob: Any, **others: float) -> dict[str, Any]:
    """A token of a reply, with the alternatives that the server reports."""
    listed = [{"token": text, "logprob": logprob}]
    listed += [{"token": other.replace("_", " "), "logprob": math.log(p)} for other, p in others.items()]
    return {"token": text, "logprob": logprob, "top_logprobs": listed}


@pytest.mark.parametrize(
    ("tokens", "labels", "probability"),
    [
        # A server that confines nothing: most of its probability is outside the labels.
        ([token("bill", math.log(0.02), The=0.9, re=0.03), token("ing", math.log(0.5), x=0.4)],
         ("billing", "returns"), 0.4),
        # Behind the shorter of two labels, the end competes with the longer one.
        ([token("billing", math.log(0.5)), token("", math.log(0.6), _and=0.2, x=0.2)],
         ("billing", "billing and more"), 0.75),
        ([token("billing", -0.5), token(" and", -1.6, x=0.2), token(" more", -0.1)],
         ("billing", "billing and more"), 1.0),
        # Inside JSON the forced text around the label does not count.
        ([token('{"answer": "', -50.0, Hello=0.9), token("a", math.log(0.3), b=0.1, c=0.6), token('"}', -9)],
         ("a", "b"), 0.75),
        ([token('{"answer":', -50), token(' "a', -1, **{'_"b': math.exp(-1), '_"c': 0.2}), token('"}', -9)],
         ("a", "b"), 0.5),
    ],
)  # fmt: skip
def test_a_label_s_probability_is_among_the_labels(
    tokens: Any, labels: tuple[str, ...], probability: float
) -> None:
    assert label_probability(tokens, labels) == pytest.approx(probability, abs=1e-6)


def test_parts_of_characters_are_read_as_bytes() -> None:
    first, second = "é".encode()[:1], "é".encode()[1:]
    tokens = [
        {"token": "\ufffd", "bytes": list(first), "logprob": math.log(0.2), "top_logprobs": [
            {"token": "e", "bytes": [101], "logprob": math.log(0.2)}]},
        {"token": "\ufffd", "bytes": list(second), "logprob": 0.0, "top_logprobs": []},
    ]  # fmt: skip
    assert label_probability(tokens, ("é", "e")) == pytest.approx(0.5)


def test_a_probability_is_never_above_one_nor_an_error() -> None:
    for value in (800.0, -1e308, -0.5, 5):
        probability = label_probability([token("a", value, b=0.5)], ("a", "b"))
        assert probability is not None and 0 <= probability <= 1
    assert label_probability([token("c", 0.0, b=0.5)], ("a", "b")) is None
    assert label_probability([{"token": "a", "logprob": -0.1}], ("a", "b")) is None  # no alternatives


def test_reasons_to_stop_are_told_apart() -> None:
    no_message = {
        "choices": [{"finish_reason": "content_filter"}],
        "usage": {"prompt_tokens": 4, "total_tokens": 4},
    }
    filtered = read_completion("m", no_message, 0.1, ASKED)
    assert filtered.error == FILTERED and not filtered.usage.estimated
    assert read_completion("m", reply("", reason="length"), 0.1).error == CUT_OFF
    assert read_completion("m", reply("part", reason="length"), 0.1).text == "part"
    for broken in (
        reply("", reason="error"),
        reply("", error={"code": 502, "message": "upstream timed out"}),
        {"error": {"message": "no provider", "code": 503}},
    ):
        with pytest.raises(TransientFault):
            read_completion("m", broken, 0.1)
    for none in ([], "not JSON", {"choices": []}, {"choices": [None]}, {"choices": [{}]}, None, 3):
        with pytest.raises(ValueError):
            read_completion("m", none, 0.1)
    assert read_completion("m", '{"choices": [{"message": {"content": "ok"}}]}', 0.1).text == "ok"


REFUSALS = {
    "logprobs": "You are not allowed to request logprobs from this model",
    "schema": "response_format of type json_schema is not supported",
    "temperature": "Unsupported value: 'temperature' does not support 0.0",
    "stream_options": "stream_options: Extra inputs are not permitted",
}


@pytest.mark.parametrize(("ability", "words"), REFUSALS.items())
def test_each_ability_is_given_up_once(ability: str, words: str) -> None:
    fewer = Abilities().without(words)
    assert fewer is not None and getattr(fewer, ability) is False
    assert fewer.without(words) is None


def test_a_refusal_of_several_parameters_gives_them_up_together() -> None:
    fewer = Abilities().without(
        'Unknown name "seed": Cannot find field. Unknown name "logprobs": Cannot find field.'
    )
    assert fewer is not None and not fewer.seed and not fewer.logprobs and fewer.schema


def test_the_name_of_the_token_limit_changes_once_and_not_for_a_request_that_is_too_long() -> None:
    old = Abilities().without("Unrecognized request argument supplied: max_completion_tokens")
    assert old is not None and old.token_parameter == "max_tokens"
    assert old.without("'max_tokens' is not supported, use 'max_completion_tokens'") is None
    long = "'max_tokens' or 'max_completion_tokens' is too large: 512. This model's context length is 512"
    assert is_too_long(long) and Abilities().without(long) is None


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"error": {"message": "no"}}, "no"),
        ([{"error": {"code": 400, "message": "no"}}], "no"),
        ({"detail": [{"loc": ["seed"], "msg": "extra field"}]}, "seed: extra field"),
        ({"detail": "no"}, "no"),
        ({"error": "no"}, "no"),
        (
            {"message": "Provider returned error", "metadata": {"raw": '{"error": "no"}'}},
            'Provider returned error: {"error": "no"}',
        ),
        ("<html><body><h1>403 Forbidden</h1></body></html>", "403 Forbidden"),
        ({}, ""),
        (None, ""),
        (4, ""),
    ],
)
def test_refusals_are_read_in_any_shape(body: Any, words: str) -> None:
    assert refusal_words(body) == words


def test_a_refused_key_is_known_by_its_words() -> None:
    assert is_bad_key("API key not valid. Please pass a valid API key.")
    assert is_bad_key("Incorrect API key provided") and is_bad_key("invalid access token")
    assert not is_bad_key("the key 'seed' is not supported")


@pytest.mark.parametrize(
    ("words", "refused"),
    [
        (
            "Unsupported value: 'reasoning_effort' does not support 'none' with this model.",
            "reasoning_effort",
        ),
        ("output_config.effort: Input should be 'low', 'medium' or 'high', got 'none'", "reasoning_effort"),
        ("Unsupported parameter: 'reasoning_effort' is not supported with this model.", None),
        ("Invalid value for top_p: 0.5 must be one of 1", "top_p"),
        ("Invalid value for seed: 7", None),
        ("reasoning_effort: Input should be 'low', 'medium' or 'high'", "reasoning_effort"),
        ("unsupported value: 'temperature' does not support 0.0 when reasoning_effort is 'none'", None),
    ],
)
def test_a_refused_value_is_told_from_a_refused_parameter(words: str, refused: str | None) -> None:
    assert refused_value(words, {"reasoning_effort": "none", "top_p": 0.5}) == refused


def test_names_of_models_are_listed_in_any_shape() -> None:
    listed: list[Any] = [{"id": "b"}, {"name": "a"}, {"model": "c"}, "d", {"other": 1}, 5]
    for shape in (listed, {"data": listed}, {"models": listed}):
        assert model_names(shape) == ["a", "b", "c", "d"]
    assert model_names("<html>") == model_names(None) == model_names({"data": {}}) == []


def test_settings_that_a_server_does_not_take_are_a_caveat() -> None:
    abilities = {"temperature": False, "seed": False, "refused": ["top_p"]}
    facts = ModelFacts(abilities=abilities, asked_again={}, price="declared in the task")
    study: Any = SimpleNamespace(manifest=SimpleNamespace(models={"m": facts}))
    model = {"name": "m", "temperature": 0.5, "top_p": 0.5}
    (warning,) = model_warnings(study, Task.parse({"name": "t", "models": [model]}), date(2026, 11, 26))
    assert "m: its server takes no top_p, temperature, so it was asked without" in warning
    (quiet,) = model_warnings(study, Task(name="t"), date(2026, 11, 26))
    assert "takes no top_p, so" in quiet  # nobody asked for another temperature


def test_replies_without_token_counts_are_a_caveat_of_their_own() -> None:
    facts = ModelFacts(asked_again={"HTTP 429": 2, UNCOUNTED: 7}, price="declared in the task")
    study: Any = SimpleNamespace(manifest=SimpleNamespace(models={"m": facts}))
    uncounted, failed = model_warnings(study, Task(name="t"), date(2026, 11, 26))
    assert uncounted.startswith("m: its server counted no tokens in 7 replies; their cost is estimated")
    assert failed == "m: calls that failed or were repeated: HTTP 429 (2)"
