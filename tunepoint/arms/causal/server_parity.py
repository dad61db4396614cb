"""A tuned model behind a server: its answers to the validation set against those that were measured."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tunepoint.arms.causal.dev_answers import DEV_ANSWERS_FILE, by_prompt
from tunepoint.arms.causal.model_card import MODEL_FILE
from tunepoint.arms.parity import Parity, parity
from tunepoint.arms.templates import PROMPT_LENGTHS, PromptLength, fill_template, template_for_length
from tunepoint.data.prepare import prepare
from tunepoint.data.split import Split
from tunepoint.errors import StudyError
from tunepoint.files.text import write_json
from tunepoint.models.chat import ChatModel, Reply
from tunepoint.task.task import Task
from tunepoint.trials.grading import task_scorer
from tunepoint.trials.trial import read_trials

PARITY_FILE = "parity.json"
"""In the folder of a tuned model: how its servers compared."""
MAX_DIFFERING_KEPT = 50
"""Differing answers of one prompt that the file keeps."""


@dataclass(frozen=True)
class ParityReport:
    """A server against the measured model, with every prompt that was measured."""

    endpoint: str
    prompts: Mapping[PromptLength, Parity]

    @property
    def holds(self) -> bool:
        """Whether it may be promoted."""
        return all(comparison.holds for comparison in self.prompts.values())

    def __str__(self) -> str:
        return "\n".join(f"{length} prompt: {comparison}" for length, comparison in self.prompts.items())


@dataclass(frozen=True)
class _MeasuredModel:
    """What a comparison needs to know of a tuned model."""

    seed: int
    data_sha256: str
    task_sha256: str
    answer_tokens: int


def check_served(
    folder: Path,
    task: Task,
    endpoint: str,
    *,
    model: ChatModel | None = None,
    prompts: Sequence[PromptLength] = (),
    key_env: str | None = None,
) -> ParityReport:
    """Replay the validation set through an endpoint; keep the result in `parity.json` beside the model.

    Args:
        folder: what `tunepoint tune` wrote.
        task: the one that the model was tuned on.
        endpoint: as `[[models]]` names one: `http://HOST/v1#NAME`.
        model: answers in place of the endpoint; the endpoint itself if None.
        prompts: those to compare; all if empty.

    Raises:
        StudyError: the folder has no tuned model, or it was tuned on other examples.
        ModelError: the server cannot be reached, or does not have the model.

    """
    measured_model = _read_model(folder)
    _read_parity(folder)  # a damaged file is an error before the server gets a request
    split = _split(folder, task, measured_model)
    measured = _measured_answers(folder, split, prompts or PROMPT_LENGTHS)
    scoring = task_scorer(task)
    comparisons: dict[PromptLength, Parity] = {}
    with _opened(endpoint, task, key_env) if model is None else nullcontext(model) as server:
        for length, answers in measured.items():
            template = template_for_length(task, split.train, length)
            template = replace(template, max_output_tokens=measured_model.answer_tokens)
            replies = server.answer([fill_template(template, example) for example in split.dev])
            comparisons[length] = parity(split.dev, answers, replies, scoring)
    report = ParityReport(endpoint, comparisons)
    record_parity(folder, report)
    return report


def record_parity(folder: Path, report: ParityReport) -> None:
    """Add a report to `parity.json`, which keeps the last one of each endpoint."""
    entry = {
        "holds": report.holds,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "prompts": {
            length: {
                **asdict(comparison),
                "holds": comparison.holds,
                "differing": comparison.differing[:MAX_DIFFERING_KEPT],
            }
            for length, comparison in report.prompts.items()
        },
    }
    write_json(folder / PARITY_FILE, {**_read_parity(folder), report.endpoint: entry})


@contextmanager
def _opened(name: str, task: Task, key_env: str | None) -> Iterator[ChatModel]:
    """Open the server; labels are not wrapped into a schema, because the model was measured without one."""
    from tunepoint.models.abilities import Abilities
    from tunepoint.models.endpoints import TextModel
    from tunepoint.models.openai import OpenAIEndpoint

    endpoint = OpenAIEndpoint(name, abilities=Abilities(schema=task.answer.kind == "json"), key_env=key_env)
    try:
        yield TextModel(endpoint)
    finally:
        endpoint.close()


def _read_model(folder: Path) -> _MeasuredModel:
    path = folder / MODEL_FILE
    if not path.exists() or not (folder / DEV_ANSWERS_FILE).exists():
        raise StudyError(
            f"{folder}: no {MODEL_FILE} and {DEV_ANSWERS_FILE} in it; name the --out of `tunepoint tune`"
        )
    facts = _read_object(path)
    missing = {"seed", "data_sha256", "task_sha256", "answer_tokens"} - facts.keys()
    if missing:
        raise StudyError(f"{path}: {', '.join(sorted(missing))} missing; run `tunepoint tune` again")
    return _MeasuredModel(
        int(facts["seed"]), facts["data_sha256"], facts["task_sha256"], int(facts["answer_tokens"])
    )


def _read_parity(folder: Path) -> dict[str, Any]:
    path = folder / PARITY_FILE
    return _read_object(path) if path.exists() else {}


def _read_object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise StudyError(f"{path}: damaged ({error}); delete it and run the command again") from None
    if not isinstance(content, dict):
        raise StudyError(f"{path}: holds no JSON object; delete it and run the command again")
    return content


def _split(folder: Path, task: Task, model: _MeasuredModel) -> Split:
    """Split the task's examples as the model was tuned on them."""
    prepared = prepare(task, model.seed)
    if prepared.fingerprint != model.data_sha256 or task.trials_fingerprint() != model.task_sha256:
        raise StudyError(
            f"{folder}: was tuned on other examples or another instruction than {task.name} has now, so its "
            "answers cannot be compared. Run `tunepoint tune` again, or name the task as it was"
        )
    return prepared.split


def _measured_answers(
    folder: Path, split: Split, prompts: Sequence[PromptLength]
) -> dict[PromptLength, list[Reply]]:
    path = folder / DEV_ANSWERS_FILE
    answers = by_prompt(read_trials(path), split.dev)
    lacking = [length for length in prompts if length not in answers]
    if lacking:
        raise StudyError(
            f"{path}: lacks answers to the whole validation set with the prompts {', '.join(lacking)}; run "
            "`tunepoint tune` again with the same --out, which measures without training again"
        )
    return {length: answers[length] for length in prompts}
