"""A tuned model behind another server: dev replayed through the real endpoint, against what was measured."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from tunepoint.arms.parity import Parity, measured_reply, parity
from tunepoint.arms.templates import PROMPT_LENGTHS, PromptLength, fill_template, template_for_length
from tunepoint.data.examples import Example
from tunepoint.data.prepare import prepare
from tunepoint.errors import StudyError
from tunepoint.files.text import write_json
from tunepoint.models.chat import ChatModel, Reply
from tunepoint.task.task import Task
from tunepoint.trials.scorers import task_scorer
from tunepoint.trials.trial import Trial, read_trials

MODEL_FILE, DEV_ANSWERS_FILE, PARITY_FILE = "tunepoint.json", "dev.jsonl", "parity.json"
"""In the folder of a tuned model: what it is, what it answered, and how servers compared."""


@dataclass(frozen=True)
class ParityReport:
    """A server against the measured model, with every prompt that was measured."""

    endpoint: str
    prompts: Mapping[PromptLength, Parity]

    @property
    def holds(self) -> bool:
        """Whether it may be promoted."""
        return all(found.holds for found in self.prompts.values())

    def __str__(self) -> str:
        return "\n".join(f"{diet} prompt: {found}" for diet, found in self.prompts.items())


def check_served(
    folder: Path,
    task: Task,
    endpoint: str,
    *,
    model: ChatModel | None = None,
    prompts: Sequence[PromptLength] = (),
) -> ParityReport:
    """Replay dev through an endpoint; what was found is kept in `parity.json` beside the model.

    Args:
        folder: what `tunepoint tune` wrote.
        task: of which it was tuned.
        endpoint: as `[[models]]` names one: `http://HOST/v1#NAME`.
        model: answers in the endpoint's place; the endpoint itself if None.
        prompts: those to compare; all that were measured if empty.

    Raises:
        StudyError: the folder is none of a tuned model, or was tuned on other examples.
        ModelError: the server cannot be reached, or does not have the model.

    """
    facts = _facts(folder)
    if (folder / PARITY_FILE).exists():
        _json(folder / PARITY_FILE)  # damaged, it is said before anybody is asked
    prepared = prepare(task, int(facts["seed"]))
    if prepared.fingerprint != facts["data_sha256"] or task.measured_by() != facts["task_sha256"]:
        raise StudyError(
            f"{folder}: was tuned on other examples or another instruction than those of {task.name} now; "
            "what was measured can only be compared on the same ones. Tune anew, or take the task of then"
        )
    split = prepared.split
    measured = by_prompt(read_trials(folder / DEV_ANSWERS_FILE), split.dev)
    lacking = [diet for diet in prompts or PROMPT_LENGTHS if diet not in measured]
    if lacking:
        raise StudyError(
            f"{folder / DEV_ANSWERS_FILE}: lacks answers to all of dev with the prompts {', '.join(lacking)}; run "
            "`tunepoint tune` again with the same --out: it measures without training anew"
        )
    wanted = {diet: measured[diet] for diet in prompts or PROMPT_LENGTHS}
    scoring = task_scorer(task)
    room = int(facts["answer_tokens"])
    found: dict[PromptLength, Parity] = {}
    with _opened(endpoint, task) if model is None else nullcontext(model) as asked:
        for diet, before in wanted.items():
            template = replace(template_for_length(task, split.train, diet), max_output_tokens=room)
            now = asked.answer([fill_template(template, example) for example in split.dev])
            found[diet] = parity(split.dev, before, now, scoring)
    served = ParityReport(endpoint, found)
    record_parity(folder, served)
    return served


@contextmanager
def _opened(name: str, task: Task) -> Iterator[ChatModel]:
    """The server, asked without a schema of ours around a label: the model was measured without it."""
    from tunepoint.models.endpoints import TextModel
    from tunepoint.models.openai import Abilities, OpenAIEndpoint

    endpoint = OpenAIEndpoint(name, abilities=Abilities(schema=task.answer.kind == "json"))
    try:
        yield TextModel(endpoint)
    finally:
        endpoint.close()


def _facts(folder: Path) -> dict[str, Any]:
    if not (folder / MODEL_FILE).exists() or not (folder / DEV_ANSWERS_FILE).exists():
        raise StudyError(f"{folder}: no {MODEL_FILE} and {DEV_ANSWERS_FILE} in it; name the --out of `tunepoint tune`")
    facts = _json(folder / MODEL_FILE)
    missing = {"seed", "data_sha256", "task_sha256", "answer_tokens"} - facts.keys()
    if missing:
        raise StudyError(
            f"{folder / MODEL_FILE}: {', '.join(sorted(missing))} missing; run `tunepoint tune` again"
        )
    return facts


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise StudyError(f"{path}: damaged ({error}); delete it and run the command again") from None
    if not isinstance(content, dict):
        raise StudyError(f"{path}: holds no JSON object; delete it and run the command again")
    return content


def record_parity(folder: Path, served: ParityReport) -> None:
    """Add what a server's replay gave to `parity.json`, by endpoint; the last one counts."""
    path = folder / PARITY_FILE
    before = _json(path) if path.exists() else {}
    found = {
        "holds": served.holds,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "prompts": {
            diet: {**asdict(one), "holds": one.holds, "differing": one.differing[:50]}
            for diet, one in served.prompts.items()
        },
    }
    write_json(path, {**before, served.endpoint: found})


def dev_trials(
    replies: Mapping[PromptLength, Sequence[Reply]],
    dev: Sequence[Example],
    scores: Mapping[PromptLength, Sequence[float]],
) -> list[Trial]:
    """Answers to dev as trials; the arm is the prompt."""
    return [
        Trial(
            arm=diet,
            item=example.id,
            score=score,
            format_ok=reply.answer is not None,
            input_tokens=reply.usage.input_tokens or None,
            output_tokens=reply.usage.output_tokens or None,
            answer=reply.answer if reply.answer is not None else reply.text,
            error=reply.error,
        )
        for diet, said in replies.items()
        for example, reply, score in zip(dev, said, scores[diet], strict=True)
    ]


def by_prompt(trials: Sequence[Trial], dev: Sequence[Example]) -> dict[PromptLength, list[Reply]]:
    """What `dev_trials` wrote, as replies in the order of dev; prompts that answered all of it."""
    found = {(trial.arm, trial.item): trial for trial in trials}
    names = dict.fromkeys(trial.arm for trial in trials)
    return {
        cast("PromptLength", name): [measured_reply(found[name, e.id]) for e in dev]
        for name in names
        if all((name, e.id) in found for e in dev)
    }
