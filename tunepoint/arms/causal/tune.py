"""Tune one language model on a task, outside a study, and write it to disk with its card."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tunepoint.arms.causal.dev_answers import DEV_ANSWERS_FILE, dev_trials
from tunepoint.arms.causal.from_task import causal_arms
from tunepoint.arms.causal.gguf_export import GGUF_FILE, WrittenGguf, check_gguf_base, export_gguf
from tunepoint.arms.causal.model_card import MODEL_FILE, ModelFacts, model_card
from tunepoint.arms.parity import Parity, parity
from tunepoint.arms.templates import PromptLength, fill_template
from tunepoint.data.examples import fingerprint
from tunepoint.data.prepare import Prepared, prepare
from tunepoint.data.split import Split
from tunepoint.errors import ModelError, StudyError, TaskError
from tunepoint.files.text import make_folder, write_json, write_text
from tunepoint.models.chat import Reply
from tunepoint.stats.intervals import Interval
from tunepoint.stats.streams import Stream, stream
from tunepoint.task.sections import JUDGE, Tune
from tunepoint.task.task import Task
from tunepoint.trials.grading import score_replies, task_scorer
from tunepoint.trials.tabulation import mean_interval
from tunepoint.trials.trial import Trial

if TYPE_CHECKING:
    from tunepoint.arms.causal.base import CausalBase, TrainingQuote
    from tunepoint.arms.causal.causal import CausalTuned
    from tunepoint.arms.causal.sft import Launch
    from tunepoint.arms.causal.trainer import Watch

Replies = Mapping[PromptLength, Sequence[Reply]]
"""To the validation set, by prompt length."""


@dataclass(frozen=True)
class TunedModel:
    """A tuned model on disk."""

    folder: Path
    """The adapter, or the whole model after full fine-tuning; its README.md is the card."""
    merged: Path | None
    """The base with the adapter in it, if it was asked for and answers the same."""
    scores: Mapping[PromptLength, Interval]
    """Score on the validation set, by prompt length."""
    warnings: tuple[str, ...]
    parity: Parity | None = None
    """Of the merged model against the adapter."""
    written: WrittenGguf | None = None
    """How llama.cpp answers from `gguf`; None where none was asked for."""

    @property
    def gguf(self) -> Path:
        """The model for llama.cpp, where one was asked for; a Modelfile for Ollama lies beside it."""
        return self.folder.parent / GGUF_FILE


def tune_model(
    task: Task,
    base: Tune,
    out: Path,
    *,
    seed: int = 0,
    merge: bool = False,
    gguf: bool = False,
    confirm: Callable[[TrainingQuote], None] | None = None,
    watch: Watch | None = None,
    launch: Launch | None = None,
) -> TunedModel:
    """Train on the training set, measure on the validation set, write the weights; the test stays sealed.

    Args:
        task: names the examples, the scorer and the instruction.
        base: the model to tune, and how.
        out: folder for the model; a run that was killed resumes there.
        seed: splits as a study with this seed does, and seeds the training.
        merge: write the merged model as well, if it answers the validation set as the adapter does.
        gguf: write it as a GGUF file as well, if llama.cpp answers the validation set as the adapter does.
        confirm: called with the quote before training; raise to stop.
        watch: called at every logged step.
        launch: trains in processes of its own (`launchers.ProcessLauncher`); in this one if None.

    Raises:
        TunepointError: the user can fix it, or the merged model answers otherwise and was deleted.

    """
    _check_possible(task, base, gguf=gguf)
    prepared = prepare(task, seed)
    split = prepared.split
    arms = _arms(task, base, out, split, confirm)
    tuned = arms[0].base  # shared by all of them
    tuned.watch, tuned.launch = watch, launch
    replies = {arm.prompt_length: _answer_dev(arm, task, split, seed) for arm in arms}
    trials = _scored(task, replies, split, out)
    scores = {length: mean_interval([t for t in trials if t.arm == length]) for length in replies}
    run, facts = _facts(task, base, tuned, prepared, seed, scores)
    card, folder = model_card(task, facts), out / ("model" if base.method == "full" else "adapter")
    _copy_weights(tuned.keep / run, folder, card)
    merged = out / "merged" if (merge or gguf) and base.method != "full" else None
    same = None if merged is None else _merge(arms, task, split, replies, merged, card)
    adapter = None if base.method == "full" else folder
    written = export_gguf(base, arms, task, split, replies, merged or folder, out, adapter) if gguf else None
    if merged is not None and not merge:
        shutil.rmtree(merged)  # it was a step on the way to the GGUF file
        merged = same = None
    write_json(out / MODEL_FILE, facts.document())
    return TunedModel(folder, merged, scores, facts.warnings, same, written)


def _arms(
    task: Task, base: Tune, out: Path, split: Split, confirm: Callable[[TrainingQuote], None] | None
) -> list[CausalTuned]:
    """The arms of the base, one for each prompt; training them was quoted and confirmed."""
    make_folder(out)
    quote, arms = causal_arms(base, base.base, task, split.train, split.dev, out / "runs")
    if confirm is not None and not (out / MODEL_FILE).exists():
        confirm(quote)
    return arms


def base_to_tune(task: Task, base: str | None, method: str | None, epochs: int | None) -> Tune:
    """Return the first base that a task tunes on this machine, changed by the options of the command line.

    Raises:
        TaskError: no base is named, or the method is unknown.

    """
    first = next((tune for tune in task.tune if tune.provider is None), None)
    if first is None and base is None:
        raise TaskError("no base to tune: name one with --base, or as [[tune]] base in task.toml")
    options = {"base": base, "method": method, "epochs": epochs}
    content = (first.model_dump(exclude_none=True) if first else {}) | {
        name: value for name, value in options.items() if value is not None
    }
    return Task.parse({"name": task.name, "tune": [content]}, where="the command line").tune[0]


def _check_possible(task: Task, base: Tune, *, gguf: bool) -> None:
    if gguf:
        check_gguf_base(base)
    if task.score.metric == JUDGE:
        raise StudyError(
            "a judge scores answers in studies only; use another metric here, or run `tunepoint run`"
        )


def _answer_dev(arm: CausalTuned, task: Task, split: Split, seed: int) -> list[Reply]:
    # A stream of its own for each prompt, all with the same numbers: they share one run.
    fitted = arm.fit(task, split.train, stream(seed, Stream.FIT))
    return fitted.answer([example.input for example in split.dev])


def _scored(task: Task, replies: Replies, split: Split, out: Path) -> list[Trial]:
    """Score the answers, and write them down for later checks of servers."""
    scoring = task_scorer(task)
    scores = {length: score_replies(scoring, replies[length], split.dev).tolist() for length in replies}
    trials = dev_trials(replies, split.dev, scores)
    write_text(out / DEV_ANSWERS_FILE, "".join(trial.line() for trial in trials))
    return trials


def _facts(
    task: Task,
    base: Tune,
    tuned: CausalBase,
    prepared: Prepared,
    seed: int,
    scores: Mapping[PromptLength, Interval],
) -> tuple[str, ModelFacts]:
    """Return the name of the run and the facts of its model."""
    train = prepared.split.train
    run, built = tuned.run(task, train, int(stream(seed, Stream.FIT).integers(2**31)))
    return run, ModelFacts(
        base=base.base,
        recipe=tuned.recipe,
        examples=len(train),
        train_sha256=fingerprint(train),
        data_sha256=prepared.fingerprint,
        task_sha256=task.trials_fingerprint(),
        seed=seed,
        answer_tokens=tuned.max_answer_tokens(train),
        seconds=built.seconds,
        dev_scores=scores,
        warnings=built.warnings,
    )


def _copy_weights(run: Path, folder: Path, card: str) -> None:
    unneeded = shutil.ignore_patterns("job.json", "steps.jsonl", "*.lock")
    shutil.copytree(run, folder, dirs_exist_ok=True, ignore=unneeded)
    write_text(folder / "README.md", card)


def _merge(
    arms: Sequence[CausalTuned], task: Task, split: Split, measured: Replies, folder: Path, card: str
) -> Parity:
    """Write the merged model; delete it again if it answers otherwise with one of the prompts."""
    from tunepoint.arms.causal.loading import load_base
    from tunepoint.models.endpoints import TextModel
    from tunepoint.models.local import LocalEndpoint

    arms[0].base.merge(folder)
    model, tokenizer = load_base(str(folder))  # from disk, as a server will load it
    served = TextModel(LocalEndpoint(str(folder), model, tokenizer), remote=False)
    scoring = task_scorer(task)
    same: Parity | None = None
    for arm in arms:
        template = arm.template(task, split.train)
        replies = served.answer([fill_template(template, example) for example in split.dev])
        same = parity(split.dev, measured[arm.prompt_length], replies, scoring)
        if not same.holds:
            shutil.rmtree(folder)
            raise ModelError(
                f"the merged model does not answer as the adapter did ({arm.prompt_length} prompt) and was "
                f"not kept: {same}"
            )
    assert same is not None, "a base has three arms"
    write_text(folder / "README.md", card)
    return same
