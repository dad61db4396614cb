"""Cells that people open in a spreadsheet."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunepoint import Task
from tunepoint.data.examples import Example
from tunepoint.files.cells import escape_cell, unescape_cell
from tunepoint.trials.human_grades import GRADING_SHEET, read_grades, write_grading_sheet
from tunepoint.trials.trial import Trial

FORMULAS = ('=HYPERLINK("http://x")', "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "'=1", "''-1", "＝1")
PLAIN = ("", "billing", "'quoted'", "a=b", "1-1", "'")


@pytest.mark.parametrize("text", FORMULAS)
def test_a_formula_becomes_text(text: str) -> None:
    assert escape_cell(text) == f"'{text}"


@pytest.mark.parametrize("text", PLAIN)
def test_other_texts_stay_as_they_are(text: str) -> None:
    assert escape_cell(text) == unescape_cell(text) == text


@given(st.text(alphabet="'=+-@\t\r\nab＝", max_size=6))
def test_every_text_is_read_back_unchanged(text: str) -> None:
    assert unescape_cell(escape_cell(text)) == text


def test_a_sheet_without_apostrophes_is_read_too() -> None:
    assert unescape_cell("-1") == "-1"


def test_grades_of_answers_that_look_like_formulas_come_back(tmp_path: Path) -> None:
    task = Task.parse({"name": "t", "answer": {"kind": "text"}})
    texts = [*FORMULAS, *filter(str.strip, PLAIN)]
    examples = [Example(f"-{i}", f"@{text}", text) for i, text in enumerate(texts)]
    trials = [
        Trial(arm="a", item=example.id, group=example.id, score=1.0, answer=example.target)
        for example in examples
    ]
    write_grading_sheet(tmp_path, trials, examples, np.random.default_rng(0))
    sheet = tmp_path / GRADING_SHEET
    with sheet.open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert not any(cell.startswith(tuple("=+-@\t\r")) for row in rows for cell in row)
    with sheet.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *([*row[:-1], "5"] for row in rows)])
    grades = read_grades(task, tmp_path)
    assert set(grades) == {(example.id, " ".join(example.target.split())) for example in examples}
