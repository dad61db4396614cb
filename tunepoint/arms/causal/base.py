"""A base model that is tuned here, and its training runs, which the arms of all prompt lengths share."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.random import Generator

from tunepoint.arms.causal.checkpoints import CheckpointRace, by_group
from tunepoint.arms.causal.hardware import check_fits, resolve_base, size_of
from tunepoint.arms.causal.job import TrainingJob
from tunepoint.arms.causal.loading import load_base, load_tokenizer, put_adapter
from tunepoint.arms.causal.recipe import CausalRecipe
from tunepoint.arms.causal.rows import Rows, draw_prompt_lengths, rows_of
from tunepoint.arms.causal.sft import Launch, fine_tune
from tunepoint.arms.causal.trained import Trained
from tunepoint.arms.causal.trainer import Watch
from tunepoint.arms.causal.warm_up import seconds_per_token
from tunepoint.arms.contract import Built
from tunepoint.arms.distilled import DistilledSet
from tunepoint.arms.templates import fill_template, template_for_length
from tunepoint.data.examples import Example, fingerprint
from tunepoint.data.licences import trainable
from tunepoint.models.endpoints import Endpoint, TextModel
from tunepoint.models.local import MIN_OUTPUT_TOKENS, LocalEndpoint
from tunepoint.task.sections import JUDGE
from tunepoint.task.task import Task
from tunepoint.trials.grading import task_scorer

COLLAPSE_PROBES = 24
"""Training examples that a new run answers, to see whether it gives all of them the same answer."""
MIN_DEV_EXAMPLES = 24
"""With fewer validation examples a run neither stops early nor compares its checkpoints."""
MAX_DEV_EXAMPLES = 200
"""Validation examples that a run uses; more would take longer than they are worth."""


@dataclass(frozen=True)
class TrainingQuote:
    """What one training run will take, from a measured warm-up."""

    examples: int
    tokens: int
    """Over all epochs."""
    seconds: float
    usd: float
    """At the price of this machine's cores."""

    def __str__(self) -> str:
        return (
            f"{self.examples} examples, {self.tokens:,} tokens in all epochs: about {self.seconds:,.0f} s "
            f"and ${self.usd:.4f} a run"
        )


class RunEndpoints(Protocol):
    """Answers with the weights of training runs outside of this process."""

    def of(self, base: CausalBase, run: str, requests: int) -> Endpoint | None:
        """Return what answers so many requests with a run's weights; None leaves them to this process."""
        ...

    def release(self) -> None:
        """Give the memory back that a training on this machine needs."""
        ...


@dataclass
class CausalBase:
    """A base model and its training runs."""

    base: str
    keep: Path
    """Folder of the runs: each in its own, by data, recipe and seed."""
    folder: Path = Path()
    """Where a relative base starts."""
    recipe: CausalRecipe = field(default_factory=CausalRecipe)
    dev: tuple[Example, ...] = ()
    """Examples whose loss stops a run early; never those of the test."""
    watch: Watch | None = None
    launch: Launch | None = None
    """Trains in processes of its own; in this one if None."""
    elsewhere: RunEndpoints | None = None
    """Answers with the weights of runs; this process does if None."""
    lock: threading.RLock = field(default_factory=threading.RLock, init=False, repr=False, compare=False)
    """Held from choosing a run's weights to its last answer."""
    _endpoint: LocalEndpoint | None = field(default=None, repr=False)
    _loaded_runs: list[str] = field(default_factory=list, repr=False)
    """Runs whose weights are in memory, the active one last."""
    _built: dict[str, Built] = field(default_factory=dict, repr=False)

    def run(
        self, task: Task, train: Sequence[Example], seed: int, distilled: DistilledSet | None = None
    ) -> tuple[str, Built]:
        """Train a run, unless it was trained before; return its name and what it took.

        Args:
            task: has the instruction and the scorer.
            train: has the labels, and is trained on unless there is a distilled set.
            seed: of the run.
            distilled: answers of a prompted model to train on.

        Raises:
            DataError: too few examples, or too many that are longer than the context.
            ModelError: the base does not fit this machine, or cannot be loaded.

        """
        examples = trainable(task, train) if distilled is None else distilled.examples
        name = self.run_name(task, train, seed, distilled)
        if name not in self._built:
            self._built[name] = self._build(name, task, examples, train, seed)
        built = self._built[name]
        # The same targets may come from the users or from a prompted model; only the latter were paid for.
        return name, built if distilled is None else distilled.credited(built)

    def run_name(
        self, task: Task, train: Sequence[Example], seed: int, distilled: DistilledSet | None = None
    ) -> str:
        """Return the name of a run: by data, recipe and seed."""
        examples = trainable(task, train) if distilled is None else distilled.examples
        return f"{self._digest(examples)}-{seed:010d}"

    def keeping(self, folder: Path) -> CausalBase:
        """Return the same base with its runs in another folder and none in memory."""
        return CausalBase(self.base, folder, self.folder, self.recipe, self.dev)

    def __reduce__(self) -> tuple[Any, ...]:
        """Leave out what belongs to this process: the weights in memory, the lock, and who watches."""
        return CausalBase, (self.base, self.keep, self.folder, self.recipe, self.dev)

    def _build(
        self, name: str, task: Task, examples: Sequence[Example], train: Sequence[Example], seed: int
    ) -> Built:
        folder = self.keep / name
        trained = Trained.read(folder)
        if trained is None:
            rows, dev, context = self.rows(task, examples, train, np.random.default_rng(seed))
            self.release()  # training needs the memory
            job = TrainingJob(self._where, rows.rows, dev.rows, self.recipe, folder, seed % 2**31)
            pick = self._race(task, train, np.random.default_rng([seed, 1]))
            trained = fine_tune(job, watch=self.watch, launch=self.launch, pick=pick)
            trained = trained.warning(rows.warnings(context))
        collapse = _collapse_warnings(self.answering(name, COLLAPSE_PROBES), task, train)
        return Built(len(examples), trained.seconds, (*trained.warnings, *collapse))

    def _race(self, task: Task, train: Sequence[Example], rng: Generator) -> CheckpointRace | None:
        """Return a race of checkpoints; None with few validation examples, or if a judge would grade them."""
        if len(self.dev) < MIN_DEV_EXAMPLES or task.score.metric == JUDGE:
            return None
        dev, max_tokens = by_group(self.dev[:MAX_DEV_EXAMPLES], rng), self.max_answer_tokens(train)
        lengths = draw_prompt_lengths(len(dev), self.recipe.prompt_shares, rng)
        templates = (template_for_length(task, train, length) for length in lengths)
        prompts = tuple(replace(template, max_output_tokens=max_tokens) for template in templates)
        return CheckpointRace(dev, prompts, task_scorer(task))

    @property
    def _where(self) -> str:
        return resolve_base(self.base, self.folder)

    def _digest(self, examples: Sequence[Example]) -> str:
        return f"{fingerprint(examples)[:12]}-{self.recipe.digest()}"

    def rows(
        self, task: Task, examples: Sequence[Example], train: Sequence[Example], rng: Generator
    ) -> tuple[Rows, Rows, int]:
        """Return training and validation examples in tokens, and the context of the base.

        Raises:
            DataError: too few examples, or too many that are longer than the context.
            ModelError: the base does not fit this machine; no weights were loaded.

        """
        size = size_of(self.base, self.folder)
        tokenizer = load_tokenizer(self._where)
        lengths = draw_prompt_lengths(len(examples), self.recipe.prompt_shares, rng)
        rows = rows_of(task, examples, lengths, tokenizer, size.context, train=train)
        check_fits(self.base, size, self.recipe, max(len(row.input_ids) for row in rows.rows), self.keep)
        dev_rows = Rows((), ())
        if len(self.dev) >= MIN_DEV_EXAMPLES:
            dev = self.dev[:MAX_DEV_EXAMPLES]
            lengths = draw_prompt_lengths(len(dev), self.recipe.prompt_shares, rng)
            dev_rows = rows_of(task, dev, lengths, tokenizer, size.context, train=train)
        return rows, dev_rows, size.context

    def quote(self, task: Task, train: Sequence[Example], usd_per_second: float) -> TrainingQuote:
        """Return what a run on these examples will take; measures a few steps.

        Raises:
            DataError, ModelError: as `run`.

        """
        examples = trainable(task, train)
        rows, _, _ = self.rows(task, examples, train, np.random.default_rng(0))
        self.release()
        count = len(rows.rows)
        tokens = round(rows.tokens * self.recipe.steps(count) * self.recipe.batch / count)
        path = self.keep / f"warm-up-{self._digest(examples)}.json"
        if not path.exists():  # a study that resumes has its quote already
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(
                json.dumps(seconds_per_token(self._where, rows.rows, self.recipe)), encoding="utf-8"
            )
        seconds = tokens * float(json.loads(path.read_text(encoding="utf-8")))
        return TrainingQuote(count, tokens, seconds, seconds * usd_per_second)

    def endpoint(self, run: str) -> LocalEndpoint:
        """Return the model with the weights of a run active; adapters share one copy of the base."""
        if self._endpoint is not None and self._loaded_runs and self._loaded_runs[-1] == run:
            return self._endpoint
        folder = self.keep / run
        if self.recipe.method == "full":
            model, tokenizer = load_base(str(folder))
            self._endpoint, self._loaded_runs = LocalEndpoint(self.base, model, tokenizer), [run]
            return self._endpoint
        if self._endpoint is None:
            base, tokenizer = load_base(self._where, self.recipe)
            self._endpoint = LocalEndpoint(self.base, put_adapter(base, folder, run), tokenizer)
        elif run not in self._loaded_runs:
            put_adapter(self._endpoint.model, folder, run)
        self._endpoint.model.set_adapter(run)
        self._loaded_runs = [*(name for name in self._loaded_runs if name != run), run]
        return self._endpoint

    def answering(self, run: str, requests: int) -> Endpoint:
        """Return what answers so many requests with the weights of a run."""
        endpoint = None if self.elsewhere is None else self.elsewhere.of(self, run, requests)
        return self.endpoint(run) if endpoint is None else endpoint

    def max_answer_tokens(self, train: Sequence[Example]) -> int:
        """Return the tokens that an answer may have: twice those of the longest target."""
        tokenizer = load_tokenizer(self._where)
        longest = max((example.target for example in train), key=len)
        return 2 * len(tokenizer(longest, add_special_tokens=False)["input_ids"]) + MIN_OUTPUT_TOKENS

    def merge(self, folder: Path) -> None:
        """Write the base with the active adapter in it as one model; unloads both."""
        assert self._endpoint is not None, "a run is fitted before it is merged"
        merged = self._endpoint.model.merge_and_unload()
        merged.save_pretrained(folder)
        self._endpoint.tokenizer.save_pretrained(folder)
        self.release()

    def release(self) -> None:
        """Drop the model from memory, and from that of servers."""
        if self.elsewhere is not None:
            self.elsewhere.release()
        self._endpoint, self._loaded_runs = None, []


def _collapse_warnings(endpoint: Endpoint, task: Task, train: Sequence[Example]) -> tuple[str, ...]:
    """Warn if a tuned model gives the same answer to examples with different targets."""
    sample = train[:: max(1, len(train) // COLLAPSE_PROBES)][:COLLAPSE_PROBES]
    if len({example.target for example in sample}) < 2:
        return ()
    template = template_for_length(task, train, "full")
    model = TextModel(endpoint, remote=False)
    answers = {reply.text for reply in model.answer([fill_template(template, e) for e in sample])}
    if len(answers) > 1:
        return ()
    return (
        f"the tuned model collapsed: it answers {answers.pop()[:40]!r} to all of {len(sample)} training "
        "examples",
    )
