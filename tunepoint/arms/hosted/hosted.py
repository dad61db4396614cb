"""Hosted fine-tuning as an arm: a provider's model, tuned and served there."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import ClassVar

from numpy.random import Generator

from tunepoint.arms.contract import Built, Input, LocalFittedArm
from tunepoint.arms.distilled import DistilledSet
from tunepoint.arms.hosted.job_state import JobState
from tunepoint.arms.hosted.jobs import HostedJob, Progress, quiet
from tunepoint.arms.hosted.opening import open_client
from tunepoint.arms.hosted.providers import TuningProvider, notices
from tunepoint.arms.hosted.quote import HostedQuote, quote
from tunepoint.arms.hosted.rows import validate
from tunepoint.arms.hosted.tuning_run import TuningRun
from tunepoint.arms.templates import chat_rows, template_for_length
from tunepoint.data.examples import Example
from tunepoint.data.licences import open_to_training, trainable
from tunepoint.errors import ModelError
from tunepoint.models.abilities import Abilities
from tunepoint.models.chat import ChatModel, Prompt, Reply
from tunepoint.models.endpoints import TextModel
from tunepoint.models.named_models import NamedModel, open_hosted
from tunepoint.models.providers import PROVIDERS as CHAT_PROVIDERS
from tunepoint.task.hosting import Dedicated
from tunepoint.task.task import Task
from tunepoint.trials.trial import ArmKind


def chat_model(name: str, abilities: Abilities) -> TextModel:
    """Return the tuned model, called without recording or spending cap."""
    return TextModel(open_hosted(NamedModel(name), abilities))


@dataclass
class FittedHosted(LocalFittedArm):
    """A tuned model that answers at its provider."""

    model: ChatModel
    template: Prompt
    built: Built
    job: JobState
    """Name of the tuned model, trained tokens, dollars of training."""

    def answer(self, inputs: Sequence[Input]) -> list[Reply]:
        """Return one reply for each input, in their order."""
        return self.model.answer([replace(self.template, input=text) for text in inputs])


@dataclass
class HostedTuned:
    """An arm: a provider's model, fine-tuned there; every seed is a job of its own."""

    provider: TuningProvider
    base: str
    """The model to tune, by the provider's name for it."""
    keep: Path
    """Folder of the state files."""
    epochs: int = 3
    learning_rate_multiplier: float | None = None
    validation: tuple[Example, ...] = ()
    """Examples on which the provider reports the loss; it does not train on them."""
    confirm: Callable[[HostedQuote], None] | None = None
    """Called before anything is uploaded; raising stops it."""
    progress: Progress = quiet
    served_as: str | None = None
    """Name of the deployed model, as in `together/ACCOUNT/ENDPOINT`, where the provider does not
    serve by itself what it has tuned."""
    url: str | None = None
    """Base URL in place of the provider's."""
    open: Callable[[str, Abilities], ChatModel] = chat_model
    """Opens the tuned model; a study adds its recording and its spending cap here."""
    sleep: Callable[[float], None] = time.sleep
    distilled: DistilledSet | None = None
    """Answers of a prompted model to train on; the targets of the training set if None."""
    hosting: Dedicated | None = None
    """Machines that are reserved for it, where the provider bills them by time."""
    seeds: int = 1
    family: str = "hosted fine-tuning"
    kind: ArmKind = "tuned"
    remote: ClassVar[bool] = True
    name: str = field(init=False)

    def __post_init__(self) -> None:
        self.name = f"{self.provider.name}/{self.base} fine-tuned"
        if self.distilled is not None:
            self.name, self.family = f"{self.name}, taught", f"{self.family}, taught"

    @property
    def label(self) -> str:
        """The base model, and whether it is distilled."""
        return f"tuned {self.base.rpartition('/')[2]}" + ("" if self.distilled is None else ", distilled")

    @property
    def base_model(self) -> str:
        """The model to tune, by the provider's name for it."""
        return self.base

    @property
    def provider_name(self) -> str:
        """The provider, as [[tune]] names it."""
        return self.provider.name

    @property
    def announced_end(self) -> date | None:
        """The day on which the provider shuts the base model down."""
        retirement = self.provider.retirement(self.base)
        return retirement.on if retirement else None

    def seconds_for(self, examples: int) -> float:
        """Return 0: it trains at the provider, and takes no time of this machine."""
        return 0.0

    def fit(self, task: Task, train: Sequence[Example], rng: Generator) -> FittedHosted:
        """Train at the provider, or resume the job of the same rows, settings and seed.

        Raises:
            DataError: the examples do not fit the provider's limits.
            ModelError: the provider refuses, the job failed, or the tuned model is not served.

        """
        run = self.run_of(task, train, rng)
        validate(run.rows, self.provider, ids=[example.id for example in self._examples(task, train)])
        job = self._finished_job(run)
        # A tuned model answers in the form of its targets; a schema around a label would be another form.
        model = self.open(self._model_name(job), Abilities(schema=task.answer.kind == "json"))
        warnings = tuple(notices(self.provider, date.today(), base=self.base))
        built = Built(len(run.rows), 0.0, warnings, job.training_usd or 0.0)
        if self.distilled is not None:
            built = self.distilled.credited(built)
        return FittedHosted(model, template_for_length(task, train, "full"), built, job)

    def run_of(self, task: Task, train: Sequence[Example], rng: Generator) -> TuningRun:
        """Return what `fit` trains: for a quote beforehand, or to cancel it."""
        return TuningRun(
            self.base,
            chat_rows(task, self._examples(task, train), train),
            chat_rows(task, open_to_training(task, self.validation), train),
            self.epochs,
            self.learning_rate_multiplier,
            int(rng.integers(2**31)),
        )

    def state_file(self, run: TuningRun) -> Path:
        """Return the path of a run's state file."""
        return self.keep / f"{self.provider.name}-{run.fingerprint[:16]}.json"

    def _examples(self, task: Task, train: Sequence[Example]) -> Sequence[Example]:
        """Return the examples to train on."""
        return trainable(task, train) if self.distilled is None else self.distilled.examples

    def _finished_job(self, run: TuningRun) -> JobState:
        path = self.state_file(run)
        state = JobState.read(path)
        if state is not None and state.status == "succeeded":
            return state  # without a call, so that a study is read again without key and network
        with open_client(self.provider, url=self.url, sleep=self.sleep) as client:
            job = HostedJob(client, run, path)
            state = job.existing()
            if state is None:
                if self.confirm is not None:
                    self.confirm(quote(run.rows, self.provider, self.base, self.epochs))
                state = job.start()
            return job.watch(state, progress=self.progress)

    def _model_name(self, job: JobState) -> str:
        """Return the tuned model's name, as `models/providers.py` parses it."""
        if self.served_as is not None:
            return self.served_as
        if self.provider.hosting in ("shared adapters", "dedicated") or not job.tuned_model:
            model, how = job.tuned_model or "without a name", self.provider.hosting or "see its documentation"
            raise ModelError(
                f"{self.provider.name}: job {job.id} is done (model {model}), but the provider serves the "
                f"model only after you deploy it ({how}). Deploy it and give its name as served_as; it is "
                "not trained again"
            )
        if self.provider.form != "openai":
            return f"{self.provider.name}/{job.tuned_model}"
        url = self.provider.base_url(self.url)
        if url == self.provider.url and self.provider.name in CHAT_PROVIDERS:
            return f"{self.provider.name}/{job.tuned_model}"
        return f"{url}#{job.tuned_model}"
