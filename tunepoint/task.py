"""The task: what to do, with which examples, how it is scored, and what limits hold."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    field_validator,
    model_validator,
)

from tunepoint.assumptions import Costs, Limits, Section, Traffic, Value
from tunepoint.data.examples import Columns, Example
from tunepoint.hosting import Dedicated
from tunepoint.models.chat import AnswerKind
from tunepoint.models.rates import TokenPrice
from tunepoint.quantities import Dollars, as_given
from tunepoint.task_faults import read_toml, validated


class Data(Section):
    """Where the examples are and which columns hold what."""

    path: Path | None = None
    train: Path | None = None
    dev: Path | None = None
    test: Path | None = None
    input: str | tuple[str, ...] = "input"
    target: str = "target"
    group: str | None = None
    slice: str | None = None
    date: str | None = None
    id: str | None = None
    origin: str | None = None
    """Column that says who wrote the target: human, captured, or a model's name."""
    licence: str | None = None
    """Column that says under what a row may be used."""
    no_training: tuple[str, ...] = ("no-training",)
    """Licences whose rows are not trained on; prompts and tests may use them."""
    split: tuple[float, float, float] = (0.55, 0.15, 0.30)
    """Shares of train, dev and test where one file holds all examples."""

    @model_validator(mode="after")
    def _one_source(self) -> Data:
        apart = [name for name in ("train", "dev", "test") if getattr(self, name) is not None]
        if self.path is not None and apart:
            raise ValueError(f"give either path or {' and '.join(apart)}, not both")
        if self.path is None and not {"train", "test"} <= set(apart):
            raise ValueError("give path, or both train and test")
        if not min(self.split) > 0 or not abs(sum(self.split) - 1) <= 1e-6:
            raise ValueError(f"split needs three positive shares that add up to 1, got {self.split}")
        return self

    @property
    def columns(self) -> Columns:
        """The columns to read."""
        inputs = (self.input,) if isinstance(self.input, str) else tuple(self.input)
        more = (self.group, self.slice, self.date, self.id, self.origin, self.licence)
        return Columns(inputs, self.target, *more)


class Answer(Section):
    """What kind of answer is expected, and for labels which there are."""

    kind: AnswerKind = "label"
    labels: dict[str, str] | None = None
    """Label -> description; the labels of the data where it is missing."""
    json_schema: dict[str, Any] | None = None
    """JSON schema of `json` answers; objects of any form where it is missing."""

    @model_validator(mode="after")
    def _some_labels(self) -> Answer:
        if self.labels is not None and not self.labels:
            raise ValueError("labels is empty; leave it out to take the labels of the data")
        return self


def _to_come(day: date | None) -> date | None:
    if day is not None and day <= date.today():
        raise ValueError("is past; name the model that followed, and measure that")
    return day


class ModelName(Section):
    """A model to prompt or to tune, or the log of one that ran."""

    name: str
    price: TokenPrice | None = None
    """Overrides the price that is known; a model without any runs on your own machine."""
    concurrency: Annotated[int, Field(ge=1, le=1_000)] = 64
    decodes: Annotated[int, Field(ge=1, le=20)] = 1
    """Answers to each test item; three and more show how much the decoding alone moves the score."""
    retires: Annotated[date | None, AfterValidator(_to_come)] = None
    """The day on which its provider shuts it down, where that is announced."""
    hosting: Dedicated | None = None
    """Machines that are reserved for it; paid by the answer, or on your own machine, if missing."""
    train_on_outputs: bool | None = None
    """Whether the terms of its provider let you train on what it writes; nobody guesses them."""

    @field_validator("decodes")
    @classmethod
    def _enough(cls, decodes: int) -> int:
        if decodes == 2:
            raise ValueError("two decodes say next to nothing of what a run moves: take 1, or 3 and more")
        return decodes


def _named(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


JUDGE = "judge"
"""The metric of answers that a model grades."""


class Score(Section):
    """How an answer is scored, 0 to 1."""

    metric: str = "exact"
    accept: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Score from which a model's answer is good enough to train on."""
    tolerance: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """How far a number may be off, absolutely or relatively; for `numeric`."""
    judge: Annotated[ModelName, BeforeValidator(_named)] | None = None
    """The model that grades, for `judge`: its name, or name, price and concurrency."""
    rubric: str = ""
    """What makes an answer good, for `judge`."""
    scale: Annotated[int, Field(ge=2, le=10)] = 5
    """The best grade; the worst is 1."""
    human: Path | None = None
    """Grades that people gave to some answers: a table of item, answer and grade."""

    @model_validator(mode="after")
    def _judged(self) -> Score:
        lacking = [key for key in ("judge", "rubric") if not getattr(self, key)]
        if self.metric == JUDGE and lacking:
            raise ValueError(
                f"metric 'judge' needs {' and '.join(lacking)}: judge = 'PROVIDER/MODEL' grades every "
                "answer by the rubric, a text that says what makes one good"
            )
        if self.metric != JUDGE and len(lacking) < 2:
            raise ValueError(f"judge and rubric are for metric = 'judge', and the metric is {self.metric!r}")
        return self

    def identity(self) -> dict[str, Any]:
        """What scores depend on: not on prices, nor on what people say of them afterwards."""
        content = {"metric": self.metric, "tolerance": self.tolerance}
        if self.judge is not None:
            content |= {"judge": self.judge.name, "rubric": self.rubric, "scale": self.scale}
        return content


RECORDED = "recorded:"
"""Begins the name of a model that is a log of outputs."""
EMBEDDED = "embedded:minilm"
"""Name of the encoder that comes along."""


class Search(Section):
    """How much the search for a better prompt may take."""

    calls: Annotated[int, Field(ge=0, le=1_000_000)] = 400
    """Answers that it may ask for; 0 does not search."""
    usd: Dollars | None = None
    """Dollars after which it proposes nothing more."""
    proposer: str | None = None
    """Name of the model that proposes; the first chat model of the task where it is missing."""


_ASIDE = {"hosting", "log_to", "served_as", "retires"}
"""Keys of `[[tune]]` that no trial depends on."""


class Tune(Section):
    """A language model to fine-tune, on this machine or at a provider."""

    base: Annotated[str, Field(min_length=1)]
    """A directory or a hub's name; the provider's name for it where there is one."""
    provider: str | None = None
    """`openai`, `together`, ...; None tunes on this machine."""
    method: Literal["lora", "qlora", "full"] = "lora"
    seeds: Annotated[int, Field(ge=1, le=20)] | None = None
    """Training runs; 3 on this machine and 1 at a provider where it is missing."""
    epochs: Annotated[int, Field(ge=1, le=100)] = 3
    rank: Annotated[int, Field(ge=1, le=1_024)] = 16
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Of the method if missing: 2e-4 for adapters, 2e-5 for all weights."""
    batch: Annotated[int, Field(ge=1, le=1_024)] = 8
    served_as: str | None = None
    """Name of the deployed model, where a provider does not serve what it has tuned by itself."""
    retires: Annotated[date | None, AfterValidator(_to_come)] = None
    """The day on which its provider shuts the base and what was tuned from it down; as announced if None."""
    hosting: Dedicated | None = None
    """Machines that are reserved for the tuned model, in place of what it took while it was measured."""
    log_to: tuple[Literal["tensorboard", "mlflow"], ...] = ()
    """Where the loss is logged as well, if you have it."""
    distil: bool = False
    """Train on what the best prompted model answers to the train inputs, too: an arm of its own."""
    curve: bool = False
    """Draw the learning curve of this model: three more runs, on parts of train."""


class ChainSteps(Section):
    """A chain of prompts of the user's own: what each step before the last is told."""

    name: str
    steps: Annotated[tuple[str, ...], Field(min_length=1, max_length=6)]


class Stability(Section):
    """What the owner of the task declares about its future."""

    requirements_change: bool | None = None
    """True: instruction or labels are expected to change monthly."""
    newest_models: bool | None = None
    """True: the newest foundation models shall be usable as they appear."""


class Task(Section):
    """Everything a study needs to know; read from `task.toml`."""

    name: Annotated[str, Field(min_length=1, pattern=r"^[\w.-]+$")]
    instruction: str = ""
    data: Data | None = None
    answer: Answer = Answer()
    score: Score = Score()
    traffic: Traffic = Traffic()
    limits: Limits = Limits()
    value: Value = Value()
    costs: Costs = Costs()
    declared: Stability = Stability()
    search: Search = Search()
    chains: tuple[ChainSteps, ...] = ()
    tune: tuple[Tune, ...] = ()
    models: tuple[ModelName, ...] = (ModelName(name=EMBEDDED),)
    currencies: dict[str, float] = Field(default_factory=dict)
    """Dollars of one unit of other currencies in which amounts of this file are given."""
    folder: Path = Field(default=Path(), exclude=True)
    """Where relative paths start: the folder of task.toml."""

    @classmethod
    def load(cls, path: str | Path) -> Task:
        """Read `task.toml`.

        Raises:
            TaskError: no such file, not TOML, an unknown key, a value out of its range;
                the message names the key and the nearest known one.

        """
        path = Path(path)
        if path.is_dir():
            path = path / "task.toml"
        content = read_toml(path, "`tunepoint init DATA.csv` writes one from your data")
        return cls.parse(content, where=str(path), folder=path.resolve().parent)

    @classmethod
    def parse(cls, content: Mapping[str, Any], *, where: str = "task", folder: Path = Path()) -> Task:
        """A task from the mapping that task.toml holds.

        Raises:
            TaskError: as `load`.

        """
        return validated(cls, content, where=where, folder=folder)

    def resolve(self, path: Path) -> Path:
        """The path as seen from the folder of task.toml."""
        return path if path.is_absolute() else self.folder / path

    def logs(self) -> dict[str, Path]:
        """Logs of what runs today: the name of the model -> its file."""
        names = [model.name for model in self.models if model.name.startswith(RECORDED)]
        return {name: self.resolve(Path(name.removeprefix(RECORDED))) for name in names}

    def forbids_training(self, example: Example) -> str | None:
        """Why an example may not be trained on; None if it may."""
        closed = self.data.no_training if self.data else ()
        if example.licence and example.licence.casefold() in [name.casefold() for name in closed]:
            return f"licence {example.licence}"
        named = example.origin.split(",")[0].strip().casefold()
        writer = next((model for model in self.models if model.name.casefold() == named), None)
        if writer is not None and writer.train_on_outputs is False:
            return f"written by {writer.name}"
        return None

    def portable(self) -> dict[str, Any]:
        """The task as JSON, with the folder that its paths start from: `Task.parse` reads it again."""
        content = as_given(self.model_dump(mode="json"))
        if self.answer.json_schema is not None:  # null means something in it
            content["answer"]["json_schema"] = self.answer.json_schema
        return {"folder": str(self.folder.resolve()), "task": content}

    def measured_by(self) -> str:
        """SHA-256 of all that trials depend on.

        Limits, traffic and costs are not among it: when they change, the verdict is
        computed anew from the same trials.
        """
        parts = self.model_dump(mode="json", include={"instruction", "data", "answer", "chains", "search"})
        parts["score"] = self.score.identity()
        parts["models"] = [model.name for model in self.models]
        if any(one.distil for one in self.tune):
            parts["accept"] = self.score.accept
        if self.tune:
            parts["tune"] = [one.model_dump(exclude=_ASIDE) for one in self.tune]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
