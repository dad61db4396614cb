"""`tunepoint init`: which columns it takes for what, and the task it proposes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tunepoint import Task
from tunepoint.cli.app import app
from tunepoint.data.json_schema import common_schema
from tunepoint.data.task_draft import Draft, draft_task
from tunepoint.errors import DataError
from tunepoint.models.parsing import schema_fault

TEXTS = [f"please send {i * 7919:x} to {i * 104729:x} by monday" for i in range(60)]
LABELS = ["billing", "shipping", "defect"] * 20
BOOKINGS = [{"item": text.split()[2], "count": i, "note": None} for i, text in enumerate(TEXTS)]


def draft(folder: Path, columns: Mapping[str, Sequence[Any]], name: str = "a.jsonl") -> Draft:
    """The guesses about a table, whose task.toml is written beside it."""
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    guessed = draft_task(folder / name)
    (folder / "task.toml").write_text(guessed.toml())
    return guessed


def call(*words: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result.output


DIFFERENT = [str(i) for i in range(1000, 1060)]
DAYS = [f"2025-01-{i % 28 + 1:02}" for i in range(60)]
EMPTY = [""] * 60


@pytest.mark.parametrize(
    ("columns", "inputs", "target"),
    [
        ({"message_id": DIFFERENT, "body": TEXTS, "category": LABELS, "created": DAYS}, ["body"], "category"),
        (
            {"query_id": DIFFERENT, "query": TEXTS, "intent_id": [9, 3, 7] * 20, "intent": LABELS},
            ["query"],
            "intent",
        ),
        (
            {"messageId": DIFFERENT, "messageText": TEXTS, "messageType": LABELS},
            ["messageText"],
            "messageType",
        ),
        ({"ID": DIFFERENT, "ticket": TEXTS, "Area": LABELS, "Date": DAYS}, ["ticket"], "Area"),
        ({"text": TEXTS, "intent_id": [9, 3, 7] * 20}, ["text"], "intent_id"),
        ({"": DIFFERENT, "words": TEXTS, "kind": LABELS}, ["words"], "kind"),
        ({"document_type": LABELS, "document": TEXTS}, ["document"], "document_type"),
        ({"output_text": LABELS, "input_text": TEXTS}, ["input_text"], "output_text"),
        (
            {"instruction": TEXTS, "input": ["x", ""] * 30, "output": LABELS},
            ["instruction", "input"],
            "output",
        ),
        ({"instruction": TEXTS, "input": EMPTY, "output": LABELS, "text": TEXTS}, ["instruction"], "output"),
        ({"instruction": TEXTS, "context": TEXTS, "response": LABELS, "category": LABELS}, None, "response"),
        (
            {"id": DIFFERENT, "question": TEXTS, "context": TEXTS, "answer": LABELS},
            ["context", "question"],
            "answer",
        ),
        ({"request": TEXTS, "booking": BOOKINGS}, ["request"], "booking"),
        ({"booking": BOOKINGS, "request": TEXTS}, ["request"], "booking"),
        ({"content": BOOKINGS, "wish": TEXTS}, ["wish"], "content"),
        ({"query": BOOKINGS, "said": TEXTS}, ["said"], "query"),
        ({"input": BOOKINGS, "output": TEXTS}, ["input"], "output"),
        ({"input": BOOKINGS, "summary": TEXTS}, ["input"], "summary"),
        ({"assistant": LABELS, "user": TEXTS}, ["user"], "assistant"),
    ],
)
def test_input_and_target_are_told_apart(
    tmp_path: Path, columns: Mapping[str, Sequence[Any]], inputs: list[str] | None, target: str
) -> None:
    guessed = draft(tmp_path, columns)
    assert guessed.target == target
    assert list(guessed.guess.inputs) == (inputs or ["instruction", "context"])
    loaded = Task.load(tmp_path).data
    assert loaded is not None and loaded.columns.input == guessed.guess.inputs


def test_the_whole_file_is_looked_at(tmp_path: Path) -> None:
    rows = [f"review {i},{'pos' if i >= 6_000 else 'neg'}\n" for i in range(12_000)]
    (tmp_path / "a.csv").write_text("text,label\n" + "".join(rows))
    guesses = draft_task(tmp_path / "a.csv").guesses
    assert guesses[0].startswith("12000 rows") and guesses[2].endswith("with 2 labels")


def test_a_group_that_some_rows_leave_out(tmp_path: Path) -> None:
    customers = [None if i % 6 == 0 else f"c{i // 3}" for i in range(60)]
    guessed = draft(tmp_path, {"text": TEXTS, "label": LABELS, "customer": customers})
    assert guessed.group == "customer"
    assert "a.jsonl: 10 rows of 60 without 'customer'" in guessed.guesses


def test_chats_keep_their_group(tmp_path: Path) -> None:
    chats = [
        [{"role": "user", "content": text}, {"role": "assistant", "content": label}]
        for text, label in zip(TEXTS, LABELS, strict=True)
    ]
    guessed = draft(tmp_path, {"messages": chats, "user_id": [f"u{i // 2}" for i in range(60)]})
    assert (guessed.guess.inputs, guessed.target, guessed.group) == (("input",), "target", "user_id")


@pytest.mark.parametrize("rejected", ["rejected", "non_preferred_output", "response_rejected"])
def test_preferences_are_no_right_answers(tmp_path: Path, rejected: str) -> None:
    chosen = rejected.replace("rejected", "chosen").replace("non_", "")
    with pytest.raises(DataError, match=f"holds preferences \\('{chosen}' over '{rejected}'"):
        draft(tmp_path, {"prompt": TEXTS, chosen: LABELS, rejected: LABELS[::-1]})


@pytest.mark.parametrize("template", ['"{0}",{1}\n', "{1}\t{0}\n", "how much is {2},{2}\n"])
def test_a_file_without_a_line_of_names_is_said_to_be_one(tmp_path: Path, template: str) -> None:
    rows = (
        template.format(text, label, i) for i, (text, label) in enumerate(zip(TEXTS, LABELS, strict=True))
    )
    path = tmp_path / ("a.tsv" if "\t" in template else "a.csv")
    path.write_text("".join(rows))
    with pytest.raises(DataError, match="the first line looks like data"):
        draft_task(path)


def test_a_name_that_is_also_a_label_is_a_name(tmp_path: Path) -> None:
    rows = "".join(f"{text},{'spam' if i % 2 else 'ham'}\n" for i, text in enumerate(TEXTS))
    (tmp_path / "a.csv").write_text("text,spam\n" + rows + "text,spam\n")
    assert draft_task(tmp_path / "a.csv").target == "spam"


def test_a_schema_is_proposed_that_all_targets_follow(tmp_path: Path) -> None:
    guessed = draft(tmp_path, {"text": TEXTS, "booking": BOOKINGS})
    loaded = Task.load(tmp_path)
    assert (loaded.answer.kind, loaded.score.metric) == ("json", "json_fields")
    assert loaded.answer.json_schema == guessed.schema
    assert all(schema_fault(loaded.answer.json_schema, booking) is None for booking in BOOKINGS)
    assert schema_fault(loaded.answer.json_schema, {"item": 5, "count": 1}) is not None


@pytest.mark.parametrize(
    ("values", "schema"),
    [
        (
            [{"a": 1, "b": "x"}, {"a": 1.5, "b": "y"}],
            {
                "type": "object",
                "properties": {"a": {"type": "number"}, "b": {"type": "string"}},
                "required": ["a", "b"],
                "additionalProperties": False,
            },
        ),
        (
            [{"a": None}, {"a": True, "b": {}}],
            {"type": "object", "properties": {"a": {"type": ["boolean", "null"]}, "b": {"type": "object"}}},
        ),
        ([["x"], []], {"type": "array", "items": {"type": "string"}}),
        ([{f"k{i}": 1} for i in range(50)], None),
        ([5], None),
        ([], None),
    ],
)
def test_the_schema_of_values(values: Sequence[Any], schema: dict[str, Any] | None) -> None:
    assert common_schema([json.dumps(value) for value in values]) == schema


def test_any_sign_may_stand_in_names_and_labels(tmp_path: Path) -> None:
    strange = 'a\x7f"\\ b\u2028'
    guessed = draft(tmp_path, {"text": TEXTS, strange: [strange, "\t\x01", "c"] * 20})
    assert Task.load(tmp_path / "task.toml").data.target == guessed.guess.target == strange
    records = [{strange: text, "count": strange} for text in TEXTS]
    draft(tmp_path, {"text": TEXTS, "record": records})
    assert Task.load(tmp_path / "task.toml").answer.kind == "json"


def test_targets_in_the_notation_of_python_are_named(tmp_path: Path) -> None:
    guessed = draft(tmp_path, {"text": TEXTS, "booking": [str(booking) for booking in BOOKINGS]})
    assert guessed.kind == "json" and guessed.schema is None
    assert "'booking' is in Python's notation, not JSON: write it with json.dumps" in guessed.guesses
    assert "a.jsonl:1: \"{'item': '0', 'count': 0" in call("check", tmp_path)


@pytest.mark.parametrize(
    ("targets", "kind"), [([[i] for i in range(60)], "json"), (list(range(60)), "number"), (TEXTS, "text")]
)
def test_check_audits_without_a_model(tmp_path: Path, targets: Sequence[Any], kind: str) -> None:
    assert draft(tmp_path, {"text": TEXTS, "answer": targets}).kind == kind
    output = call("check", tmp_path)
    assert "60 rows read, 60 kept" in output
    assert f"Before `tunepoint run`: answer.kind '{kind}' needs a model" in output


def test_check_names_targets_that_are_no_numbers(tmp_path: Path) -> None:
    draft(tmp_path, {"text": TEXTS, "price": [*range(58), "1,200.50 €", "about five"]})
    assert "targets that cannot be read: 1\n  • a.jsonl:60: 'about five' is no number" in call(
        "check", tmp_path
    )
    unreadable = json.loads(call("check", tmp_path, "--json"))["unreadable"]
    assert unreadable == [{"id": "a.jsonl:60", "target": "about five", "reason": "no number"}]
