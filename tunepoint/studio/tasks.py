"""A task as a form: drafted from a data file, corrected by people, written as task.toml."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain, count
from pathlib import Path
from typing import Any

import tomlkit
from pydantic import BaseModel, ConfigDict, Field
from tomlkit.items import AoT, Table

from tunepoint.data.prepare import prepare
from tunepoint.data.rows import read_table
from tunepoint.data.table import cell_text, column_names
from tunepoint.data.task_draft import DEFAULT_METRICS, draft_task
from tunepoint.errors import TaskError
from tunepoint.files.text import read_text, write_text
from tunepoint.models.chat import AnswerKind
from tunepoint.models.production_log import read_production_log
from tunepoint.studio.workspace import TASK_FILE
from tunepoint.task.sections import RECORDED_PREFIX
from tunepoint.task.task import Task

PREVIEW_ROWS = 3
MAX_CELL = 200
"""Characters of a cell in the preview."""
PROMPT_FILES = ("prompt.txt", "studio-prompt.txt")
PROMPT_NAMES = ("today", "studio")
"""Of a prompt that is written here, the first that is free."""


class TaskForm(BaseModel):
    """What people fill in. Lists of columns and models are as in task.toml."""

    model_config = ConfigDict(extra="forbid")

    instruction: str = Field(max_length=20_000)
    inputs: list[str] = Field(min_length=1)
    target: str
    group: str | None = None
    kind: AnswerKind
    queries_per_month: float = Field(gt=0, le=1e12)
    horizon_months: float = Field(gt=0, le=600)
    error_usd: float | None = Field(default=None, ge=0, le=1e9)
    models: list[str] = Field(default_factory=list, max_length=20)
    prompt: str = Field(default="", max_length=100_000)
    """Words of the prompt in production; empty for none."""


def draft(data: Path) -> list[str]:
    """Write a first task.toml beside a data file; return what was guessed.

    Raises:
        DataError: the file holds no examples.

    """
    drafted = draft_task(data)
    write_text(data.parent / TASK_FILE, drafted.toml())
    return drafted.guesses


def task_form(folder: Path) -> dict[str, Any]:
    """Return a task as the form shows it, with the columns and first rows of its data.

    Raises:
        TaskError: task.toml cannot be read.

    """
    task = Task.load(folder)
    data, traffic = task.data, task.traffic
    if data is None or data.path is None:
        raise TaskError(f"{folder / TASK_FILE}: has no [data] path; edit the file, the studio cannot show it")
    table = read_table(task.resolve(data.path))
    names = [name for name in column_names(table.rows) if name]
    first = [row for _, row in table.rows[:PREVIEW_ROWS]]
    return {
        "name": task.name,
        "file": str(data.path),
        "columns": names,
        "rows": len(table.rows),
        "example": f"{data.path.name}:{table.rows[0][0]}" if data.id is None and table.rows else "your ids",
        "preview": [{name: cell_text(row.get(name))[:MAX_CELL] for name in names} for row in first],
        "form": TaskForm(
            instruction=task.instruction,
            inputs=[data.input] if isinstance(data.input, str) else list(data.input),
            target=data.target,
            group=data.group,
            kind=task.answer.kind,
            queries_per_month=traffic.queries_per_month.likely,
            horizon_months=traffic.horizon_months,
            error_usd=None if task.value.error_usd is None else float(task.value.error_usd),
            models=[model.name for model in task.models],
            prompt=_prompt(folder, task),
        ).model_dump(),
        "toml": read_text(folder / TASK_FILE, TaskError),
    }


def _prompt(folder: Path, task: Task) -> str:
    place = _own_prompt([prompt.model_dump(mode="json", exclude_none=True) for prompt in task.prompts])
    if place is None:
        return ""
    path = folder / str(task.prompts[place].messages)
    return read_text(path, TaskError) if path.exists() else ""


def save_task(folder: Path, form: TaskForm) -> None:
    """Write a form into task.toml; keys and comments that it does not show stay as they are.

    Raises:
        TaskError: the task would make no sense; the file is left as it was.

    """
    path, task = folder / TASK_FILE, Task.load(folder)
    if form.target in form.inputs:
        raise TaskError(f"{form.target!r} is the column of the right answer; take it out of the input")
    before = read_text(path, TaskError)
    document = tomlkit.parse(before)
    assert task.data is not None
    others = (form.target, form.kind) != (task.data.target, task.answer.kind)
    try:
        _fill(document, form, others=others)
        prompts = _keep_prompt(document, folder, form.prompt)
    except (TypeError, AttributeError, KeyError) as error:
        raise TaskError(f"{path}: the studio cannot change how it is written ({error}); edit it") from None
    former = {file: file.read_text(encoding="utf-8") if file.exists() else None for file in prompts}
    _write({**prompts, path: tomlkit.dumps(document)})
    try:
        Task.load(folder).written_messages()
    except TaskError:
        _write({**former, path: before})
        raise


def add_log(folder: Path, log: Path, prices: Mapping[str, float]) -> str:
    """Name a log of what runs today among the models of a task; return how much of the data it answers.

    Args:
        folder: of the task.
        log: beside it.
        prices: dollars per million `input` and `output` tokens; empty if its answers cost nothing.

    Raises:
        DataError: the log cannot be read.
        TaskError: it answers no example of the task, or the task cannot have it; the file is left as it was.

    """
    task = Task.load(folder)
    answers = read_production_log(log, log.stem)
    examples = prepare(task, 0).examples
    answered = sum(answers.output_for(example.id, example.input) is not None for example in examples)
    if not answered:
        logged, first = next(iter(answers.outputs)), examples[0]
        raise TaskError(
            f"{log.name}: none of its {len(answers.outputs):,} answers is to one of the {len(examples):,} "
            f"examples; its first line answers {logged[:MAX_CELL]!r}, and the first example is {first.id!r} "
            f"with the input {first.input[:MAX_CELL]!r}: name it in `item` or `input`"
        )
    if prices and prices.keys() != {"input", "output"}:
        raise TaskError("give the price of the input tokens and of the output tokens, or neither")
    path = folder / TASK_FILE
    before = read_text(path, TaskError)
    document = tomlkit.parse(before)
    table = tomlkit.table()
    table["name"] = f"{RECORDED_PREFIX}{log.name}"
    if prices:
        table["price"] = tomlkit.inline_table()
        table["price"].update({key: _number(price) for key, price in prices.items()})
    models = document.get("models", AoT([]))
    models.append(table)
    document["models"] = models
    _write({path: tomlkit.dumps(document)})
    try:
        Task.load(folder)
    except TaskError:
        _write({path: before})
        raise
    return f"{log.name} answers {answered:,} of {len(examples):,} examples."


def _write(contents: Mapping[Path, str | None]) -> None:
    """Write files; None deletes one."""
    for path, text in contents.items():
        if text is None:
            path.unlink(missing_ok=True)
        else:
            write_text(path, text)


def _fill(document: tomlkit.TOMLDocument, form: TaskForm, *, others: bool) -> None:
    """Write a form; where the answers are others, what was said of the former ones goes."""
    document["instruction"] = form.instruction
    data, answer = _section(document, "data"), _section(document, "answer")
    data["input"] = form.inputs[0] if len(form.inputs) == 1 else form.inputs
    if others:
        for key in ("labels", "json_schema"):
            answer.pop(key, None)
        _section(document, "score")["metric"] = DEFAULT_METRICS[form.kind]
    data["target"] = form.target
    if form.group:
        data["group"] = form.group
    else:
        data.pop("group", None)
    answer["kind"] = form.kind
    traffic = _section(document, "traffic")
    if _likely(traffic.get("queries_per_month")) != form.queries_per_month:
        traffic["queries_per_month"] = _number(form.queries_per_month)
    traffic["horizon_months"] = _number(form.horizon_months)
    value = _section(document, "value")
    if form.error_usd is None:
        value.pop("error_usd", None)
    else:
        value["error_usd"] = _number(form.error_usd)
    _keep_named(document, "models", form.models)


def _section(document: tomlkit.TOMLDocument, name: str) -> Table:
    if name not in document:
        document[name] = tomlkit.table()
    section = document[name]
    if not isinstance(section, Table):
        raise TypeError(f"{name} is not a table")
    return section


def _likely(value: Any) -> float | None:
    """The middle of [low, likely, high], or a single number."""
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 3:
        return float(value[1])
    return float(value) if isinstance(value, int | float) else None


def _number(value: float) -> float | int:
    return int(value) if value == int(value) else value


def _keep_named(document: tomlkit.TOMLDocument, key: str, names: Sequence[str]) -> None:
    """Keep the tables of these names with all of their keys, add missing ones, and drop others."""
    present: Mapping[str, Any] = {str(table["name"]): table for table in document.get(key, ())}
    if list(present) == list(names):
        return
    tables = AoT([])
    for name in names:
        table = present.get(name)
        if table is None:
            table = tomlkit.table()
            table["name"] = name
        tables.append(table)
    document.pop(key, None)
    if names:
        document[key] = tables


def _own_prompt(prompts: Sequence[Any]) -> int | None:
    """The position of the prompt that the form shows: the first that is a text file for all models."""
    for place, prompt in enumerate(prompts):
        if isinstance(prompt.get("messages"), str) and prompt["messages"].endswith(".txt"):
            return place if "models" not in prompt else None
    return None


def _keep_prompt(document: tomlkit.TOMLDocument, folder: Path, words: str) -> dict[Path, str | None]:
    """Write the form's prompt into its section; return its file's new words, None to delete the file.

    Other prompts of the task stay as they are.
    """
    prompts = document.get("prompts")
    if prompts is None:
        prompts = AoT([])
    place = _own_prompt(prompts)
    if place is None and not words.strip():
        return {}
    if place is None:
        taken = {prompt["name"] for prompt in prompts}
        table = tomlkit.table()
        table["name"] = next(name for name in (*PROMPT_NAMES, f"studio {len(taken)}") if name not in taken)
        numbered = (f"studio-prompt-{number}.txt" for number in count(2))
        files = chain(PROMPT_FILES, numbered)
        table["messages"] = next(name for name in files if not (folder / name).exists())
        prompts.append(table)
        document["prompts"] = prompts
        return {folder / table["messages"]: words}
    file = folder / str(prompts[place]["messages"])
    if words.strip():
        return {file: words}
    del prompts[place]
    if not len(prompts):
        del document["prompts"]
    return {file: None}
