"""A causal language model, fine-tuned on the task: one training run, measured with three prompts."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.random import Generator

from tunepoint.arms.causal.checkpoints import CheckpointRace, by_group
from tunepoint.arms.causal.hardware import check_fits, place, size_of
from tunepoint.arms.causal.loading import load_base, load_tokenizer, put_adapter
from tunepoint.arms.causal.recipe import CausalRecipe
from tunepoint.arms.causal.rows import FEWEST, Rows, draw_prompt_lengths, rows_of
from tunepoint.arms.causal.sft import Launch, Trained, Watch, fine_tune, warm_up
from tunepoint.arms.contract import Built, Input, LocalFittedArm
from tunepoint.arms.distilled import DistilledSet
from tunepoint.arms.templates import PromptLength, template_for_length
from tunepoint.data.examples import Example, fingerprint
from tunepoint.data.licences import trainable
from tunepoint.models.chat import Prompt, Reply
from tunepoint.models.endpoints import TextModel
from tunepoint.models.local import LEAST, LocalEndpoint
from tunepoint.task.hosting import Dedicated
from tunepoint.task.sections import JUDGE
from tunepoint.task.task import Task
from tunepoint.trials.scorers import each, scorer
from tunepoint.trials.trial import ArmKind

ASKED = 24
"""Examples that a finished run answers, to see whether it says the same to all."""
DEV = 200
"""Dev examples whose loss stops a run early."""


@dataclass
class FittedCausal(LocalFittedArm):
    """A training run with one prompt."""

    base: CausalBase
    run: str
    template: Prompt
    built: Built

    def answer(self, inputs: Sequence[Input]) -> list[Reply]:
        """Replies in the order of the inputs."""
        with self.base.lock:  # one copy of the base has the weights of one run at a time
            model = TextModel(self.base.endpoint(self.run), remote=False)
            return model.answer([replace(self.template, input=text) for text in inputs])


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


@dataclass
class CausalBase:
    """A base model and its training runs, which the arms of all prompts share."""

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
    """Trains in processes of its own; this one if None."""
    lock: threading.RLock = field(default_factory=threading.RLock, init=False, repr=False, compare=False)
    """Held from choosing a run's weights to its last answer."""
    _endpoint: LocalEndpoint | None = field(default=None, repr=False)
    _there: list[str] = field(default_factory=list, repr=False)
    _built: dict[str, Built] = field(default_factory=dict, repr=False)

    def run(
        self, task: Task, train: Sequence[Example], seed: int, distilled: DistilledSet | None = None
    ) -> tuple[str, Built]:
        """Name of a run and what it took; trains what was not trained yet.

        Args:
            train: has the labels, and is learnt from where there is no lesson.

        Raises:
            DataError: too few examples, or too many that are longer than the context.
            ModelError: the base does not fit this machine, or cannot be loaded.

        """
        learnt = trainable(task, train) if distilled is None else distilled.examples
        name = f"{fingerprint(learnt)[:12]}-{self.recipe.digest()}-{seed:010d}"
        if name in self._built:
            return name, self._credited(name, distilled)
        kept, left_out = self.keep / name, tuple[str, ...]()
        trained = Trained.read(kept)
        if trained is None:
            rows, dev, context = self.rows(task, learnt, train, np.random.default_rng(seed))
            left_out = rows.warnings(context)
            self.release()  # training takes the memory
            trained = fine_tune(
                self._where,
                rows.rows,
                dev.rows,
                self.recipe,
                kept,
                seed=seed % 2**31,
                watch=self.watch,
                launch=self.launch,
                pick=self._race(task, train, np.random.default_rng([seed, 1])),
            )
        said = (*left_out, *trained.warnings, *_collapsed(self.endpoint(name), task, train))
        self._built[name] = Built(len(learnt), trained.seconds, said)
        return name, self._credited(name, distilled)

    def _credited(self, name: str, distilled: DistilledSet | None) -> Built:
        """What a run took; a teacher that is right on everything teaches the targets, but not for nothing."""
        return self._built[name] if distilled is None else distilled.credited(self._built[name])

    def _race(self, task: Task, train: Sequence[Example], rng: Generator) -> CheckpointRace | None:
        """How checkpoints are compared; None where dev is small or a judge would have to grade it."""
        if len(self.dev) < ASKED or task.score.metric == JUDGE:
            return None
        some, room = by_group(self.dev[:DEV], rng), self.room(train)
        diets = draw_prompt_lengths(len(some), self.recipe.diet, rng)
        prompts = (replace(template_for_length(task, train, diet), max_output_tokens=room) for diet in diets)
        scoring = each(scorer(task.score.metric, task.folder, tolerance=task.score.tolerance))
        return CheckpointRace(some, tuple(prompts), scoring)

    @property
    def _where(self) -> str:
        return place(self.base, self.folder)

    def rows(
        self, task: Task, learnt: Sequence[Example], train: Sequence[Example], rng: Generator
    ) -> tuple[Rows, Rows, int]:
        """What is learnt and dev in tokens, and the context.

        Raises:
            ModelError: the base does not fit this machine; no weights were loaded.

        """
        size = size_of(self.base, self.folder)
        tokenizer = load_tokenizer(self._where)
        diets = draw_prompt_lengths(len(learnt), self.recipe.diet, rng)
        rows = rows_of(task, learnt, diets, tokenizer, size.context, train=train)
        check_fits(self.base, size, self.recipe, max(len(row.input_ids) for row in rows.rows), self.keep)
        dev = Rows((), ())
        if len(self.dev) >= ASKED:
            some = self.dev[:DEV]
            diets = draw_prompt_lengths(len(some), self.recipe.diet, rng)
            dev = rows_of(task, some, diets, tokenizer, size.context, train=train)
        return rows, dev, size.context

    def quote(self, task: Task, train: Sequence[Example], usd_per_second: float) -> TrainingQuote:
        """What a run on these examples will take; measures a few steps, and refuses what does not fit.

        Raises:
            DataError, ModelError: as `run`.

        """
        learnt = trainable(task, train)
        rows, _, _ = self.rows(task, learnt, train, np.random.default_rng(0))
        self.release()
        tokens = round(rows.tokens * self.recipe.steps(len(rows.rows)) * self.recipe.batch / len(rows.rows))
        measured = self.keep / f"warm-up-{fingerprint(learnt)[:12]}-{self.recipe.digest()}.json"
        if not measured.exists():  # once: a study that goes on has its quote already
            measured.parent.mkdir(parents=True, exist_ok=True)
            measured.write_text(json.dumps(warm_up(self._where, rows.rows, self.recipe)), encoding="utf-8")
        seconds = tokens * float(json.loads(measured.read_text(encoding="utf-8")))
        return TrainingQuote(len(rows.rows), tokens, seconds, seconds * usd_per_second)

    def endpoint(self, run: str) -> LocalEndpoint:
        """The model with the weights of a run in place; adapters share one copy of the base."""
        if self._endpoint is not None and self._there and self._there[-1] == run:
            return self._endpoint
        kept = self.keep / run
        if self.recipe.method == "full":
            model, tokenizer = load_base(str(kept))
            self._endpoint, self._there = LocalEndpoint.of(self.base, model, tokenizer), [run]
            return self._endpoint
        if self._endpoint is None:
            base, tokenizer = load_base(self._where, self.recipe)
            self._endpoint = LocalEndpoint.of(self.base, put_adapter(base, kept, run), tokenizer)
        elif run not in self._there:
            put_adapter(self._endpoint.model, kept, run)
        self._endpoint.model.set_adapter(run)
        self._there = [*(one for one in self._there if one != run), run]
        return self._endpoint

    def room(self, train: Sequence[Example]) -> int:
        """Tokens that an answer may have: twice the longest target, for a model that has learnt from them."""
        tokenizer = load_tokenizer(self._where)
        longest = max((example.target for example in train), key=len)
        return 2 * len(tokenizer(longest, add_special_tokens=False)["input_ids"]) + LEAST

    def merge(self, folder: Path) -> None:
        """Write the base with the adapter that is at work, as one model; the adapter is gone afterwards."""
        assert self._endpoint is not None, "a run is fitted before it is merged"
        merged = self._endpoint.model.merge_and_unload()
        merged.save_pretrained(folder)
        self._endpoint.tokenizer.save_pretrained(folder)
        self.release()

    def release(self) -> None:
        """Let go of the model's memory."""
        self._endpoint, self._there = None, []


def _collapsed(endpoint: LocalEndpoint, task: Task, train: Sequence[Example]) -> tuple[str, ...]:
    """Whether a tuned model says the same to everything."""
    some = train[:: max(1, len(train) // ASKED)][:ASKED]
    if len({example.target for example in some}) < 2:
        return ()
    template = template_for_length(task, train, "full")
    model = TextModel(endpoint, remote=False)
    said = {reply.text for reply in model.answer([replace(template, input=e.input) for e in some])}
    if len(said) > 1:
        return ()
    return (
        f"the tuned model collapsed: it answers {said.pop()[:40]!r} to all of {len(some)} training examples",
    )


@dataclass
class CausalTuned:
    """An arm: a fine-tuned language model with all of the prompt, the instruction alone, or nothing."""

    base: CausalBase
    diet: PromptLength
    title: str
    """What the base is called in the arm's name."""
    seeds: int = 3
    seconds_an_example: float = 0.0
    """What its training is expected to take; 0 where another arm's run is its own."""
    lesson: DistilledSet | None = None
    """What a prompted model taught it; the targets of train if None."""
    hosting: Dedicated | None = None
    """Machines that will serve it."""
    instruction: str | None = None
    """In place of the task's: that of its teacher, which a search has found."""
    fewest: int = FEWEST
    remote: ClassVar[bool] = False
    name: str = field(init=False)
    family: str = field(init=False)
    kind: ArmKind = field(init=False)

    def __post_init__(self) -> None:
        words = {"full": "full prompt", "short": "instruction alone", "none": "no prompt"}
        way = f"{self.title} {self.base.recipe.method}" + (" taught" if self.lesson else "")
        self.family = way if self.diet == "none" else f"{way} + prompt"
        self.name = f"{way}, {words[self.diet]}"
        if self.instruction is not None:
            self.name += ", optimised"
        self.kind = "tuned" if self.diet == "none" else "hybrid"
        self.alone = f"{way}, {words['none']}"

    def fit(self, task: Task, train: Sequence[Example], rng: Generator) -> FittedCausal:
        """Train on `train`, or load the run of the same data, recipe and `rng`."""
        run, built = self.base.run(task, train, int(rng.integers(2**31)), self.lesson)
        return FittedCausal(self.base, run, self.template(task, train), built)

    def once(self) -> CausalTuned:
        """The same arm with one training run."""
        return replace(self, seeds=1)

    def seconds_for(self, examples: int) -> float:
        """What a training run is expected to take."""
        return self.seconds_an_example * examples

    def template(self, task: Task, train: Sequence[Example]) -> Prompt:
        """What every prompt has in common."""
        prompt = template_for_length(task, train, self.diet)
        if self.instruction is not None:
            prompt = replace(prompt, instruction=self.instruction)
        return replace(prompt, max_output_tokens=self.base.room(train))
