"""Examples and settings for other tools to train with: training and validation set, never the test set."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunepoint.arms.causal.export_forms import FORMS
from tunepoint.arms.causal.from_task import recipe_of
from tunepoint.arms.templates import chat_rows
from tunepoint.data.licences import open_to_training, trainable
from tunepoint.data.prepare import Prepared
from tunepoint.errors import TaskError, nearest
from tunepoint.files.text import make_folder, write_text
from tunepoint.task.sections import Tune
from tunepoint.task.task import Task

BASE = "OWNER/BASE-MODEL"
"""Placeholder where the task names no base."""


@dataclass(frozen=True)
class ExportedData:
    """The files that were written."""

    files: tuple[Path, ...]
    train: int
    dev: int
    next: str
    """The command that trains with it."""


def export_examples(task: Task, prepared: Prepared, folder: Path, form: str) -> ExportedData:
    """Write training and validation set for another tool, in the messages that a tuned model gets here.

    Args:
        task: names the instruction and the base.
        prepared: the split examples of the task.
        folder: to write.
        form: `openai`, `together`, `fireworks`, `huggingface`, `axolotl`, `llama-factory` or `unsloth`.

    Raises:
        TaskError: the form is unknown.
        StudyError: the folder cannot be written.

    """
    if form not in FORMS:
        raise TaskError(f"export form {form!r}; {nearest(form, (*FORMS, 'onnx', 'gguf', 'ollama'))}")
    make_folder(folder)
    split = prepared.split
    parts = {
        "train": chat_rows(task, trainable(task, split.train), split.train),
        "dev": chat_rows(task, open_to_training(task, split.dev), split.train),
    }
    files = {f"{name}.jsonl": "".join(map(_line, rows)) for name, rows in parts.items()}
    tune = next((tune for tune in task.tune if tune.provider is None), Tune(base=BASE))
    settings, command = FORMS[form](tune.base, recipe_of(tune))
    for name, text in {**files, **settings}.items():
        write_text(folder / name, text)
    written = tuple(folder / name for name in (*files, *settings))
    return ExportedData(written, len(parts["train"]), len(parts["dev"]), command.format(folder=folder))


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"
