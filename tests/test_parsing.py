from __future__ import annotations

import json

import pytest

from tunepoint.models.chat import AnswerKind, Demonstration, Message, Prompt
from tunepoint.models.endpoints import request_of
from tunepoint.models.parsing import parse
from tunepoint.models.templates import TEMPLATES, answer_format, complaint, render

LABELS = ("card", "card_arrival", "lost-card", "top up")
SCHEMA = {"type": "object", "properties": {"brand": {"type": "string"}}, "required": ["brand"]}


def prompt(kind: AnswerKind = "label", **settings: object) -> Prompt:
    return Prompt("in", "Do it.", LABELS if kind == "label" else (), kind=kind, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("card_arrival", "card_arrival"),
        ("Card Arrival.", "card_arrival"),
        ("**lost card**", "lost-card"),
        ('{"answer": "top up"}', "top up"),
        ('```json\n{"label": "card"}\n```', "card"),
        ("The label is card arrival, I think", "card_arrival"),
        ("<think>card or top up?</think>\ntop up", "top up"),
        ("card or top up", None),
        ("cards", None),
        ("", None),
        ('{"answer": "none"}', None),
    ],
)
def test_labels(text: str, answer: str | None) -> None:
    parsed = parse(prompt(), text)
    assert parsed.answer == answer
    assert (parsed.error is None) == (answer is not None)


@pytest.mark.parametrize(
    ("text", "answer", "why"),
    [
        ('{"brand": "Acme"}', '{"brand": "Acme"}', None),
        ('Here: ```json\n{"brand": "Acme", "a": 1}\n``` done', '{"a": 1, "brand": "Acme"}', None),
        ('{"brand": "Acme"} and {"brand": "B"}', '{"brand": "Acme"}', None),
        ('{"brand": 3}', None, "brand: 3 is not of type 'string'"),
        ("{}", None, "the object: 'brand' is a required property"),
        ('{"brand": ', None, "its JSON is broken"),
        ("nothing", None, "no JSON in it"),
    ],
)
def test_json(text: str, answer: str | None, why: str | None) -> None:
    parsed = parse(prompt("json", schema=SCHEMA), text)
    assert parsed.answer == answer
    assert why is None or why in str(parsed.error)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("42", "42"),
        ("about 1,234.50 dollars", "1234.50"),
        ("12 plus 30 is 42", "42"),
        ("-3e5", "-3e5"),
        ("no", None),
    ],
)
def test_numbers(text: str, answer: str | None) -> None:
    assert parse(prompt("number"), text).answer == answer


def test_answers_after_reasoning_stand_on_the_marked_line() -> None:
    reasoned = prompt("number", reasoning=True)
    assert parse(reasoned, "2 and 2 are 4.\n**Answer:** 4").answer == "4"
    assert parse(reasoned, "it is 4").error == "no line begins with 'Answer:'"
    assert parse(reasoned, r"so $\boxed{3}$, and in the end \(\boxed{1,200}\) dollars").answer == "1200"
    assert parse(reasoned, r"it is \boxed{3}\nAnswer: 4").answer == "4"
    assert parse(prompt(reasoning=True), r"it is \boxed{\text{top up}}").answer == "top up"
    assert parse(prompt("text"), " hello ").answer == "hello"


@pytest.mark.parametrize("wording", TEMPLATES)
def test_every_wording_says_all_there_is_to_say(wording: str) -> None:
    descriptions = {"card": "Questions about a card"}
    demonstrations = (Demonstration("where is it", "card_arrival"),)
    question = prompt(template_name=wording, descriptions=descriptions, demonstrations=demonstrations)
    turns = render(question)
    whole = "\n".join(turn.content for turn in turns)
    for part in ("Do it.", *LABELS, "Questions about a card", "where is it", "in"):
        assert part in whole
    assert [turn.role for turn in turns] == ["user", "assistant", "user"]
    apart = render(prompt(template_name=wording, system=True, demonstrations=demonstrations))
    assert [turn.role for turn in apart] == ["system", "user", "assistant", "user"]
    assert "Do it." in apart[0].content and "Do it." not in apart[-1].content


def test_wordings_differ() -> None:
    assert len({render(prompt(template_name=name)) for name in TEMPLATES}) == len(TEMPLATES) >= 4


def test_histories_and_complaints_come_last() -> None:
    history = (Message("assistant", "hm"), Message("user", complaint(prompt(), "it is none of the labels")))
    assert render(prompt(history=history))[-2:] == history
    assert "none of the labels" in history[1].content


def test_formats_name_the_schema_and_reasoning_the_mark() -> None:
    assert json.dumps(SCHEMA) in answer_format(prompt("json", schema=SCHEMA))
    assert "Answer:" in answer_format(prompt(reasoning=True))


def test_requests_hold_labels_to_a_schema_unless_there_is_reasoning() -> None:
    plain, thinking = request_of(prompt()), request_of(prompt(reasoning=True))
    assert plain.schema is not None and plain.schema["properties"]["answer"]["enum"] == list(LABELS)
    assert plain.choices == LABELS
    assert thinking.schema is None and thinking.choices == ()
    assert thinking.max_output_tokens > plain.max_output_tokens
    assert request_of(prompt("number")).schema is None
