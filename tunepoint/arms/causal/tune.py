"""Tune one language model on a task, outside a study, and write it down with its card."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunepoint.arms.causal.from_task import causal_arms
from tunepoint.arms.causal.server_parity import DEV_ANSWERS_FILE, MODEL_FILE, dev_trials
from tunepoint.arms.contract import Built
from tunepoint.arms.parity import Parity, parity
from tunepoint.arms.templates import PromptLength
from tunepoint.data.examples import Example, fingerprint
from tunepoint.data.prepare import prepare
from tunepoint.data.split import Split
from tunepoint.errors import ModelError, StudyError, TaskError
from tunepoint.files.text import make_folder, write_json, write_text
from tunepoint.models.chat import Reply
from tunepoint.stats.intervals import Interval
from tunepoint.stats.streams import Stream, stream
from tunepoint.task.sections import JUDGE, Tune
from tunepoint.task.task import Task
from tunepoint.trials.scorers import BatchScorer, score_replies, task_scorer
from tunepoint.trials.table import mean_interval

if TYPE_CHECKING:
    from tunepoint.arms.causal.causal import CausalBase, CausalTuned, TrainingQuote
    from tunepoint.arms.causal.sft import Launch, Watch


@dataclass(frozen=True)
class TunedModel:
    """A tuned model on disk."""

    folder: Path
    """The adapter, or the whole model after full fine-tuning; its README.md is the card."""
    merged: Path | None
    """The base with the adapter in it, where that was asked for and answers the same."""
    scores: Mapping[PromptLength, Interval]
    """Prompt -> score on dev."""
    warnings: tuple[str, ...]
    parity: Parity | None = None


def tune_model(
    task: Task,
    base: Tune,
    out: Path,
    *,
    seed: int = 0,
    merge: bool = False,
    confirm: Callable[[TrainingQuote], None] | None = None,
    watch: Watch | None = None,
    launch: Launch | None = None,
) -> TunedModel:
    """Train on the task's train part, measure on dev, write the weights; the test stays sealed.

    Args:
        out: folder for the model; a run that was killed goes on there.
        seed: the same split as that of a study with this seed, and the training seed.
        merge: write the merged model as well, and only if it answers dev as the adapter does.
        confirm: called with the quote before training; raise to stop.
        launch: trains in processes of its own (`tuning.launches.Launched`); in this one if None.

    Raises:
        TunepointError: whatever the user can mend; a merged model that answers otherwise is not kept.

    """
    _check_scored(task)
    prepared = prepare(task, seed)
    make_folder(out)
    split = prepared.split
    quote, arms = causal_arms(base, base.base, task, split.train, split.dev, out / "runs")
    shared = arms[0].base
    shared.watch, shared.launch = watch, launch
    if confirm is not None and not (out / MODEL_FILE).exists():
        confirm(quote)
    scoring = task_scorer(task)
    replies: dict[PromptLength, list[Reply]] = {
        arm.diet: _answers(arm, task, split.train, split.dev, seed) for arm in arms
    }
    dev_scores = {diet: score_replies(scoring, replies[diet], split.dev).tolist() for diet in replies}
    trials = dev_trials(replies, split.dev, dev_scores)
    scores = {diet: mean_interval([t for t in trials if t.arm == diet]) for diet in replies}
    run, built = shared.run(task, split.train, _seed(seed))
    facts = _facts(base, shared, split, task, seed, built, scores) | {"data_sha256": prepared.fingerprint}
    write_text(out / DEV_ANSWERS_FILE, "".join(trial.line() for trial in trials))
    kept = _copied(
        shared.keep / run, out / ("model" if base.method == "full" else "adapter"), card(task, facts)
    )
    merged, same = None, None
    if merge and base.method != "full":
        merged, same = _merged(arms, task, split, replies, scoring, out, facts)
    write_json(out / MODEL_FILE, facts)
    return TunedModel(kept, merged, scores, built.warnings, same)


def _check_scored(task: Task) -> None:
    if task.score.metric == JUDGE:
        raise StudyError(
            "a judge scores answers in studies only: take another metric here, or use `tunepoint run`"
        )


def _copied(run: Path, kept: Path, card: str) -> Path:
    """The weights of a run beside their card."""
    shutil.copytree(
        run, kept, dirs_exist_ok=True, ignore=shutil.ignore_patterns("job.json", "steps.jsonl", "*.lock")
    )
    write_text(kept / "README.md", card)
    return kept


def _facts(
    base: Tune,
    shared: CausalBase,
    split: Split,
    task: Task,
    seed: int,
    built: Built,
    scores: Mapping[PromptLength, Interval],
) -> dict[str, Any]:
    """What the card says and tunepoint.json keeps."""
    return {
        "base": base.base,
        "recipe": asdict(shared.recipe),
        "examples": len(split.train),
        "train_sha256": fingerprint(split.train),
        "task_sha256": task.measured_by(),
        "seed": seed,
        "answer_tokens": shared.room(split.train),
        "seconds": built.seconds,
        "dev_scores": {diet: asdict(score) for diet, score in scores.items()},
        "warnings": list(built.warnings),
    }


def base_to_tune(task: Task, base: str | None, method: str | None, epochs: int | None) -> Tune:
    """The first base that a task tunes on this machine, with what the command line says instead.

    Raises:
        TaskError: no base is named, or the method is none.

    """
    first = next((one for one in task.tune if one.provider is None), None)
    if first is None and base is None:
        raise TaskError("no base to tune: name one with --base, or as [[tune]] base in task.toml")
    said = {"base": base, "method": method, "epochs": epochs}
    content = (first.model_dump(exclude_none=True) if first else {}) | {
        k: v for k, v in said.items() if v is not None
    }
    return Task.parse({"name": task.name, "tune": [content]}, where="the command line").tune[0]


def _seed(seed: int) -> int:
    return int(stream(seed, Stream.FIT).integers(2**31))


def _answers(
    arm: CausalTuned, task: Task, train: Sequence[Example], dev: Sequence[Example], seed: int
) -> list[Reply]:
    fitted = arm.fit(task, train, stream(seed, Stream.FIT))
    return fitted.answer([example.input for example in dev])


def _merged(
    arms: Sequence[CausalTuned],
    task: Task,
    split: Split,
    measured: Mapping[PromptLength, Sequence[Reply]],
    scoring: BatchScorer,
    out: Path,
    facts: Mapping[str, Any],
) -> tuple[Path, Parity]:
    """The merged model, kept only if it says what was measured with every prompt."""
    from tunepoint.arms.causal.loading import load_base
    from tunepoint.arms.templates import fill_template
    from tunepoint.models.endpoints import TextModel
    from tunepoint.models.local import LocalEndpoint

    folder, base = out / "merged", arms[0].base
    base.merge(folder)
    model, tokenizer = load_base(str(folder))
    served = TextModel(LocalEndpoint.of(str(folder), model, tokenizer), remote=False)
    found: Parity | None = None
    for arm in arms:
        template = arm.template(task, split.train)
        replies = served.answer([fill_template(template, example) for example in split.dev])
        found = parity(split.dev, measured[arm.diet], replies, scoring)
        if not found.holds:
            shutil.rmtree(folder)
            raise ModelError(
                f"the merged model does not answer as the adapter did ({arm.diet} prompt) and was not kept: "
                f"{found}"
            )
    assert found is not None
    write_text(folder / "README.md", card(task, facts))
    return folder, found


def card(task: Task, facts: Mapping[str, Any]) -> str:
    """The model card: what it is, from what, how good."""
    recipe = facts["recipe"]
    scores = "\n".join(
        f"| {diet} | {score['estimate']:.3f} | {score['low']:.3f} to {score['high']:.3f} |"
        for diet, score in facts["dev_scores"].items()
    )
    warned = "".join(f"* {warning}\n" for warning in facts["warnings"]) or "* none\n"
    return f"""---
base_model: {json.dumps(facts["base"])}
library_name: {"transformers" if recipe["method"] == "full" else "peft"}
tags: [tunepoint]
---

# {task.name}: {facts["base"]}, fine-tuned

{task.instruction}

| | |
|---|---|
| base | {facts["base"]} |
| licence | that of the base, and what your examples allow |
| examples | {facts["examples"]} |
| train, SHA-256 | {facts["train_sha256"]} |
| data, SHA-256 | {facts["data_sha256"]} |
| task, SHA-256 | {facts["task_sha256"]} |
| recipe | {", ".join(f"{name} {value}" for name, value in recipe.items() if value not in (None, [], ()))} |
| seed | {facts["seed"]} |
| training | {facts["seconds"]:.0f} s |

| prompt | score on dev ({task.score.metric}) | 95% interval |
|---|---|---|
{scores}

Dev chose when to stop, so these scores are a little too good; a study measures on its sealed test.

Warnings:

{warned}"""
