"""Hosted fine-tuning: rows, their limits and their price; one job, started once; an arm.

A run has a fingerprint, and so have the name of its file and its job. The state file is written
before and after every step, and before anything is created it is looked for at the provider: a
process that was killed at any point goes on with the same job.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any, ClassVar

from numpy.random import Generator

from tunepoint.arms.contract import Built, Input, LocalFittedArm
from tunepoint.arms.distilled import DistilledSet
from tunepoint.arms.hosted.jobs import ENDED, Job, JobsClient, status_of
from tunepoint.arms.hosted.providers import (
    BYTES_A_TOKEN,
    PROVIDERS,
    Hosting,
    Row,
    Run,
    TuningProvider,
    bytes_of,
    jsonl,
    notices,
    tokens_of,
    validate,
)
from tunepoint.arms.templates import chat_rows, template_for_length
from tunepoint.data.examples import Example
from tunepoint.data.licences import open_to_training, trainable
from tunepoint.errors import ModelError, nearest
from tunepoint.models.chat import ChatModel, Prompt, Reply
from tunepoint.models.endpoints import TextModel
from tunepoint.models.openai import Abilities, OpenAIEndpoint
from tunepoint.models.prices import TOKENS_A_MESSAGE, TunedPrice, tuned_price
from tunepoint.models.providers import PROVIDERS as CHAT_PROVIDERS
from tunepoint.stats.ranges import Range
from tunepoint.task.hosting import Dedicated
from tunepoint.task.task import Task
from tunepoint.trials.trial import ArmKind

Progress = Callable[[str, float | None], None]
"""Called with what the provider says, and the share that is done where it says so, 0..1."""

POLL = 10.0
"""Seconds between two looks at a running job."""
PATIENCE = 24 * 3600.0
"""Seconds to watch one job before giving up; the job itself goes on."""


@dataclass(frozen=True)
class HostedQuote:
    """What a job is expected to take, before anything is uploaded."""

    provider: str
    base: str
    examples: int
    epochs: int
    tokens: int
    """Estimated tokens of one pass over the rows."""
    dollars: Range | None
    """Of training, all epochs; None where no price is known."""
    price: TunedPrice | None
    """Of the tuned model's answers, and of training where it is known; None where neither is."""
    hosting: Hosting | None
    retires: date | None
    """The day the tuned model is shut down together with its base; None where none is announced."""
    notices: tuple[str, ...] = ()

    def __str__(self) -> str:
        work = f"{self.examples} examples, about {self.tokens:,} tokens, {self.epochs} epochs"
        if self.dollars is None:
            cost = "no price of training is known: see the provider's price list"
        else:
            cost = f"${self.dollars.likely:.2f} (${self.dollars.low:.2f} to ${self.dollars.high:.2f})"
        return f"{self.provider}/{self.base}: {work}: {cost}"


def quote(
    rows: Sequence[Row], provider: TuningProvider, base: str, epochs: int, *, today: date | None = None
) -> HostedQuote:
    """What training on rows is expected to cost.

    Tokens are estimated as UTF-8 bytes / 4. The range goes from 5 bytes a token, plain English
    words, to 2, other scripts and code, with what a chat template puts around each message.
    """
    size = sum(map(bytes_of, rows))
    around = TOKENS_A_MESSAGE * sum(len(row["messages"]) for row in rows)
    price = tuned_price(f"{provider.name}/ft:{base}")
    dollars = None
    if price is not None and price.training is not None:
        rate = price.training * epochs / 1e6
        dollars = Range(size / 5 * rate, size / BYTES_A_TOKEN * rate, (size / 2 + around) * rate)
    return HostedQuote(
        provider.name,
        base,
        len(rows),
        epochs,
        sum(map(tokens_of, rows)),
        dollars,
        price,
        provider.hosting,
        provider.retires.get(base),
        tuple(notices(provider, today or date.today(), base=base)),
    )


def existing(remote: JobsClient, run: Run, path: Path) -> Job | None:
    """The job of a run that is at work or done, by the state file or by the provider's list.

    Failed and cancelled jobs do not count: what is run again after them is a new job.

    Raises:
        ModelError: the provider cannot be asked.

    """
    job = Job.read(path)
    if job is not None and job.id is not None and job.status not in ENDED:
        return job
    start = job or Job(run.fingerprint, remote.provider.name, run.base)
    file = remote.file(run.file_name("train"), len(jsonl(run.rows)))
    found = _found(remote, run, file)
    return None if found is None else replace(start, message=None).seen(found).save(path)


def _found(remote: JobsClient, run: Run, file: str | None) -> dict[str, Any] | None:
    """The provider's job for a run: a finished one before one at work."""
    ours = [job for job in remote.jobs() if _is_of(job, run, file)]
    live = [job for job in ours if status_of(job) not in ENDED]
    return min(live, key=lambda job: status_of(job) != "succeeded", default=None)


def _is_of(job: Mapping[str, Any], run: Run, file: str | None) -> bool:
    told = job.get("metadata") or {}
    same_file = file is not None and job.get("training_file") == file
    return same_file or told.get("tunepoint") == run.fingerprint or job.get("suffix") == run.suffix


def start(remote: JobsClient, run: Run, path: Path) -> Job:
    """Upload the rows and create the job of a run; what exists already is used.

    Raises:
        ModelError: the provider refuses, or gives no answer; what was done is in the state file.

    """
    chosen = run.hyperparameters(remote.provider)
    job = Job(run.fingerprint, remote.provider.name, run.base).save(path)
    file = remote.upload(run.file_name("train"), jsonl(run.rows))
    job = replace(job, file=file).save(path)
    validation = None
    if run.validation:
        validation = remote.upload(run.file_name("validation"), jsonl(run.validation))
    request = run.request(remote.provider, chosen, file=file, validation=validation)
    job = replace(job, status="creating", validation_file=validation).save(path)
    return job.seen(remote.create(request, lambda: _found(remote, run, file))).save(path)


def quiet(message: str, share: float | None) -> None:
    """Progress that nobody watches."""


def watch(
    remote: JobsClient, job: Job, path: Path, *, progress: Progress = quiet, patience: float = PATIENCE
) -> Job:
    """Follow a job until it is done.

    Args:
        remote: the provider.
        job: one that was started.
        path: its state file, rewritten at every change.
        progress: gets the provider's events, each once.
        patience: seconds before giving up; the job itself goes on.

    Raises:
        ModelError: the job failed or was cancelled, or took longer than `patience`.

    """
    identity = job.id
    assert identity is not None, "a job is watched after it was started"
    began, told = remote.clock(), 0
    while True:
        now = job.seen(remote.job(identity))
        job = now.save(path) if now != job else job
        events = remote.events(identity)[told:]
        told += len(events)
        for event in events:
            progress(event.message, event.share)
        if job.status == "succeeded":
            return job
        if job.status in ENDED:
            raise ModelError(_ended(job, [event.message for event in events if event.bad], path))
        if remote.clock() - began > patience:
            raise ModelError(
                f"{job.provider}: job {identity} is {job.status} after {patience:.0f} s; it goes on, and its "
                f"state is in {path}: run again to go on watching"
            )
        remote.sleep(POLL)


def _ended(job: Job, complaints: list[str], path: Path) -> str:
    said = job.message or (complaints[-1] if complaints else "the provider does not say why")
    happened = "was cancelled" if job.status == "cancelled" else f"failed: {said}"
    return (
        f"{job.provider}: job {job.id} {happened}; the uploaded file {job.file} and the state in {path} are "
        "kept: mend the cause, and run again to start a new job with that file"
    )


def cancel(remote: JobsClient, run: Run, path: Path) -> Job:
    """Stop the job of a run; one that is over stays as it is.

    Raises:
        ModelError: no such job was started, or the provider refuses.

    """
    job = existing(remote, run, path)
    if job is None or job.id is None:
        raise ModelError(f"{remote.provider.name}: no job at work for this run ({path}); nothing to cancel")
    return _stopped(remote, job, job.id, path)


def _stopped(remote: JobsClient, job: Job, identity: str, path: Path) -> Job:
    job = job.seen(remote.job(identity)).save(path)
    if job.status in (*ENDED, "succeeded"):
        return job
    return job.seen(remote.cancel(identity)).save(path)


def jobs_in(folder: Path) -> dict[Path, Job]:
    """The jobs whose state files are in a folder.

    Raises:
        ModelError: a file is damaged.

    """
    found = {path: Job.read(path) for path in sorted(folder.glob("*.json"))}
    return {path: job for path, job in found.items() if job is not None}


def cancel_job(folder: Path, identity: str) -> Job:
    """Stop a job by the id that its provider gave it; one that is over stays as it is.

    Raises:
        ModelError: no state file has this id, or the provider refuses.

    """
    known = {job.id: (path, job) for path, job in jobs_in(folder).items() if job.id is not None}
    if identity not in known:
        raise ModelError(f"{folder}: no job {identity!r}; {nearest(identity, known)}")
    path, job = known[identity]
    with JobsClient(PROVIDERS[job.provider]) as remote:
        return _stopped(remote, job, identity, path)


def chat_model(name: str, abilities: Abilities) -> TextModel:
    """The tuned model, asked over the wire without recording or cap."""
    return TextModel(OpenAIEndpoint(name, abilities=abilities))


@dataclass
class FittedHosted(LocalFittedArm):
    """A tuned model that answers at its provider."""

    model: ChatModel
    template: Prompt
    built: Built
    job: Job
    """Its state: name of the tuned model, trained tokens, dollars of training."""

    def answer(self, inputs: Sequence[Input]) -> list[Reply]:
        """Replies in the order of the inputs."""
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
    serve what it has tuned by itself."""
    url: str | None = None
    """Base URL in place of the provider's."""
    open: Callable[[str, Abilities], ChatModel] = chat_model
    """Opens the tuned model; a study puts its recording and its cap here."""
    sleep: Callable[[float], None] = time.sleep
    distilled: DistilledSet | None = None
    """What a prompted model taught it; the targets of train if None."""
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
        return self.provider.retires.get(self.base)

    def seconds_for(self, examples: int) -> float:
        """Nothing: it trains at the provider."""
        return 0.0

    def fit(self, task: Task, train: Sequence[Example], rng: Generator) -> FittedHosted:
        """Train at the provider, or go on with the job of the same rows, settings and seed.

        Raises:
            DataError: the examples do not fit the provider's limits.
            ModelError: the provider refuses, the job failed, or what it tuned is served nowhere.

        """
        run = self.run_of(task, train, rng)
        validate(run.rows, self.provider, ids=[example.id for example in self._learnt(task, train)])
        job = self._finished(run)
        # A tuned model answers in the form of its targets: a schema of ours around a label is none.
        model = self.open(self._served(job), Abilities(schema=task.answer.kind == "json"))
        warnings = tuple(notices(self.provider, date.today(), base=self.base))
        built = Built(len(run.rows), 0.0, warnings, job.training_usd or 0.0)
        if self.distilled is not None:
            built = self.distilled.credited(built)
        return FittedHosted(model, template_for_length(task, train, "full"), built, job)

    def run_of(self, task: Task, train: Sequence[Example], rng: Generator) -> Run:
        """What `fit` trains: for a quote beforehand, or to cancel it."""
        return Run(
            self.base,
            chat_rows(task, self._learnt(task, train), train),
            chat_rows(task, open_to_training(task, self.validation), train),
            self.epochs,
            self.learning_rate_multiplier,
            int(rng.integers(2**31)),
        )

    def _learnt(self, task: Task, train: Sequence[Example]) -> Sequence[Example]:
        return trainable(task, train) if self.distilled is None else self.distilled.examples

    def state(self, run: Run) -> Path:
        """The state file of a run."""
        return self.keep / f"{self.provider.name}-{run.fingerprint[:16]}.json"

    def _finished(self, run: Run) -> Job:
        path = self.state(run)
        job = Job.read(path)
        if job is not None and job.status == "succeeded":
            return job
        with JobsClient(self.provider, url=self.url, sleep=self.sleep) as remote:
            job = existing(remote, run, path)
            if job is None:
                if self.confirm is not None:
                    self.confirm(quote(run.rows, self.provider, self.base, self.epochs))
                job = start(remote, run, path)
            return watch(remote, job, path, progress=self.progress)

    def _served(self, job: Job) -> str:
        """The tuned model's name, as `models/providers.py` reads it."""
        if self.served_as is not None:
            return self.served_as
        if self.provider.hosting in ("shared adapters", "dedicated") or not job.tuned_model:
            model, way = job.tuned_model or "without a name", self.provider.hosting or "we do not know how"
            raise ModelError(
                f"{self.provider.name}: job {job.id} is done (model {model}), and the provider serves it "
                f"only after you deploy it ({way}): deploy it and give its name as served_as; it is not "
                "trained again"
            )
        url = self.provider.base_url(self.url)
        if url == self.provider.url and self.provider.name in CHAT_PROVIDERS:
            return f"{self.provider.name}/{job.tuned_model}"
        return f"{url}#{job.tuned_model}"
