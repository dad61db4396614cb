"""Copies and targets: what tells inputs apart, and what a target of each kind must be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tunepoint import Example, Task, prepare
from tunepoint.data.copies import copy_key
from tunepoint.data.dedupe import deduplicate, link_near_duplicates, match_near_duplicates
from tunepoint.data.targets import label_spellings, unreadable_targets
from tunepoint.errors import DataError
from tunepoint.models.chat import AnswerKind


def examples(*pairs: tuple[str, str]) -> list[Example]:
    return [Example(f"r{i}", text, target) for i, (text, target) in enumerate(pairs)]


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("Hello there!", "hello  THERE"),
        ("Which?", "which"),
        ("2 + 2", "2+2"),
        ("great :)", "Great :)!"),
        ("well-known, I think", "Well known I think."),
        ('he said "yes" twice', "he said yes twice"),
        ("don't", "don’t"),
        ("I love C++.", "i love c++"),
        ("ＡＢＣ", "abc"),
        ("in 2020, we", "in 2020 we"),
        ("Bonjour !", "bonjour"),
    ],
)
def test_copies_differ_in_case_spaces_and_punctuation_of_prose(text: str, other: str) -> None:
    assert copy_key(text) == copy_key(other)


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("2 + 2", "2 - 2"),
        ("day 0 :)", "day 0 :("),
        ("great 👍", "great 👎"),
        ("c++", "c#"),
        ("-1", "1"),
        ("हाँ", "हूँ"),
        ("1.5", "15"),
        ("1,5 kg", "1 5 kg"),
        ("5! + 3", "5 + 3"),
        ('a 5" screen', "a 5' screen"),
        ("10²", "102"),
        ("$5", "5%"),
        ("?", "!"),
        ("a-b", "a b"),
        ("x == y", "x != y"),
    ],
)
def test_signs_tell_texts_apart(text: str, other: str) -> None:
    assert copy_key(text) != copy_key(other)
    clean = deduplicate(examples((text, "a"), (other, "b")))
    assert len(clean.kept) == 2 and not clean.contradictions


def test_a_long_text_has_a_key_too() -> None:
    assert len(copy_key("so, :) 5! " * 50_000)) > 100_000


def test_copies_whose_targets_say_the_same_do_not_contradict(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        "text,label\n" + "".join(f"what is {i * 7919:x}?,{i}\n" for i in range(40))
    )
    with (tmp_path / "a.csv").open("a") as file:
        file.write("What is 0,0.0\nwhat is 1eef,2\n")
    prepared = prepare(task(tmp_path, kind="number"), 0)
    assert [(row.id, row.reason) for row in prepared.audit.dropped] == [
        ("a.csv:42", "copy of a.csv:2"),
        ("a.csv:3", "contradicts a.csv:43"),
        ("a.csv:43", "contradicts a.csv:3"),
    ]


def test_turns_that_conversations_share_do_not_make_them_alike() -> None:
    things = [f"{i * 7919:x} {i * 104729:x}" for i in range(30)]
    turns = "assistant: Thank you, one moment please.\nuser: please decide now, I have been waiting for hours"
    talks = [f"user: {thing}\n{turns}" for thing in things]
    assert link_near_duplicates(talks) == []
    assert match_near_duplicates(talks[:15], talks[15:]) == {}
    assert link_near_duplicates([*talks, talks[3]]) == [(3, 30)]


def task(folder: Path, **answer: Any) -> Task:
    data = {"path": "a.csv", "input": "text", "target": "label"}
    return Task.parse({"name": "t", "data": data, "answer": answer}, folder=folder)


def rows(labels: str) -> str:
    different = (f"message {i * 7919:x} of {i * 104729:x}" for i in range(60))
    return "".join(f"{text},{labels.split()[i % len(labels.split())]}\n" for i, text in enumerate(different))


def test_one_and_one_point_zero_are_one_label(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\n" + rows("1 1.0 2"))
    audit = prepare(task(tmp_path), 0).audit
    assert audit.counts == {"1": 40, "2": 20}
    assert audit.notes == ("20 targets '1.0' counted as the label '1'",)
    declared = prepare(task(tmp_path, labels={"1.0": "low", "2": "high"}), 0)
    assert declared.audit.counts == {"1.0": 40, "2": 20}


def test_labels_are_another_spelling_only_as_the_same_whole_number() -> None:
    assert label_spellings(["1.0", "1", "-2.00", "-2", "1.5", "01", "v1.0"]) == {"1.0": "1", "-2.00": "-2"}
    assert label_spellings(["1.0", "2.0"]) == {}
    assert label_spellings(["1.0", "2.0"], ["1", "2"]) == {"1.0": "1", "2.0": "2"}
    assert label_spellings(["1.0", "1"], ["1", "1.0"]) == {}


def test_a_label_that_reads_like_a_missing_value_is_pointed_at(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\n" + rows("a NaN b"))
    (note,) = prepare(task(tmp_path), 0).audit.notes
    assert note.startswith("20 targets 'NaN', the first at a.csv:3: if that means a missing value")


@pytest.mark.parametrize(
    ("kind", "target", "reason"),
    [
        ("number", "about five", "no number"),
        ("number", "−1.200,50 €", None),
        ("json", '{"a": [1]}', None),
        ("json", "[]", None),
        ("json", "{'a': None, 'b': True}", "Python's notation, not JSON; write it with json.dumps"),
        ("json", "['a']", "Python's notation, not JSON; write it with json.dumps"),
        ("json", '{"a": ', "no JSON"),
        ("json", "5", "no JSON object or list"),
        ("json", "[" * 100_000, "no JSON"),
        ("label", "anything", None),
        ("text", "anything", None),
    ],
)
def test_targets_that_are_not_what_the_task_says(kind: AnswerKind, target: str, reason: str | None) -> None:
    unreadable = unreadable_targets(kind, examples(("a", target)))
    assert [(finding.id, finding.reason) for finding in unreadable] == ([("r0", reason)] if reason else [])


def test_an_error_of_too_few_examples_says_why_rows_went(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,label\n" + "".join(f"the same!,{'ab'[i % 2]}\n" for i in range(30)) + "gone,\n")
    with pytest.raises(DataError) as error:
        prepare(task(tmp_path), 0)
    assert str(error.value) == (
        "no example is left. 31 of 31 rows were left out: 30 contradict a copy of their input, which has "
        "another target (the first: a.csv:2 contradicts a.csv:3); 1 empty target (the first: a.csv:32)"
    )
    with path.open("a") as file:
        file.write("one,a\n one.,a\nother,b\n")
    with pytest.raises(
        DataError, match=r"2 examples in .* 1 are copies \(the first: a\.csv:34 copy of a\.csv:33\)"
    ):
        prepare(task(tmp_path), 0)
