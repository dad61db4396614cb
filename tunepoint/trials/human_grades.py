"""What people say of answers: a sheet to fill in, and the grades that come back."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tunepoint.data.examples import Example
from tunepoint.data.rows import read_rows
from tunepoint.errors import DataError, nearest
from tunepoint.files.text import write_text
from tunepoint.task.task import Task
from tunepoint.trials.trial import Trial

GRADING_SHEET = "to_grade.csv"
"""Answers of the finalists that people are asked to grade; beside the study's other files."""
SHEET_COLUMNS = ("item", "input", "reference", "answer", "grade")
REQUIRED_COLUMNS = ("item", "answer", "grade")
SHEET_ITEMS = 60
"""Test items on the sheet."""

Grades = Mapping[tuple[str, str], float]
"""(item, answer) -> mean of what people gave it, 0..1."""


def read_grades(task: Task, folder: Path) -> dict[tuple[str, str], float]:
    """Grades on the study's sheet and in the file that the task names.

    Raises:
        DataError: a file that is missing or lacks a column, or a grade that is not on the scale.

    """
    sheet = folder / GRADING_SHEET
    named = [task.resolve(task.score.human)] if task.score.human is not None else []
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for path in dict.fromkeys([*([sheet] if sheet.exists() else []), *named]):
        _read(path, task.score.scale, found)
    return {key: float(np.mean(given)) for key, given in found.items()}


def _read(path: Path, scale: int, found: dict[tuple[str, str], list[float]]) -> None:
    for line, row in read_rows(path):
        for column in REQUIRED_COLUMNS:
            if column not in row:
                raise DataError(f"{path}:{line}: no column {column!r}; {nearest(column, map(str, row))}")
        given = str(row["grade"] if row["grade"] is not None else "").strip()
        if not given:
            continue
        try:
            grade = float(given.replace(",", "."))
        except ValueError:
            grade = float("nan")
        if not 1 <= grade <= scale:
            raise DataError(
                f"{path}:{line}: grade is {given!r}; a number from 1 to {scale} is expected (score.scale), "
                "or nothing where nobody looked"
            )
        found[str(row["item"]), normalize_answer(str(row["answer"]))].append((grade - 1) / (scale - 1))


def normalize_answer(answer: str) -> str:
    """An answer without what spreadsheets change in it: spaces and line ends."""
    return " ".join(answer.split())


def apply_grades(trials: Sequence[Trial], grades: Grades) -> list[Trial]:
    """The trials with what people gave their answers.

    An answer that could not be read is worth 0 without asking anybody, where people graded
    another arm's answer to the item.
    """
    looked_at = {item for item, _ in grades}
    found = []
    for trial in trials:
        human = grades.get((trial.item, normalize_answer(trial.answer or "")))
        if not trial.format_ok:
            human = 0.0 if trial.item in looked_at else None
        found.append(trial if human is None else trial.model_copy(update={"human": human}))
    return found


def write_grading_sheet(
    folder: Path, trials: Sequence[Trial], test: Sequence[Example], rng: np.random.Generator
) -> None:
    """Write the sheet, once: different answers to random test items, and not whose they are.

    Rows of an item stand together, in random order; the items do too, so that the first
    so many of them are a random sample as well.
    """
    path = folder / GRADING_SHEET
    if path.exists():
        return
    answers: dict[str, dict[str, str]] = defaultdict(dict)
    for trial in trials:
        if trial.format_ok and trial.answer is not None:
            answers[trial.item].setdefault(normalize_answer(trial.answer), trial.answer)
    text = io.StringIO(newline="")
    rows = csv.writer(text)
    rows.writerow(SHEET_COLUMNS)
    for i in rng.permutation(len(test))[:SHEET_ITEMS].tolist():
        example = test[i]
        given = list(answers[example.id].values())
        for k in rng.permutation(len(given)).tolist():
            rows.writerow((example.id, example.input, example.target, given[k], ""))
    write_text(path, text.getvalue())
