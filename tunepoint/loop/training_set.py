"""The task of a later study: its training set grows by harvested examples, its other parts stay."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tunepoint.capture.harvest import Harvest, write_examples
from tunepoint.data.examples import Example
from tunepoint.data.split import Split
from tunepoint.files.text import make_folder, write_text
from tunepoint.task.task import Task

PARTS = ("train", "dev", "test")
COLUMNS = ("input", "target", "group", "origin", "id")


def task_with_harvest(task: Task, split: Split, harvest: Harvest, folder: Path) -> Task:
    """Return the task on given parts: validation and test set as they are, train with the harvest.

    The parts are written once: a study that was killed resumes with the same examples.

    Args:
        split: of the labelled examples.
        folder: for the parts, of one study.

    """
    make_folder(folder)
    files = {part: folder / f"{part}.jsonl" for part in PARTS}
    if not all(path.exists() for path in files.values()):
        # Without its data section, so that the columns are the usual ones.
        write_examples(harvest, task.model_copy(update={"data": None}), folder / "harvested.jsonl")
        harvested = tuple(item.example for item in harvest.examples)
        parts = {"train": (*split.train, *harvested), "dev": split.dev, "test": split.test}
        for part, examples in parts.items():
            lines = [json.dumps(_row(example), ensure_ascii=False) for example in examples]
            write_text(files[part], "".join(f"{line}\n" for line in lines))
    content = task.portable()["task"]
    columns = {column: column for column in COLUMNS}
    content["data"] = {**{part: str(path.resolve()) for part, path in files.items()}, **columns}
    return Task.parse(content, where=str(folder), folder=task.folder)


def _row(example: Example) -> dict[str, Any]:
    return {
        "id": example.id,
        "input": example.input,
        "target": example.target,
        "origin": example.origin,
        "group": example.group or example.id,
    }
