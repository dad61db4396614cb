"""Sections of task.toml about the work: data, answers, scores, models, tuning."""

from __future__ import annotations

from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from tunepoint.files.amounts import Dollars, TokenPrice
from tunepoint.files.toml import Section
from tunepoint.models.batch.terms import batch_terms, known_terms
from tunepoint.models.chat import AnswerKind
from tunepoint.models.endpoints import CallSettings
from tunepoint.models.prompt_caches import PromptCache
from tunepoint.models.providers import HERE_PREFIXES
from tunepoint.models.retirements import announced_retirement
from tunepoint.task.columns import Columns
from tunepoint.task.hosting import Dedicated


class Data(Section):
    """Where the examples are, and which columns hold their parts.

    Either `path` names one file, which is split, or `train` and `test` name files that are split already.
    """

    path: Path | None = None
    """One file with all examples."""
    train: Path | None = None
    dev: Path | None = None
    """Validation set; drawn from `train` if missing."""
    test: Path | None = None
    pool: Path | None = None
    """File of inputs without right answers, for `tunepoint label`."""
    input: str | tuple[str, ...] = "input"
    """Column of the input, or several."""
    target: str = "target"
    """Column of the right answer."""
    group: str | None = None
    """Column of groups; rows of one group stay on one side of the split."""
    slice: str | None = None
    """Column of named parts of the traffic, such as a language."""
    date: str | None = None
    """Column of dates."""
    id: str | None = None
    """Column of ids; file and line name an example if missing."""
    origin: str | None = None
    """Column of who wrote the target: human, captured, or a model's name."""
    licence: str | None = None
    """Column of licenses."""
    no_training: tuple[str, ...] = ("no-training",)
    """Licenses whose rows are not trained on; prompts and the test set may use them."""
    split: tuple[float, float, float] = (0.55, 0.15, 0.30)
    """Shares of training, validation and test set, if one file holds all examples."""

    @model_validator(mode="after")
    def _one_source(self) -> Data:
        parts = {"train": self.train, "dev": self.dev, "test": self.test}
        named = [name for name, path in parts.items() if path is not None]
        if self.path is not None and named:
            raise ValueError(f"give either path or {' and '.join(named)}, not both")
        if self.path is None and not {"train", "test"} <= set(named):
            raise ValueError("give path, or both train and test")
        if not min(self.split) > 0 or not abs(sum(self.split) - 1) <= 1e-6:
            raise ValueError(f"split needs three positive shares that add up to 1, got {self.split}")
        return self

    @property
    def columns(self) -> Columns:
        """The columns to read."""
        inputs = (self.input,) if isinstance(self.input, str) else tuple(self.input)
        optional = (self.group, self.slice, self.date, self.id, self.origin, self.licence)
        return Columns(inputs, self.target, *optional)


class Answer(Section):
    """The kind of the answers, and their labels or schema."""

    kind: AnswerKind = "label"
    labels: dict[str, str] | None = None
    """Label -> description; the labels of the data if missing."""
    json_schema: dict[str, Any] | None = None
    """JSON schema of `json` answers; objects of any form if missing."""

    @model_validator(mode="after")
    def _not_empty(self) -> Answer:
        if self.labels is not None and not self.labels:
            raise ValueError("labels is empty; leave it out to take the labels of the data")
        return self


def _in_future(day: date | None) -> date | None:
    if day is not None and day <= date.today():
        raise ValueError("is in the past; use the successor model")
    return day


EFFORT = "reasoning_effort"
"""The parameter that says how much a model thinks."""


class ModelName(Section):
    """A model to prompt, or the log of what runs today."""

    name: str
    """As in `openai/NAME`, `embedded:minilm` or `recorded:LOG.jsonl`."""
    price: TokenPrice | None = None
    """Takes precedence over the published price; a model without either runs on your own machine."""
    cache: PromptCache | None = None
    """How its server caches prompts; as its provider is known to do if missing."""
    key_env: str | None = None
    """Environment variable with the key of its server."""
    concurrency: Annotated[int, Field(ge=1, le=1_000)] = 64
    """Calls at once."""
    decodes: Annotated[int, Field(ge=1, le=20)] = 1
    """Answers to each test item; three or more show how much sampling alone moves the score."""
    retires: Annotated[date | None, AfterValidator(_in_future)] = None
    """The day on which its provider shuts it down, if announced."""
    styles: tuple[str, ...] | None = None
    """Families of prompts to try, as in `few-shot`; None tries what suits the model."""
    batch: bool = False
    """Whether a study sends its calls by the provider's batch API, which is cheaper and takes up to a day."""
    hosting: Dedicated | None = None
    """Machines reserved for it; without them it is paid per answer, or runs on your own machine."""
    replies: Path | None = None
    """File of its replies to this very task, which a study takes instead of asking the model."""
    replaced: bool = False
    """Whether what runs today has to go, as where its provider shuts it down: it is never chosen, and the
    options are compared with it. For `recorded:LOG.jsonl`."""
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    """In place of 0, which makes answers as repeatable as the model allows."""
    max_output_tokens: Annotated[int, Field(ge=1, le=10**6)] | None = None
    """Longest answer, thoughts included; if missing, 512 for labels and numbers, else 2,048."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=0, le=2**31)] | None = None
    reasoning_effort: str | tuple[str, ...] | None = None
    """How much a reasoning model thinks, as in `low`; its thoughts are in cost and latency. With several,
    each is an option of its own."""
    extra: dict[str, Any] = Field(default_factory=dict)
    """Further keys of the call's body, as the provider names them."""
    train_on_outputs: bool | None = None
    """Whether the provider's terms let you train on its outputs; Tunepoint does not guess them."""

    @property
    def last_day(self) -> date | None:
        """The day on which it is shut down, by the task or by its provider; None if none is announced."""
        announced = announced_retirement(self.name)
        return self.retires or (announced.on if announced else None)

    @property
    def efforts(self) -> tuple[str, ...]:
        """The efforts that are compared; empty where it has one or none."""
        return self.reasoning_effort if isinstance(self.reasoning_effort, tuple) else ()

    @property
    def settings(self) -> CallSettings:
        """How it is asked, whatever its effort where there are several."""
        effort = None if self.efforts else self.reasoning_effort
        parameters = {"top_p": self.top_p, EFFORT: effort, **self.extra}
        given = tuple((name, value) for name, value in sorted(parameters.items()) if value is not None)
        return CallSettings(self.temperature, self.max_output_tokens, self.seed or 0, given)

    @model_validator(mode="after")
    def _takes_its_settings(self) -> ModelName:
        if self.replaced and not self.name.startswith(RECORDED_PREFIX):
            raise ValueError(f"replaced: {self.name} is no log of what runs today, as in recorded:LOG.jsonl")
        if self.replies is not None and self.name.startswith((EMBEDDED, RECORDED_PREFIX)):
            raise ValueError(f"replies: {self.name} is no language model that could have replied")
        if len(set(self.efforts)) < len(self.efforts) or self.reasoning_effort in ((), ""):
            raise ValueError(f"{EFFORT}: name each effort once, as in {EFFORT} = ['none', 'low']")
        if self.batch and batch_terms(self.name) is None:
            known = ", ".join(pattern for terms in known_terms() for pattern in terms.models)
            raise ValueError(f"batch: no batch API is known for {self.name}; known are those of {known}")
        own = [name for name, _ in self.settings.parameters] + ([EFFORT] if self.efforts else [])
        if own and self.name.startswith(HERE_PREFIXES):
            known = "temperature, max_output_tokens and seed"
            raise ValueError(f"{', '.join(own)}: {self.name} runs on this machine, and takes {known} only")
        return self

    @field_validator("decodes")
    @classmethod
    def _not_two(cls, decodes: int) -> int:
        if decodes == 2:
            raise ValueError("two decodes say next to nothing about how runs vary: use 1, or 3 or more")
        return decodes


def _as_model(value: Any) -> Any:
    """Return the table of a model for its name alone, so that `judge = "openai/NAME"` is enough."""
    return {"name": value} if isinstance(value, str) else value


JUDGE = "judge"
"""The metric whose scores a model gives."""


class Score(Section):
    """How an answer is scored, from 0 to 1."""

    metric: str = "exact"
    """A metric's name, or `package.module:function`."""
    accept: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Score from which a model's answer is good enough to train on."""
    tolerance: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """For `numeric`: how far a number may be off, absolutely or relatively."""
    judge: Annotated[ModelName, BeforeValidator(_as_model)] | None = None
    """For `judge`: the model that grades; its name, or name, price and concurrency."""
    rubric: str = ""
    """For `judge`: what makes an answer good."""
    scale: Annotated[int, Field(ge=2, le=10)] = 5
    """The best grade; the worst is 1."""
    grading: Literal["written", "probability"] = "written"
    """For `judge`: it writes reasons and a grade, or the score is how probable it finds that it is good.
    A small model judges better by the latter."""
    human: Path | None = None
    """People's grades of some answers: a table of item, answer and grade."""

    @model_validator(mode="after")
    def _complete_judge(self) -> Score:
        if self.judge is not None and self.judge.efforts:
            raise ValueError(f"judge.{EFFORT}: a judge has one effort, got {len(self.judge.efforts)}")
        keys = {"judge": self.judge, "rubric": self.rubric}
        missing = [key for key, value in keys.items() if not value]
        if self.metric == JUDGE and missing:
            raise ValueError(
                f"metric 'judge' needs {' and '.join(missing)}: judge = 'PROVIDER/MODEL' grades every "
                "answer by the rubric, a text that says what makes an answer good"
            )
        if self.metric != JUDGE and len(missing) < len(keys):
            raise ValueError(f"judge and rubric are for metric = 'judge', but the metric is {self.metric!r}")
        if self.metric != JUDGE and self.grading != "written":
            raise ValueError(f"grading is for metric = 'judge', but the metric is {self.metric!r}")
        return self

    def identity(self) -> dict[str, Any]:
        """Return the settings that scores depend on: not prices, and not people's grades."""
        content: dict[str, Any] = {"metric": self.metric, "tolerance": self.tolerance}
        if self.judge is not None:
            content |= {"judge": self.judge.name, "rubric": self.rubric, "scale": self.scale}
            if self.grading != "written":
                content["grading"] = self.grading
            if self.judge.settings != CallSettings():
                content["judge_settings"] = asdict(self.judge.settings)
        return content


RECORDED_PREFIX = "recorded:"
"""Prefix in the name of a model that is a log of outputs."""
EMBEDDED = "embedded:minilm"
"""Name of the encoder in the extra `tune`, which needs no provider."""


class Search(Section):
    """Budget of the search for a better prompt."""

    calls: Annotated[int, Field(ge=0, le=1_000_000)] = 400
    """Answers that it may ask for; 0 turns the search off."""
    usd: Dollars | None = None
    """Dollars after which it stops."""
    proposer: str | None = None
    """Name of the model that proposes instructions; the task's first chat model if missing."""


class Track(Section):
    """Trackers of experiments that get the verdict."""

    to: tuple[Literal["mlflow", "wandb"], ...] = ()
    """Which; their own environment variables say where they are."""
    project: str | None = None
    """Experiment of MLflow, project of Weights & Biases; the task's name if missing."""


UNMEASURED_TUNE_KEYS = {"hosting", "key_env", "log_to", "served_as", "retires"}
"""Keys of `[[tune]]` that change no trial."""


class Tune(Section):
    """A language model to fine-tune, on this machine or at a provider."""

    base: Annotated[str, Field(min_length=1)]
    """A directory, a name on the Hugging Face hub, or the provider's name for it."""
    provider: str | None = None
    """`openai`, `together`, ...; None tunes on this machine."""
    method: Literal["lora", "qlora", "full"] = "lora"
    seeds: Annotated[int, Field(ge=1, le=20)] | None = None
    """Training runs; if missing, 3 on this machine and 1 at a provider."""
    epochs: Annotated[int, Field(ge=1, le=100)] = 3
    rank: Annotated[int, Field(ge=1, le=1_024)] = 16
    """Of the adapter."""
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """If missing, 2e-4 for adapters and 2e-5 for all weights."""
    batch: Annotated[int, Field(ge=1, le=1_024)] = 8
    """Examples per step."""
    served_as: str | None = None
    """Name of the deployed model, if the provider does not serve tuned models by itself."""
    key_env: str | None = None
    """Environment variable with the key of the server of the tuned model, if it is not the provider's."""
    retires: Annotated[date | None, AfterValidator(_in_future)] = None
    """The day on which the provider shuts down the base and all tuned from it; as announced if None."""
    engine: Literal["transformers", "vllm"] = "transformers"
    """What answers with the tuned model on this machine; vLLM holds all adapters of a base in one server."""
    hosting: Dedicated | None = None
    """Machines reserved for the tuned model; without them its measured seconds are priced."""
    log_to: tuple[Literal["tensorboard", "mlflow"], ...] = ()
    """Trackers that also get the loss, if they are installed."""
    distil: bool = False
    """Add an arm that also learns from the best prompted model's good answers to the training inputs."""
    curve: bool = False
    """Draw this model's learning curve: three more runs, on parts of the training set."""

    def identity(self) -> dict[str, Any]:
        """Return the settings that trials depend on; of the engine, what older studies had counts as none."""
        parts = self.model_dump(exclude=UNMEASURED_TUNE_KEYS)
        if self.engine == "transformers":
            del parts["engine"]
        return parts


class ChainSteps(Section):
    """A chain of prompts that the user wrote."""

    name: str
    steps: Annotated[tuple[str, ...], Field(min_length=1, max_length=6)]
    """Instructions of the steps before the last; `{instruction}` stands for the task's."""


class Stability(Section):
    """What the owner of the task knows about its future."""

    requirements_change: bool | None = None
    """True: instruction or labels are expected to change monthly."""
    newest_models: bool | None = None
    """True: new foundation models are to be used as they appear."""
