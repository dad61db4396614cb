"""Labels, numbers and thoughts in replies, as people and models write them."""

from __future__ import annotations

import json
from typing import get_args

import pytest

from tunepoint import Example
from tunepoint.models.chat import AnswerKind, Prompt, Reply, Usage
from tunepoint.models.numbers import equal_numbers, last_number, plain_number
from tunepoint.models.parsing import UNFINISHED_THOUGHT, parse
from tunepoint.trials.grading import batch_scorer, grade_replies
from tunepoint.trials.scorers import SCORERS

SETS = {
    "languages": ("c", "c++", "c#"),
    "polarity": ("-1", "0", "1"),
    "emoji": ("👍", "👎", "😐"),
    "stars": ("★", "★★", "★★★"),
    "bands": ("<5", "5", ">5"),
    "grades": ("A+", "A-", "B"),
    "versions": ("v1.0", "v10", "v1-0"),
    "separators": ("billing_refund", "billing refund", "other"),
    "marks": ("हाँ", "हूँ", "नहीं"),
    "decimals": ("1", "1.0", "10"),
    "truth": ("true", "false"),
}
WAYS = ("{}", "**{}**", '"{}"', "The answer is {}.", "Label: {}\n", "I choose {} here", '{{"answer": "{}"}}')


def label_in(text: str, labels: tuple[str, ...]) -> str | None:
    return parse(Prompt("in", "Do it.", labels), text).answer


@pytest.mark.parametrize("labels", SETS.values(), ids=list(SETS))
@pytest.mark.parametrize("way", WAYS)
def test_labels_that_differ_in_signs_are_told_apart(labels: tuple[str, ...], way: str) -> None:
    assert [label_in(way.format(label), labels) for label in labels] == list(labels)


def test_labels_are_read_loosely_only_where_that_is_unique() -> None:
    assert label_in("Billing-Refund", ("billing_refund", "other")) == "billing_refund"
    assert label_in("Billing-Refund", SETS["separators"]) is None  # either of two
    assert label_in("cafe\u0301", ("caf\u00e9", "bar")) == "caf\u00e9"  # one word in two Unicode forms
    assert label_in("This is a B", ("A", "B")) == "B"  # the article is no label
    assert label_in("-1", ("1", "2")) is None and label_in("1.5", ("1", "2")) is None
    assert label_in("1.0", ("0", "2")) is None and label_in("It is 4.5", ("4", "5")) is None
    assert label_in("2-1", ("-1", "0", "1")) is None and label_in("1,2", ("1", "2")) is None
    assert label_in("2.0", ("1", "2")) == "2" and label_in("4", ("4.0", "5.0")) == "4.0"
    for between in ("4-5", "4\u20135", "4+5", "4.5"):
        assert label_in(f"Rated {between}", ("4", "5")) is None
    for nothing in (".", "***", '""', ",", "..."):
        assert label_in(nothing, ("!", "none")) is None
    assert label_in("yes", ("Yes.", "No.")) == "Yes." and label_in("1.05", ("15", "2")) is None
    assert label_in("Urgent, as the guide says [1].", ("1", "urgent")) is None  # either of two
    assert label_in("Urgent, as the guide says [1].", ("0", "urgent")) == "urgent"
    assert (
        label_in('["urgent"]', ("0", "urgent"))
        == label_in('```json\n["urgent"]\n```', ("0", "urgent"))
        == "urgent"
    )
    assert label_in('{"answer": -1}', SETS["polarity"]) == "-1"
    assert label_in('{"label": true}', SETS["truth"]) == "true"
    assert label_in("card, not card arrival", ("card", "card_arrival")) is None


def test_a_text_of_one_label_again_and_again_names_it() -> None:
    assert label_in("1 " * 50_000, ("-1", "0", "1")) == "1"


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("12,50", "12.50"),
        ("$1,200.50", "1200.50"),
        ("5%", "5%"),
        (".5", "0.5"),
        ("−5", "-5"),
        ("1.234,56", "1234.56"),
        ("1\u202f234,5", "1234.5"),
        ("1'000.5", "1000.5"),
        ("1,00,000", "100000"),
        ("€ 3.000.000", "3000000"),
        ("(12.50)", "-12.50"),
        ("-$5", "-5"),
        ("12 kg", "12"),
        ("USD 12", "12"),
        ("1,234", "1234"),
        ("0,123", "0.123"),
        ("1e5", "1e5"),
        ("१२", "12"),
        ("(-5)", "-5"),
        ("5k", "5e3"),
        ("1.5 million", "1.5e6"),
        ("$2bn", "2e9"),
        ("300 K", "300"),
        ("12 m²", "12"),
        ("$5m", "5e6"),
        ("£1.5 M", "1.5e6"),
        ("5 m", "5"),
        ("($ 12)", "-12"),
        ("A$5", "5"),
        ("٣٫٥", "3.5"),
        ("abc", None),
        ("LH400", None),
        ("2024-01-05", None),
        ("", None),
    ],
)
def test_numbers_as_people_write_them(text: str, number: str | None) -> None:
    assert plain_number(text) == number
    if number is not None and "(" not in text:
        assert last_number(f"2 and 2 make {text} in all.") == number


@pytest.mark.parametrize(
    "text", ["400½", "10²", "1,2,3", "100,00,000", "192.168.1.1", "05.01.2024", "1e5k", "5 ½", "1/2", "10-20"]
)
def test_what_stands_last_and_is_no_number_is_not_passed_over(text: str) -> None:
    assert plain_number(text) is None
    assert last_number(f"2 and 2 make {text}") is None


def test_long_texts_are_no_numbers() -> None:
    for text in ("(" + " " * 50_000 + "x", "$ " * 20_000, "1," * 20_000, "1-" * 20_000 + "x"):
        assert plain_number(text) is None


def test_numbers_are_equal_in_value_and_percent_in_either_reading() -> None:
    assert equal_numbers("12.50", "12.5", 1e-6) and not equal_numbers("12.5", "12.6", 1e-6)
    assert equal_numbers("5%", "5", 1e-6) and equal_numbers("0.05", "5%", 1e-6)
    assert not equal_numbers("5%", "0.05%", 1e-6)
    assert equal_numbers("9" * 400, "9" * 400, 1e-6)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("card or top?\n</think>\n\ncard", "card"),
        ("<think>card?</think>top<think>again", "top"),
        ("[THINK]card?[/THINK]top", "top"),
        ("<thinking>\ncard\n</thinking>top", "top"),
        ("<|channel|>analysis<|message|>card?<|end|><|start|>assistant<|channel|>final<|message|>top", "top"),
        ("<think>it is card, I th", None),
    ],
)
def test_thoughts_are_never_the_answer(text: str, answer: str | None) -> None:
    assert label_in(text, ("card", "top")) == answer
    if answer is None:
        assert parse(Prompt("in", labels=("card", "top")), text).error == UNFINISHED_THOUGHT


def test_json_lists_are_read_whole_and_signs_in_prose_are_none() -> None:
    people = [{"name": "Ada", "city": "Oslo"}, {"name": "Ben", "city": "Lima"}]
    prompt = Prompt("in", kind="json")
    for text in (
        json.dumps(people),
        f"Here:\n```json\n{json.dumps(people)}\n```",
        f"They are {json.dumps(people)}",
    ):
        assert json.loads(str(parse(prompt, text).answer)) == people
    assert parse(prompt, 'As [1] says: {"a": 1}').answer == '{"a": 1}'
    assert parse(prompt, "[" * 100_000).answer is None


TARGETS = (
    *("a, b", '["b", "a"]', '{"a": [1, {"b": null}]}', "{'a': [1]}", "{broken", "C++", "Yes."),
    *("12,50", "about 5", "2024-01-05", "1/2", "not a number", "5k", "[1]"),
)


@pytest.mark.parametrize("kind", get_args(AnswerKind))
@pytest.mark.parametrize("target", TARGETS)
def test_the_target_repeated_is_right_in_every_kind_and_by_every_metric(
    kind: AnswerKind, target: str
) -> None:
    prompt = Prompt("in", labels=(target, "other") if kind == "label" else (), kind=kind)
    parsed = parse(prompt, target)
    reply = Reply(target, parsed.answer, Usage("m"), format_ok=parsed.answer is not None)
    for metric, score in SCORERS.items():
        (grading,) = grade_replies(batch_scorer(score), [reply], [Example("1", "in", target)])
        assert grading.score == 1.0, metric
