"""Scores that forgive how an answer is written, and a verdict that rests on it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from servers import Fake, serving
from test_chat_study import asked

from tunepoint import Example, Task, run
from tunepoint.study.leniency import Leniency, leniency
from tunepoint.trials.conventions import LENIENT, has_conventions, lenient_key


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("The Red Shoes", "red shoes."),
        ("twenty-one days", "21 days"),
        ("Two", "2"),
        ("March 3rd, 2026", "2026-03-03"),
        ("3 Mar 2026", "03.03.2026"),
        ("the 3rd of March 2026", "3 march 2026"),
        ("2026/3/3", "2026-03-03"),
        ("1,200.00", "1200"),
        ("semi-final", "semi final"),
        ("Ｃａｆé!", "café"),
        ("new_york", "New York"),
    ],
)
def test_what_says_the_same_has_one_key(first: str, second: str) -> None:
    assert lenient_key(first) == lenient_key(second)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("1.5", "15"),
        ("-5", "5"),
        ("12/11/2026", "11/12/2026"),
        ("2026-02-30", "2026-03-02"),
        ("alpha", "beta"),
        ("5%", "5"),
        ("C++", "C#"),
        ("a b", "ab"),
        ("1.2.3", "123"),
    ],
)
def test_what_says_another_thing_has_another_key(first: str, second: str) -> None:
    assert lenient_key(first) != lenient_key(second)


def test_a_text_of_signs_and_articles_alone_stays() -> None:
    assert lenient_key("the") == "the" and lenient_key("?!") == "?!" and lenient_key("") == ""


@pytest.mark.parametrize(
    ("metric", "answer", "target", "score"),
    [
        ("exact", "The Tower", "tower", 1.0),
        ("exact", "towers", "tower", 0.0),
        ("f1", "Red; the blue", '["blue", "red"]', 1.0),
        ("f1", "red", "red, blue", 2 / 3),
        ("json_fields", '{"due": "3 March 2026", "n": "two"}', '{"due": "2026-03-03", "n": 2}', 1.0),
        ("json_fields", '{"due": "4 March 2026", "n": "two"}', '{"due": "2026-03-03", "n": 2}', 0.5),
        ("json_whole", '{"a": "The X"}', '{"a": "x"}', 1.0),
        ("json_whole", '{"a": "y"}', '{"a": "x"}', 0.0),
        ("json_whole", "The X", "x", 1.0),
    ],
)
def test_lenient_scores(metric: str, answer: str, target: str, score: float) -> None:
    assert LENIENT[metric](answer, Example("1", "in", target)) == pytest.approx(score)


# -- a study --------------------------------------------------------------------------------------


@pytest.fixture
def fake() -> Iterator[Fake]:
    with serving(Fake(dated)) as running:
        yield running


def dated(messages: list[dict[str, str]], body: dict[str, Any]) -> str:
    """Without examples all is right, in another form; with them the form is right, and one in five wrong."""
    day = re.findall(r"on day (\d+)", messages[-1]["content"])[-1]
    if "Keep to the form of these right answers" in messages[0]["content"]:
        return json.dumps({"due": f"2026-03-{int(day):02d}"})
    if sum(message["role"] == "assistant" for message in messages) < 2:
        return json.dumps({"due": f"March {day}, 2026"})
    return json.dumps({"due": f"2026-03-{int(day) + (int(day) % 5 == 0):02d}"})


def invoices(folder: Path, fake: Fake, answer: dict[str, Any] | None = None, **model: Any) -> Task:
    rng = np.random.default_rng(0)
    lines = []
    for i in range(240):
        day = 1 + i % 28
        words = f"{rng.integers(10**6)} {rng.integers(10**6)} {rng.integers(10**6)}"
        lines.append(json.dumps({"text": f"{words} on day {day}", "label": {"due": f"2026-03-{day:02d}"}}))
    (folder / "invoices.jsonl").write_text("\n".join(lines) + "\n")
    content = {
        "name": "invoices",
        "instruction": "When is it due?",
        "data": {"path": "invoices.jsonl", "input": "text", "target": "label"},
        "answer": {"kind": "json", **(answer or {})},
        "score": {"metric": "json_fields"},
        "search": {"calls": 0},
        "models": [asked(fake, **model)],
    }
    return Task.parse(content, folder=folder)


@pytest.mark.usefixtures("chat_alone")
def test_a_choice_that_rests_on_the_form_of_dates_is_said_and_not_confident(
    fake: Fake, tmp_path: Path
) -> None:
    result = run(invoices(tmp_path, fake), out=tmp_path / "study")
    assert "few-shot" in result.decision.winner and result.decision.strength != "confident"
    assert result.decision.risks.strength == "confident"
    (caveat,) = [line for line in result.decision.caveats if "rests on how answers are written" in line]
    assert "tiny, no examples gains 100.0 points and is the best" in caveat
    lenient = result.document["lenient"]
    assert lenient["winner"].startswith("tiny zero-shot") and max(lenient["scores"].values()) == 1
    assert "(strictly" in Path(str(result.report)).read_text()


@pytest.mark.usefixtures("chat_alone")
def test_a_prompt_that_shows_right_answers_for_their_form_is_an_option(fake: Fake, tmp_path: Path) -> None:
    styles = ["zero-shot", "answer form", "few-shot"]
    result = run(invoices(tmp_path, fake, styles=styles), out=tmp_path / "study")
    assert result.decision.winner.startswith("tiny answer form")
    assert "no examples, 3 right answers for their form" in result.decision.titles[result.decision.winner]
    asked_for = next(call for call in fake.calls if "Keep to the form" in call["messages"][0]["content"])
    shown = re.findall(r'- \{"due": "(2026-03-\d\d)"\}', asked_for["messages"][0]["content"])
    assert len(shown) == len(set(shown)) == 3


def test_a_caveat_about_the_form_of_answers_says_what_a_prompt_that_shows_it_scores() -> None:
    lenient = Leniency({}, "prompt", "p", form_shown=(0.81, 0.42))
    assert lenient._advice() == (
        "A prompt that shows three right answers for their form scored 81.0% on the validation set, against "
        "42.0% without them"
    )


@pytest.mark.parametrize(
    ("kind", "metric", "tried"),
    [("label", "exact", False), ("number", "exact", False), ("text", "judge", False), ("text", "f1", True)],
)
def test_only_tasks_in_which_the_form_counts_try_it(kind: str, metric: str, tried: bool) -> None:
    score = {"metric": metric, **({"judge": "openai/x", "rubric": "good"} if metric == "judge" else {})}
    content = {"name": "t", "answer": {"kind": kind}, "score": score}
    assert has_conventions(Task.parse(content)) is tried


def test_labels_and_metrics_of_others_have_no_lenient_score() -> None:
    label = Task.parse({"name": "t"})
    text = Task.parse({"name": "t", "answer": {"kind": "text"}, "score": {"metric": "similarity"}})
    for task in (label, text):
        assert leniency([], [], [], [], task, 0) is None
