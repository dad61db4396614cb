"""The contract that makes a prompt and a tuned model comparable."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Protocol, runtime_checkable

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
    """Labelled examples without which the arm would not be what it is."""
    seconds: float = 0.0
    """Training time on this machine, all cores."""
    warnings: tuple[str, ...] = ()
    """What looks wrong with the training run; empty for a sound one."""
    usd: float = 0.0
    """Dollars that a provider took for training."""
    teacher_usd: float = 0.0
    """Dollars of the calls that wrote its training examples; they were paid as they were made."""


class FittedArm(Protocol):
    """An arm that answers.

    One bad input is a reply with `format_ok` false; only systemic faults raise.
    """

    built: Built

    def answer(self, inputs: Sequence[Input]) -> list[Reply]:
        """Replies in the order of the inputs."""
        ...

    async def answer_one(self, input: Input) -> Reply:
        """One reply, cancellable: what serving uses."""
        ...


class Arm(Protocol):
    """A candidate way of doing the task."""

    name: str
    """Identity in files: unique in a study, and the same in every version."""
    family: str
    """Arms that differ only in settings; one of each family is selected on dev."""
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
        """Whether it calls a model elsewhere: its seconds are those of each call."""
        ...

    seeds: int
    """Training runs that show its variance; 1 for an arm without randomness."""

    def fit(self, task: Task, train: Sequence[Example], rng: Generator) -> FittedArm:
        """Learn from `train` alone; all randomness comes from `rng`."""
        ...


@runtime_checkable
class Resamplable(Protocol):
    """An arm whose model may answer the same input differently each time."""

    decodes: int
    """Answers to each test item."""

    def decoded(self, number: int) -> Arm:
        """The arm that gives the answers of one decode, 0 for the first."""
        ...


@runtime_checkable
class HasTrainingTime(Protocol):
    """An arm that knows how long one of its training runs will take, each with luck of its own."""

    def seconds_for(self, examples: int) -> float:
        """Seconds of one run on so many examples."""
        ...


class HasLearningCurve(Arm, HasTrainingTime, Protocol):
    """An arm that gets better with examples, and whose learning curve is drawn."""

    fewest: int
    """Examples that it can be trained on at least."""

    def once(self) -> Arm:
        """The same arm with one training run."""
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

    alone: str
    """Name of the arm that is the same model without it."""


@runtime_checkable
class HasModel(Protocol):
    """A fitted arm that asks one model."""

    model: ChatModel


@runtime_checkable
class Concurrent(Protocol):
    """A fitted arm, or a model, that says whether several threads may ask it at once."""

    @property
    def concurrent(self) -> bool:
        """Whether they may."""
        ...


class LocalFittedArm:
    """An arm that answers in this process: serving one is a batch of one, in a thread."""

    def answer(self, inputs: Sequence[Input]) -> list[Reply]:
        """Replies in the order of the inputs."""
        raise NotImplementedError

    async def answer_one(self, input: Input) -> Reply:
        """One reply, without blocking the event loop."""
        return (await asyncio.to_thread(self.answer, [input]))[0]


@dataclass(frozen=True)
class NotRun:
    """An arm that was not tried, and why."""

    name: str
    reason: str
