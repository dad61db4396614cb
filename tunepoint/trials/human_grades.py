"""People's grades: a sheet of answers to fill in, and the grades that come back."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from tunepoint.data.examples import Example
from tunepoint.data.rows import read_rows
from tunepoint.errors import DataError, nearest
from tunepoint.files.cells import escape_cell, unescape_cell
from tunepoint.files.text import write_text
from tunepoint.task.task import Task
from tunepoint.trials.trial import Trial, normalize_answer

GRADING_SHEET = "to_grade.csv"
"""Answers of the finalists for people to grade; in the folder of the study."""
SHEET_COLUMNS = ("item", "input", "reference", "answer", "grade")
REQUIRED_COLUMNS = ("item", "answer", "grade")
SHEET_ITEMS = 60
"""Test items on the sheet."""

Grades = Mapping[tuple[str, str], float]
"""(item, normalized answer) -> mean of people's grades, 0..1."""


def read_grades(task: Task, folder: Path) -> dict[tuple[str, str], float]:
    """Return the grades on the study's sheet and in the file that the task names.

    Args:
        task: names a file of its own in `score.human`, and the scale.
        folder: of the study.

    Raises:
        DataError: a file is missing or lacks a column, or a grade is not on the scale.

    """
    sheet = folder / GRADING_SHEET
    own_files = [task.resolve(task.score.human)] if task.score.human is not None else []
    grades: dict[tuple[str, str], list[float]] = defaultdict(list)
    # The task may name the sheet itself: then it counts once.
    for path in dict.fromkeys([*([sheet] if sheet.exists() else []), *own_files]):
        for key, grade in _read(path, task.score.scale):
            grades[key].append(grade)
    return {key: float(np.mean(values)) for key, values in grades.items()}


def _read(path: Path, scale: int) -> Iterator[tuple[tuple[str, str], float]]:
    """Yield (item, normalized answer) and grade, 0..1, of the rows that somebody graded."""
    for line, row in read_rows(path):
        for column in REQUIRED_COLUMNS:
            if column not in row:
                raise DataError(f"{path}:{line}: no column {column!r}; {nearest(column, map(str, row))}")
        cell = str(row["grade"] if row["grade"] is not None else "").strip()
        if not cell:
            continue
        key = unescape_cell(str(row["item"])), normalize_answer(unescape_cell(str(row["answer"])))
        yield key, (_grade(path, line, cell, scale) - 1) / (scale - 1)


def _grade(path: Path, line: int, cell: str, scale: int) -> float:
    """Return the grade in a cell, with a decimal point or comma.

    Raises:
        DataError: the cell holds something else than a number on the scale.

    """
    try:
        grade = float(cell.replace(",", "."))
    except ValueError:
        grade = float("nan")
    if not 1 <= grade <= scale:
        raise DataError(
            f"{path}:{line}: grade is {cell!r}; expected a number from 1 to {scale} (score.scale), "
            "or an empty cell if nobody graded the answer"
        )
    return grade


def apply_grades(trials: Sequence[Trial], grades: Grades) -> list[Trial]:
    """Return the trials with people's grades of their answers.

    An unreadable answer counts 0 on items of which people graded another answer: nobody has to
    look at it, and without a grade the arm would seem better on the graded items.
    """
    graded_items = {item for item, _ in grades}
    graded = []
    for trial in trials:
        human = grades.get((trial.item, normalize_answer(trial.answer or "")))
        if not trial.format_ok:
            human = 0.0 if trial.item in graded_items else None
        graded.append(trial if human is None else trial.model_copy(update={"human": human}))
    return graded


def write_grading_sheet(
    folder: Path, trials: Sequence[Trial], test: Sequence[Example], rng: np.random.Generator
) -> None:
    """Write the sheet, once: the distinct answers to random test items, without the arms' names.

    The answers to an item stand together, in random order. The items are in random order too, so
    that those graded first are a random sample of the test set as well.
    """
    path = folder / GRADING_SHEET
    if path.exists():
        return  # people may have begun to fill it in
    # Arms that answer alike share a row, and a grade.
    answers: dict[str, dict[str, str]] = defaultdict(dict)
    for trial in trials:
        if trial.format_ok and trial.answer is not None:
            answers[trial.item].setdefault(normalize_answer(trial.answer), trial.answer)
    text = io.StringIO(newline="")
    rows = csv.writer(text)
    rows.writerow(SHEET_COLUMNS)
    for i in rng.permutation(len(test))[:SHEET_ITEMS].tolist():
        example = test[i]
        item_answers = list(answers[example.id].values())
        for k in rng.permutation(len(item_answers)).tolist():
            cells = (example.id, example.input, example.target, item_answers[k], "")
            rows.writerow(map(escape_cell, cells))
    write_text(path, text.getvalue())
