"""The contract that makes prompted and tuned models comparable.

`Arm` is a candidate, `FittedArm` the same after it has seen the training set. The small protocols
below them name what only some arms can do; callers ask with `isinstance`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Protocol, Self, runtime_checkable

from numpy.random import Generator

from tunepoint.data.examples import Example
from tunepoint.models.chat import ChatModel, Reply
from tunepoint.task.hosting import Dedicated
from tunepoint.task.task import Task
from tunepoint.trials.trial import ArmKind

Input = str


@dataclass(frozen=True)
class Built:
    """What it took to fit an arm."""

    examples: int
    """Labeled examples that the arm depends on: shown in its prompt, or trained on."""
    seconds: float = 0.0
    """Training time on this machine, on all of its cores."""
    warnings: tuple[str, ...] = ()
    """What looks wrong with the training run; empty for a sound one."""
    usd: float = 0.0
    """Dollars that a provider charged for training."""
    teacher_usd: float = 0.0
    """Dollars of the calls that wrote its training examples, already paid when they were made."""


class FittedArm(Protocol):
    """An arm that answers.

    One bad input is a reply with `format_ok` false; only systemic faults raise.
    """

    built: Built

    def answer(self, inputs: Sequence[Input]) -> list[Reply]:
        """Return one reply for each input, in their order."""
        ...

    async def answer_one(self, input: Input) -> Reply:
        """Return the reply to one input; serving uses it, because it can be cancelled."""
        ...


class Arm(Protocol):
    """A candidate way of doing the task."""

    name: str
    """Identity in files: unique in a study, and the same in every version."""
    family: str
    """Arms that differ only in settings; selection keeps one of each family."""
    kind: ArmKind

    @property
    def label(self) -> str:
        """What people read: plain words, without settings such as weights and templates."""
        ...

    @property
    def base_model(self) -> str | None:
        """The model that it asks or is tuned from, as task.toml names it.

        None for the embedded encoder, and for an arm of several models.
        """
        ...

    @property
    def remote(self) -> bool:
        """Whether it calls a model elsewhere: latency is then that of each call, not of a batch."""
        ...

    seeds: int
    """Training runs that show its variance; 1 for an arm without randomness."""

    def fit(self, task: Task, train: Sequence[Example], rng: Generator) -> FittedArm:
        """Learn from `train` alone; all randomness comes from `rng`."""
        ...


# -- what only some arms can do ------------------------------------------------------------


@runtime_checkable
class Resamplable(Protocol):
    """An arm whose model may answer the same input differently each time."""

    decodes: int
    """Answers to each test item."""

    def decoded(self, number: int) -> Arm:
        """Return the arm that gives the answers of one decode, 0 for the first."""
        ...


@runtime_checkable
class HasTrainingTime(Protocol):
    """An arm that is trained, and knows how long one run takes."""

    def seconds_for(self, examples: int) -> float:
        """Return the expected seconds of one training run on this many examples."""
        ...


@runtime_checkable
class KeepsTrainingRuns(Arm, Protocol):
    """An arm whose training runs are files, so that another machine can train them."""

    keep: Path | None
    """Folder of its finished runs; a run that is there is loaded, not repeated. In memory alone if None."""

    def run_name(self, task: Task, train: Sequence[Example], rng: Generator) -> str:
        """Return the name, below `keep`, of the file or folder of the run that `fit` would load or train."""
        ...

    def keeping(self, folder: Path) -> Self:
        """Return the same arm with its runs in another folder and none in memory; it can be pickled."""
        ...


class HasLearningCurve(Arm, HasTrainingTime, Protocol):
    """An arm that gets better with examples, and whose learning curve can be drawn."""

    min_examples: int
    """The fewest examples that it can be trained on."""

    def once(self) -> Arm:
        """Return the same arm with a single training run."""
        ...


@runtime_checkable
class TunedByProvider(Protocol):
    """An arm whose model a provider tunes, and shuts down together with its base model."""

    @property
    def base_model(self) -> str:
        """The base model by the provider's name for it."""
        ...

    @property
    def provider_name(self) -> str:
        """The provider, as [[tune]] names it."""
        ...

    @property
    def announced_end(self) -> date | None:
        """The day on which the base model is shut down; None where none is announced."""
        ...


@runtime_checkable
class OnReservedMachines(Protocol):
    """An arm that may run on machines that are reserved for it."""

    hosting: Dedicated | None


@runtime_checkable
class HasPromptlessTwin(Protocol):
    """A hybrid: a tuned model with a prompt."""

    promptless_name: str
    """Name of the arm that is the same model without the prompt."""


# -- what only some fitted arms can do -----------------------------------------------------


@runtime_checkable
class HasModel(Protocol):
    """A fitted arm that asks one model."""

    model: ChatModel


@runtime_checkable
class Concurrent(Protocol):
    """A fitted arm, or a model, that says whether several threads may ask it at once."""

    @property
    def concurrent(self) -> bool:
        """Whether several threads may ask it at once."""
        ...


class LocalFittedArm:
    """Base of the fitted arms that answer in this process: `answer_one` is a batch of one, in a thread."""

    def answer(self, inputs: Sequence[Input]) -> list[Reply]:
        """Return one reply for each input, in their order."""
        raise NotImplementedError

    async def answer_one(self, input: Input) -> Reply:
        """Return the reply to one input, without blocking the event loop."""
        return (await asyncio.to_thread(self.answer, [input]))[0]


@dataclass(frozen=True)
class NotRun:
    """An arm that is left out, and why."""

    name: str
    reason: str
