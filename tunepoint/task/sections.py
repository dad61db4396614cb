"""The sections of task.toml."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from tunepoint.files.amounts import Dollars, TokenPrice
from tunepoint.files.toml import Section
from tunepoint.models.chat import AnswerKind
from tunepoint.task.columns import Columns
from tunepoint.task.hosting import Dedicated


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
